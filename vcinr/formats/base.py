"""What file formats share: the contract they keep, the file they look at, and arrays without names of dimensions."""

from __future__ import annotations

import base64
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
from fsspec.caching import BlockCache
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile
from xarray.backends import BackendArray
from xarray.core import indexing

from vcinr.errors import InputError, one_line
from vcinr.places import is_url

Groups = dict[str, xr.Dataset]
"""Data sets by group path, which has no slashes at its ends; the root is the empty path and comes first."""

ITEM, NAME, ROW_SIZE = "item", "name", "row_size"
"""The dimension along which signals of files are joined, and the variables of their names and, where they lie end to
end, lengths (:mod:`vcinr.kinds.files`)."""
KIND_OF_SIGNAL = "kind_of_signal"
"""Attribute of the root group that names the kind of signal of which each file was one (:mod:`vcinr.kinds.files`)."""

VOXELS = "voxels_along_each_axis"
"""Attribute of the root group that says what meshes became when they were made shapes (:mod:`vcinr.kinds.shape`)."""

_BLOCK, _BLOCKS = 4 << 20, 8  # bytes that a request asks for, and how many such blocks of a file are kept

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
    written : tuple of str
        Those of `suffixes` that `write` makes. They are recommended where another is asked for.
    write : callable, optional
        From a data set like those that `read` returns as the root group, to a local file. The suffix of the path
        chooses the variant (PNG, WebP, ...). What is written reads as the same data set. It raises InputError, naming
        the file and the remedy, where the format cannot hold the data set.
    """

    name: str
    recognises: Callable[[File], bool]
    read: Callable[[Path, str], Groups]
    read_stream: Callable[[BinaryIO, str], Groups] | None = None
    suffixes: tuple[str, ...] = ()
    by_suffix: bool = False
    members: tuple[str, ...] = ()
    read_folder: Callable[[str, str], Groups] | None = None
    written: tuple[str, ...] = ()
    write: Callable[[xr.Dataset, Path], None] | None = None


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
        """The content of a file behind a URL; it stays open, because values are read through it later.

        Of what was fetched a few blocks are kept. File systems by themselves may keep all that was read, or read far
        ahead.
        """
        stream = self.fs.open(self.inner, "rb")
        if isinstance(stream, AbstractBufferedFile):
            stream.cache = BlockCache(_BLOCK, stream._fetch_range, stream.size, maxblocks=_BLOCKS)
        return stream

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


def only(dataset: xr.Dataset, path: Path, needed: str, *others: str) -> None:
    """Check that a data set has a variable, and none but that and some others, before it is written.

    Raises
    ------
    InputError
        Where the variable is missing, or something would be left out of the file.
    """
    have = [str(name) for name in dataset.variables]
    if needed not in have:
        raise InputError(
            f"{path}: {path.suffix} files hold the variable {needed!r}, and the data set has "
            f"{', '.join(have) or 'no variables'}; rename the variable, or choose another format"
        )
    if extra := [name for name in have if name not in (needed, *others)]:
        raise InputError(
            f"{path}: {path.suffix} files have no place for the variables {', '.join(extra)}; "
            "leave them out with drop_vars, or choose another format"
        )


def values_of(dataset: xr.Dataset, path: Path, name: str, *dims: tuple[str, ...], packed: bool = False) -> np.ndarray:
    """Values of a variable that is to be written.

    Parameters
    ----------
    dataset
        The data set.
    path
        The file, for messages.
    name
        The variable.
    *dims
        The dimensions that it may have.
    packed
        Whether the format has a place for scale_factor and add_offset.

    Returns
    -------
    numpy.ndarray
        The values in the machine's byte order, as a contiguous array.

    Raises
    ------
    InputError
        For other dimensions, for packed values that would lose their units, and for values that are not numbers.
    """
    variable = dataset.variables[name]
    if not packed and {"scale_factor", "add_offset"} & set(variable.attrs):
        raise InputError(
            f"{path}: {name} is packed, and {path.suffix} files have no place for its scale_factor and add_offset; "
            "unpack it with xarray.decode_cf, or choose another format"
        )
    if variable.dims not in dims:
        allowed = " or ".join(f"({', '.join(d)})" for d in dims)
        raise InputError(
            f"{path}: {name} has the dimensions ({', '.join(map(str, variable.dims))}) and needs {allowed}; "
            "rename or transpose them"
        )
    if variable.dtype.kind not in "iuf":
        raise InputError(f"{path}: {name} holds {variable.dtype}, and no numbers; leave it out with drop_vars")
    values = np.ascontiguousarray(variable.values)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def check_table(dataset: xr.Dataset, path: Path) -> None:
    """Check that all variables of a data set are columns ``(row,)`` that can be written as they are."""
    if not dataset.variables:
        raise InputError(f"{path}: the data set has no variables; choose some")
    for name, variable in dataset.variables.items():
        if variable.dims != ("row",):
            raise InputError(
                f"{path}: {name} has the dimensions ({', '.join(map(str, variable.dims))}), and tables have one, row; "
                "rename it, or leave the variable out with drop_vars"
            )
        if {"scale_factor", "add_offset"} & set(variable.attrs):
            raise InputError(f"{path}: {name} is packed, which tables do not say; unpack it with xarray.decode_cf")


def flat_list(value: Any) -> list[Any]:
    """An attribute that is a list, which some formats turn into an array or, where it has one item, into a number."""
    return list(np.asarray(value).ravel().tolist())


def encoded(data: bytes) -> str:
    """Bytes as text (base 64), to be kept in an attribute."""
    return base64.b64encode(data).decode()


def decoded(text: str, path: Path, what: str) -> bytes:
    """Bytes of an attribute that `encoded` made; raises InputError for other text."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise InputError(f"{path}: the attribute {what!r} is damaged; remove it to write the values alone") from None
