"""Zarr 2 and 3: a folder here or on an object store, or a zip file."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import xarray as xr
import zarr

from vcinr.errors import InputError
from vcinr.formats.base import RAW, File, Format, Groups, parent, plain
from vcinr.places import ABSENT, stem

_MEMBERS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def recognises(file: File) -> bool:
    """Whether a file is a zip file: that without a store gets an error that says so."""
    return bool(file.zipped)


def read(path: Path, name: str) -> Groups:
    """Read a local zip file."""
    with zipfile.ZipFile(path) as archive:
        root = _root(archive.namelist(), name)
    return _groups(zarr.storage.ZipStore(path, mode="r"), name, root)


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a zip file behind a URL."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    inside = fsspec.filesystem("zip", fo=stream)
    root = _root(inside.zip.namelist(), name)
    zipped = AsyncFileSystemWrapper(inside, asynchronous=True)
    return _groups(zarr.storage.FsspecStore(zipped, read_only=True, path=root, allowed_exceptions=ABSENT), name)


def read_folder(place: str, name: str) -> Groups:
    """Read a folder, here or behind a URL."""
    return _groups(place, name)


def _groups(store: Any, name: str, group: str = "") -> Groups:
    """The groups of a Zarr store; `group` is the path of its root within the store."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Object at .* is not recognized as a component of a Zarr hierarchy")
        root = zarr.open(store, path=group or None, mode="r")
        if isinstance(root, zarr.Array):
            return {"": plain([(stem(name), root)])}
        members = sorted(root.members(max_depth=None), key=lambda m: m[0])  # folders are listed in any order
        paths = ["", *(where for where, node in members if isinstance(node, zarr.Group))]
        if not any(isinstance(node, zarr.Array) for _, node in members):
            raise InputError(f"{name}: a Zarr store without arrays; was it written whole?")
        consolidated = root.metadata.consolidated_metadata is not None
        groups = {}
        for path in paths:
            if path.partition("/")[0] == "vcinr" and "vcinr_requires" in root.attrs:
                continue  # an archive's models and manifest, which are not part of its data
            arrays = {w.rpartition("/")[2]: a for w, a in members if isinstance(a, zarr.Array) and parent(w) == path}
            if not all(_named(a) for a in arrays.values()):
                attrs = dict(root[path].attrs if path else root.attrs)
                groups[path] = plain(arrays.items(), attrs)
                continue
            group_path = "/".join(p for p in (group, path) if p) or None
            # Saying whether consolidated metadata exist spares a warning, and the second request after a wrong guess.
            use_consolidated = consolidated and not path
            dataset = xr.open_dataset(
                store, group=group_path, engine="zarr", consolidated=use_consolidated, chunks=None, **RAW
            )
            names = [m for m in arrays if m in dataset.data_vars]
            groups[path] = dataset.drop_vars(names).assign({n: dataset[n] for n in names})
    return groups


def _named(array: zarr.Array[Any]) -> bool:
    """Whether all dimensions of an array have names."""
    named: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return array.ndim == 0 or (named is not None and all(named))


def _root(members: Sequence[str], name: str) -> str:
    """The folder of a zip file that holds its Zarr store: the outermost one with Zarr metadata."""
    roots = [m.rpartition("/")[0] for m in members if m.rpartition("/")[2] in _MEMBERS]
    if not roots:
        raise InputError(f"{name}: a zip file with neither a Zarr store nor NumPy arrays in it; unpack it first")
    return min(roots, key=lambda r: (r.count("/") + bool(r), r))


FORMAT = Format(
    name="Zarr",
    recognises=recognises,
    read=read,
    read_stream=read_stream,
    suffixes=(".zip",),
    members=_MEMBERS,
    read_folder=read_folder,
)
