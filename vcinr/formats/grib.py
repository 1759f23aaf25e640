"""GRIB 1 and 2, by the package cfgrib, which reads local files only."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NoReturn

import xarray as xr

from vcinr.errors import InputError, one_line
from vcinr.formats.base import RAW, Format, Groups, begins


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    if importlib.util.find_spec("cfgrib") is None:
        raise InputError(f"{name}: reading GRIB needs cfgrib; pip install vcinr[grib]")
    # cfgrib must not write index files beside the user's data, nor skip messages that are damaged or on another grid.
    options = {"indexpath": "", "errors": "raise"}
    try:
        return {"": xr.open_dataset(path, engine="cfgrib", backend_kwargs=options, **RAW)}
    except Exception as error:
        _explain(name, error)


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
    suffixes=(".grib", ".grib2", ".grb", ".grb2"),
    by_suffix=True,  # some files have a header before the first message
)
