"""Gridded data: variables of a file of any known format, cut into signals along their dimensions."""

from __future__ import annotations

import xarray as xr

from vcinr.config import Selection, Source
from vcinr.formats.open import numeric_fields, open_dataset
from vcinr.kinds.base import Kind, Options, cut
from vcinr.progress import Watch, silent


def open_selection(path: str, selection: Selection, options: Options, watch: Watch = silent) -> xr.Dataset:
    """Open a file, cut by its `select`."""
    return cut(open_dataset(path), selection.select, selection.path)


def variables(source: Source, dataset: xr.Dataset) -> tuple[str, ...]:
    """Name the variables that the source does, else every numeric field."""
    return source.variables or tuple(numeric_fields(dataset))


KIND = Kind(open=open_selection, variables=variables)
