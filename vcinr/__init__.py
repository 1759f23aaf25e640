"""vcinr: neural compression of scientific arrays, with an error bound that is checked.

``vcinr.compress``, ``vcinr.open``, ``vcinr.train``, ``vcinr.load_model`` are the Python interface; the command
line and the flows are thin layers over the same functions.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "compress": ("vcinr.archive.write", "compress"),
    "open": ("vcinr.archive.read", "open_archive"),
    "verify": ("vcinr.archive.verify", "verify"),
    "info": ("vcinr.archive.read", "info"),
    "decompress": ("vcinr.archive.read", "decompress"),
    "open_dataset": ("vcinr.formats.open", "open_dataset"),
    "open_groups": ("vcinr.formats.open", "open_groups"),
    "load_model": ("vcinr.inr.model", "load_model"),
    "train": ("vcinr.training", "train"),
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    # Lazy, so that a decoder imports numpy, zarr and constriction alone.
    if name in _PUBLIC:
        module, attribute = _PUBLIC[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'vcinr' has no attribute {name!r}")
