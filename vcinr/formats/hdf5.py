"""HDF5, and netCDF 4, which is HDF5 with named dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import xarray as xr

from vcinr.formats.base import RAW, File, Format, Groups, attributes, parent, plain


def recognises(file: File) -> bool:
    """Whether a file begins with HDF5's signature or, on this machine, has it after a user block."""
    return file.head.startswith(b"\x89HDF\r\n\x1a\n") or (file.path is not None and h5py.is_hdf5(file.path))


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    file = h5py.File(path, "r")
    if not _has_scales(file):
        return _plain_hdf5(file)
    file.close()
    return _netcdf4(str(path), "netcdf4")


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL."""
    file = h5py.File(stream, "r")
    if not _has_scales(file):
        return _plain_hdf5(file)
    file.close()
    stream.seek(0)
    return _netcdf4(stream, "h5netcdf", phony_dims="access")


def _has_scales(file: h5py.File) -> bool:
    """Whether a file has named dimensions, as netCDF4 and HDF5's interface for dimension scales write them."""
    if "_NCProperties" in file.attrs:
        return True
    has_scale = file.visititems(
        lambda _, node: True if isinstance(node, h5py.Dataset) and h5py.h5ds.is_scale(node.id) else None
    )
    return bool(has_scale)


def _plain_hdf5(file: h5py.File) -> Groups:
    """The groups of an HDF5 file without dimension scales."""
    nodes: list[tuple[str, Any]] = []
    file.visititems(lambda path, node: nodes.append((path, node)))
    groups = {}
    for path, group in [("", file), *((p, n) for p, n in nodes if isinstance(n, h5py.Group))]:
        arrays = []
        for name, node in nodes:
            if parent(name) != path or not isinstance(node, h5py.Dataset) or node.shape is None:
                continue
            if h5py.check_string_dtype(node.dtype) is not None:
                arrays.append((name.rpartition("/")[2], np.asarray(node.asstr()[()], dtype=object)))
            elif node.dtype.kind in "biufcS":  # references and compound types are not arrays of values
                arrays.append((name.rpartition("/")[2], node))
        groups[path] = plain(arrays, attributes(group.attrs))
    return groups


def _netcdf4(source: Any, engine: str, **options: Any) -> Groups:
    """The groups of a netCDF4 file."""
    groups = xr.open_groups(source, engine=engine, **RAW, **options)
    return {path.strip("/"): group for path, group in sorted(groups.items())}


FORMAT = Format(
    name="HDF5", recognises=recognises, read=read, read_stream=read_stream, suffixes=(".h5", ".hdf5", ".he5")
)
