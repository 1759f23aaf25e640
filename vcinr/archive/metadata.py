"""What of a data set's metadata is the data's own, and what belongs to the container it came in."""

from __future__ import annotations

import xarray as xr

OWN = ("coordinates", "grid_mapping", "bounds")
"""Attributes that xarray moves to a variable's encoding when it opens a file undecoded."""


def without_storage(dataset: xr.Dataset) -> xr.Dataset:
    """A copy without storage encodings (chunks, filters), and which xarray will write without adding to it."""
    copy = dataset.copy()
    copy.encoding = {}
    for variable in copy.variables.values():
        variable.encoding = {k: v for k, v in variable.encoding.items() if k in OWN}
        if variable.dtype.kind == "f" and "_FillValue" not in variable.attrs:
            variable.encoding["_FillValue"] = None  # else xarray adds NaN, which the data did not have
    return copy
