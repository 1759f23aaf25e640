"""Decode all golden archives with the reference decoder: ``python tests/golden/reference.py OUT.npz``.

It needs Python and NumPy alone, as the reference decoder does, so that it runs where the package vcinr cannot.
"""

import importlib.util
import platform
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent


def decoder():
    """The module docs/reference_decoder.py."""
    spec = importlib.util.spec_from_file_location("reference_decoder", FOLDER.parents[1] / "docs/reference_decoder.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decoded(archives=None):
    """Every array of numbers of the archives, by ``ARCHIVE:ARRAY``."""
    read, found = decoder().read, {}
    for path in archives or sorted(FOLDER.glob("v*/*.zip")):
        with np.load(path.with_suffix(".npz")) as then:
            found |= {f"{path.stem}:{name}": read(path, name.replace("|", "/")) for name in then}
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **decoded())
    print(platform.machine(), platform.python_version(), np.__version__)
