"""GRIB 1 and 2, by the package cfgrib, message by message. It reads local files: one behind a URL is copied first."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from vcinr.errors import InputError, one_line
from vcinr.formats.base import RAW, Format, Groups, begins


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    _need(name)
    # cfgrib must not write index files beside the user's data, nor skip messages that are damaged or on another grid.
    options = {"indexpath": "", "errors": "raise"}
    try:
        dataset = xr.open_dataset(path, engine="cfgrib", backend_kwargs=options, **RAW)
        # It is not in the file: cfgrib writes the time of reading there, and archives of one file would differ.
        dataset.attrs.pop("history", None)
        return {"": dataset}
    except Exception as error:
        _explain(name, error)


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL: it is copied to a temporary file, which is removed when no array needs it."""
    _need(name)
    handle, copied = tempfile.mkstemp(suffix=".grib", prefix="vcinr-")
    scratch = _Scratch(Path(copied))
    try:
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 22)
    except OSError as error:
        raise InputError(
            f"{name}: cannot be copied to {scratch.path.parent} ({error.strerror or one_line(error)}); free some space "
            "there, or set TMPDIR to a larger folder"
        ) from None
    (dataset,) = read(scratch.path, name).values()
    for variable in dataset.variables.values():
        if not variable._in_memory:
            variable.data = indexing.LazilyIndexedArray(_Copied(variable._data, scratch))
    return {"": dataset}


def _need(name: str) -> None:
    if importlib.util.find_spec("cfgrib") is None:
        raise InputError(f"{name}: reading GRIB needs cfgrib; pip install vcinr[grib]")


class _Scratch:
    """A temporary file that goes when nothing refers to this, or when Python ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._remove = weakref.finalize(self, path.unlink, missing_ok=True)


class _Copied(BackendArray):
    """An array of a temporary file, which it keeps there."""

    def __init__(self, array: Any, scratch: _Scratch) -> None:
        self._array, self._scratch, self.shape, self.dtype = array, scratch, array.shape, array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        return xr.Variable([f"axis{i}" for i in range(len(self.shape))], self._array)[key].values


def _explain(name: str, error: Exception) -> NoReturn:
    """Raise an error that explains why cfgrib cannot read a file."""
    if type(error).__name__ == "DatasetBuildError":
        raise InputError(
            f"{name}: its messages are on several grids or kinds of level ({one_line(error)}); "
            "split it with grib_copy into files of one kind each"
        ) from None
    raise error


FORMAT = Format(
    name="GRIB",
    recognises=begins(b"GRIB"),
    read=read,
    read_stream=read_stream,
    suffixes=(".grib", ".grib2", ".grb", ".grb2"),
    by_suffix=True,  # some files have a header before the first message
)
