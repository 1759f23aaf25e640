"""Shapes: solid voxels, a file each. Meshes become voxels when read, and voxels come back as binvox or as meshes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from vcinr.config import Positive, Selection
from vcinr.formats.base import flat_list
from vcinr.formats.open import open_dataset
from vcinr.kinds.base import Kind, cut
from vcinr.kinds.per_file import TileOptions, file_kind
from vcinr.kinds.voxels import voxelise
from vcinr.progress import Watch, silent

RESOLUTION = 64
"""Voxels along each axis that a mesh becomes, where nobody says."""


class ShapeOptions(TileOptions):
    """Voxels along each axis that meshes become, beside what `TileOptions` says."""

    tile: Positive = 32
    resolution: Positive = RESOLUTION


def open_selection(path: str, selection: Selection, options: ShapeOptions, watch: Watch = silent) -> xr.Dataset:
    """Read a file as voxels."""
    return cut(as_voxels(open_dataset(path), options.resolution), selection.select, selection.path)


def as_voxels(dataset: xr.Dataset, resolution: int) -> xr.Dataset:
    """Make a shape of what formats read.

    Parameters
    ----------
    dataset : xarray.Dataset
        Voxels ``occupancy(z, y, x)`` with the attributes `translate` and `scale` (:mod:`vcinr.formats.binvox`), or a
        mesh ``triangles(triangle, corner, axis)``. Any other is returned as it is.
    resolution : int
        Voxels along each axis that a mesh becomes.

    Returns
    -------
    xarray.Dataset
        ``occupancy(z, y, x)`` without attributes, ``translate(axis)`` and ``scale``, float64.
    """
    if "triangles" in dataset:
        triangles = dataset["triangles"].values
        low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
        scale = float((high - low).max())
        return _shape(voxelise(triangles, resolution), (low + high - scale) / 2, scale)
    if "occupancy" not in dataset:
        return dataset
    attrs = dataset["occupancy"].attrs
    translate, scale = flat_list(attrs.get("translate", [0.0, 0.0, 0.0])), flat_list(attrs.get("scale", 1.0))[0]
    return _shape(dataset["occupancy"].values, np.array(translate, np.float64), float(scale))


def _shape(occupancy: np.ndarray, translate: np.ndarray, scale: float) -> xr.Dataset:
    return xr.Dataset(
        {"occupancy": (("z", "y", "x"), occupancy), "translate": ("axis", translate), "scale": ((), np.float64(scale))}
    )


def as_file(dataset: xr.Dataset) -> xr.Dataset:
    """Inverse of `as_voxels`, for voxels: what formats write."""
    attrs: dict[str, Any] = {"translate": dataset["translate"].values.tolist(), "scale": float(dataset["scale"])}
    occupancy = dataset["occupancy"]
    return xr.Dataset({"occupancy": (occupancy.dims, occupancy.values, attrs)})


KIND: Kind = replace(
    file_kind("occupancy", dims=("z", "y", "x"), endings=(".binvox",), tile=32),
    open=open_selection, options=ShapeOptions, takes=("triangles",), own=("translate", "scale"), adapted=as_voxels,
    restored=as_file, method="basis",
)  # fmt: skip
