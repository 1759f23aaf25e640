"""vcinr: neural compression of scientific arrays, with an error bound that is checked.

``vcinr.compress``, ``vcinr.open``, ``vcinr.train`` and ``vcinr.load_model`` are the Python interface, with the errors
that they raise. The command line and the flows are thin layers over the same functions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcinr.archive.at import at, regrid
    from vcinr.archive.read import info
    from vcinr.archive.read import open_archive as open
    from vcinr.codec.promise import Bound
    from vcinr.errors import BoundError, ConfigError, CorruptError, InputError, ModelError, VcinrError
    from vcinr.files import compress, decompress, render, verify
    from vcinr.formats.open import open_dataset, open_groups
    from vcinr.formats.write import write_dataset
    from vcinr.inr.model import Model
    from vcinr.models import load_model
    from vcinr.patches.model import PatchModel
    from vcinr.training import train

__version__ = "0.1.0"

_PUBLIC = {
    "at": "vcinr.archive.at",
    "compress": "vcinr.files",
    "decompress": "vcinr.files",
    "info": "vcinr.archive.read",
    "load_model": "vcinr.models",
    "open": "vcinr.archive.read",
    "open_dataset": "vcinr.formats.open",
    "open_groups": "vcinr.formats.open",
    "regrid": "vcinr.archive.at",
    "render": "vcinr.files",
    "train": "vcinr.training",
    "verify": "vcinr.files",
    "write_dataset": "vcinr.formats.write",
    "Bound": "vcinr.codec.promise",
    "Model": "vcinr.inr.model",
    "PatchModel": "vcinr.patches.model",
    "BoundError": "vcinr.errors",
    "ConfigError": "vcinr.errors",
    "CorruptError": "vcinr.errors",
    "InputError": "vcinr.errors",
    "ModelError": "vcinr.errors",
    "VcinrError": "vcinr.errors",
}
_ELSEWHERE = {"open": "open_archive"}  # names that differ in their modules

__all__ = [
    "Bound", "BoundError", "ConfigError", "CorruptError", "InputError", "Model", "ModelError", "PatchModel",
    "VcinrError", "__version__", "at", "compress", "decompress", "info", "load_model", "open", "open_dataset",
    "open_groups", "regrid", "render", "train", "verify", "write_dataset",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Lazy, so that a decoder imports numpy, zarr and constriction alone.
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), _ELSEWHERE.get(name, name))
    raise AttributeError(f"module 'vcinr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
