"""NumPy's files: one array (.npy), or several in a zip file (.npz)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import File, Format, Groups, plain
from vcinr.places import stem

_MAGIC = b"\x93NUMPY"


def recognises(file: File) -> bool:
    """Whether a file is a NumPy array or a zip file of such arrays and nothing else."""
    return file.head.startswith(_MAGIC) or (bool(file.zipped) and all(m.endswith(".npy") for m in file.zipped))


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    with path.open("rb") as stream:
        single = stream.read(len(_MAGIC)) == _MAGIC
    return {"": _npy(path, name, "r") if single else _npz(path)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL."""
    single = stream.read(len(_MAGIC)) == _MAGIC
    stream.seek(0)
    return {"": _npy(stream, name) if single else _npz(stream)}


def _npy(source: Any, name: str, mmap_mode: Literal["r"] | None = None) -> xr.Dataset:
    """A .npy file as a data set."""
    try:
        return plain([(stem(name), np.load(source, mmap_mode=mmap_mode, allow_pickle=False))])
    except ValueError as error:
        if "object" not in str(error).lower():
            raise
        raise InputError(f"{name}: it holds Python objects; save an array of numbers") from None


def _npz(source: Any) -> xr.Dataset:
    """A .npz file as a data set."""
    with np.load(source, allow_pickle=False) as arrays:
        return plain([(name, arrays[name]) for name in arrays.files])


FORMAT = Format(name="NumPy", recognises=recognises, read=read, read_stream=read_stream, suffixes=(".npy", ".npz"))
