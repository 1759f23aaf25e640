"""File formats that scientific arrays come in, a file each, read as xarray data sets with their values untouched.

Each format is a file of this folder that keeps the contract :class:`vcinr.formats.base.Format`; `FORMATS` lists them.
:mod:`vcinr.formats.open` opens a file of any of them, by a local path or an fsspec URL.
"""

from __future__ import annotations

from vcinr.formats import grib, hdf5, netcdf, numpy_, obj, zarr_
from vcinr.formats.base import Format

FORMATS: tuple[Format, ...] = (
    netcdf.FORMAT,
    numpy_.FORMAT,
    zarr_.FORMAT,
    grib.FORMAT,
    hdf5.FORMAT,
    obj.FORMAT,
)
"""In the order in which they are asked for a file: NumPy's zip files before Zarr, which takes all others, and HDF5,
whose signature may lie within a file of another format, after those that begin with their own."""

__all__ = ["FORMATS", "Format"]
