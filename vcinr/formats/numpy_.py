"""NumPy's files: one array (.npy), or several in a zip file (.npz)."""

from __future__ import annotations

import zipfile
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


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write the values of one variable (.npy) or of all (.npz); these files hold no dimensions and attributes."""
    arrays = {str(name): np.asarray(variable.values) for name, variable in dataset.variables.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise InputError(f"{path}: {name} is text or other objects; leave it out with drop_vars")
    if path.suffix == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():  # np.savez takes names as keywords, and has some of its own
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        return
    if len(arrays) != 1:
        raise InputError(
            f"{path}: a .npy file holds one array, and the data set has {', '.join(arrays) or 'none'}; "
            "choose one, or write .npz"
        )
    (array,) = arrays.values()
    np.save(path, array, allow_pickle=False)


FORMAT = Format(
    name="NumPy",
    recognises=recognises,
    read=read,
    read_stream=read_stream,
    suffixes=(".npy", ".npz"),
    written=(".npy", ".npz"),
    write=write,
)
