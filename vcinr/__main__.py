"""``python -m vcinr``, and ``torchrun ... -m vcinr``: the command line."""

from vcinr.cli import main

if __name__ == "__main__":
    main()
