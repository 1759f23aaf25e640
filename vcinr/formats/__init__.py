"""File formats that arrays and signals come in, a file each, read as xarray data sets with their values untouched.

Each format is a file of this folder that keeps the contract :class:`vcinr.formats.base.Format`; `FORMATS` lists them.
:mod:`vcinr.formats.open` opens a file of any of them, by a local path or an fsspec URL, and :mod:`vcinr.formats.write`
writes one. A package that a format needs is imported when a file of it is read or written.
"""

from __future__ import annotations

from vcinr import plugins
from vcinr.formats import (
    binvox,
    csv_,
    grib,
    hdf5,
    image,
    las,
    mesh,
    netcdf,
    nifti,
    nrrd_,
    numpy_,
    obj,
    parquet,
    scene,
    sound,
    tiff,
    video,
    zarr_,
)
from vcinr.formats.base import Format

FORMATS: tuple[Format, ...] = (
    netcdf.FORMAT,
    numpy_.FORMAT,
    zarr_.FORMAT,
    grib.FORMAT,
    image.FORMAT,
    tiff.FORMAT,
    sound.FORMAT,
    video.FORMAT,
    nifti.FORMAT,
    nrrd_.FORMAT,
    binvox.FORMAT,
    mesh.FORMAT,
    parquet.FORMAT,
    las.FORMAT,
    hdf5.FORMAT,
    obj.FORMAT,
    csv_.FORMAT,
    scene.FORMAT,
)
"""In the order in which they are asked for a file: NumPy's zip files before Zarr, which takes all others, and HDF5,
whose signature may lie within a file of another format, after those that begin with their own."""


def known() -> tuple[Format, ...]:
    """All formats: those of this folder, then those that packages add by entry points (:mod:`vcinr.plugins`)."""
    return (*FORMATS, *plugins.every("formats", {}).values())


__all__ = ["FORMATS", "Format", "known"]
