"""What file formats share: the contract they keep, the file they look at, and arrays without names of dimensions."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import h5py
import numpy as np
import xarray as xr
from fsspec.implementations.local import LocalFileSystem
from xarray.backends import BackendArray
from xarray.core import indexing

from vcinr.errors import InputError, one_line
from vcinr.places import is_url

Groups = dict[str, xr.Dataset]
"""Data sets by group path, which has no slashes at its ends; the root is the empty path and comes first."""

RAW: dict[str, Any] = {
    "mask_and_scale": False,
    "decode_times": False,
    "decode_timedelta": False,
    "decode_coords": True,
}
"""Options by which xarray leaves values, times and attributes as they are in the file.

Variables that CF's attribute `coordinates` names still become coordinates, since xarray writes that attribute back by
itself.
"""


@dataclass(frozen=True)
class Format:
    """The contract of a file format, which its file in this folder states as `FORMAT`.

    Every function that reads gets, after the place, the name by which the user called the file. It may raise any
    exception for a damaged file; `vcinr.formats.open` turns those that are no InputError into one that names the file.
    Arrays may be read when their values are used.

    Attributes
    ----------
    name : str
        As in messages.
    recognises : callable
        Whether a file is of this format, by its first bytes or the members of a zip file.
    read : callable
        From the path of a local file to its groups.
    read_stream : callable, optional
        From the open, seekable stream of a file behind a URL to its groups. It must not close the stream if it reads
        values later. Without it, such a file is refused with the advice to copy it.
    suffixes : tuple of str
        Suffixes of the format's files, in lower case and with the dot. They explain what is wrong with a file that no
        format recognises, and spare a URL that ends so the question whether it is a folder.
    by_suffix : bool
        Whether a file that no format recognises is of this format where it has such a suffix: for formats whose files
        may begin with anything.
    members : tuple of str
        For a format that is a folder: names of which it holds at least one.
    read_folder : callable, optional
        From the local path or the URL of such a folder to its groups.
    """

    name: str
    recognises: Callable[[File], bool]
    read: Callable[[Path, str], Groups]
    read_stream: Callable[[BinaryIO, str], Groups] | None = None
    suffixes: tuple[str, ...] = ()
    by_suffix: bool = False
    members: tuple[str, ...] = ()
    read_folder: Callable[[str, str], Groups] | None = None


@dataclass(frozen=True, eq=False)
class File:
    """A file or folder that is to be opened; what formats ask of it is fetched once.

    Attributes
    ----------
    name : str
        What the user called it.
    path : Path, optional
        Where it lies on this machine; None behind a URL.
    fs, inner : object, str
        Behind a URL: fsspec's file system, and the path in it.
    """

    name: str
    path: Path | None
    fs: Any = None
    inner: str = ""

    @cached_property
    def stream(self) -> BinaryIO:
        """The content of a file behind a URL; it stays open, because values are read through it later."""
        return self.fs.open(self.inner, "rb")

    @cached_property
    def head(self) -> bytes:
        """The first 512 bytes."""
        if self.path is not None:
            with self.path.open("rb") as stream:
                return stream.read(512)
        head = self.stream.read(512)
        self.stream.seek(0)
        return head

    @cached_property
    def zipped(self) -> tuple[str, ...]:
        """Names of the members of a zip file; of any other file, none."""
        if not self.head.startswith(b"PK\x03\x04"):
            return ()
        with zipfile.ZipFile(self.stream if self.path is None else self.path) as archive:
            names = archive.namelist()
        if self.path is None:
            self.stream.seek(0)
        return tuple(names)

    def is_folder(self) -> bool:
        """Whether this is a folder."""
        return self.fs.isdir(self.inner) if self.path is None else self.path.is_dir()

    def holds(self, member: str) -> bool:
        """Whether this is a folder with such a member."""
        if self.path is None:
            return self.fs.exists(f"{self.inner.rstrip('/')}/{member}")
        return (self.path / member).exists()


def locate(name: str) -> File:
    """Say where a file or folder lies; raises InputError for a URL that fsspec does not read."""
    if not is_url(name):
        return File(name, Path(name).expanduser())
    try:
        fs, inner = fsspec.core.url_to_fs(name)
    except ValueError as error:
        raise InputError(f"{name}: {one_line(error)}; give a local path or a URL that fsspec reads") from None
    return File(name, Path(inner)) if isinstance(fs, LocalFileSystem) else File(name, None, fs, inner)


def begins(*magic: bytes) -> Callable[[File], bool]:
    """Recognise a file by its very first bytes, which are one of these."""
    return lambda file: file.head.startswith(magic)


class Lazy(BackendArray):
    """An h5py or Zarr array that xarray reads when its values are asked for."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.dtype = array, array.shape, np.dtype(array.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        read = self.array.__getitem__
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, read)


def plain(arrays: Iterable[tuple[str, Any]], attrs: dict[str, Any] | None = None) -> xr.Dataset:
    """A data set of arrays whose dimensions have no names."""
    variables = {}
    for name, array in arrays:
        dims = [f"{name}_dim{i}" for i in range(array.ndim)]
        data = array if isinstance(array, np.ndarray) else indexing.LazilyIndexedArray(Lazy(array))
        variables[name] = xr.Variable(dims, data, attributes(getattr(array, "attrs", {})))
    return xr.Dataset(variables, attrs=attrs)


def attributes(attrs: Any) -> dict[str, Any]:
    """Attributes without HDF5's internal references."""
    result = {}
    for key, value in dict(attrs).items():
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if not isinstance(value, h5py.Empty | h5py.Reference | h5py.RegionReference):
            result[key] = value
    return result


def parent(path: str) -> str:
    """The path of the group that a member of a group is in."""
    return path.rpartition("/")[0]
