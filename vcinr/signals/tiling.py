"""Tilings: a field (an array with named dimensions) cut into signals.

Some dimensions are the coordinates of a signal (``latitude, longitude``), all others index signals
(``time, level``). `split` brings a field to ``[N, *grid]``; `unsplit` is its exact inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.signals import coordinates

System = Literal["auto", "box", "sphere"]


@dataclass(frozen=True)
class Layout:
    """How one field is laid out: `dims` of a signal, their `axes` (float64, 1-D) and the coordinate `system`."""

    dims: tuple[str, ...]
    axes: tuple[np.ndarray, ...]
    system: dict[str, Any]

    @property
    def grid(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(len(a) for a in self.axes)

    def inputs(self, system: dict[str, Any] | None = None) -> np.ndarray:
        """Network inputs ``[P, d_in]`` float32, of a model's `system` where given."""
        return coordinates.inputs(system or self.system, self.axes)


def layout_of(field: xr.DataArray, signal_dims: tuple[str, ...] | None = None, system: System = "auto") -> Layout:
    """The layout of `field`.

    Without `signal_dims` these are latitude and longitude where the field has both, else its last two
    dimensions (its only one in 1-D). ``auto`` takes the sphere for latitude and longitude that go round the
    globe, the box otherwise. On the sphere these two come last, after further `signal_dims` in their order. Raises
    InputError naming the variable for a dimension that is missing or empty.
    """
    name = field.name or "array"
    if field.ndim == 0 or field.size == 0:
        empty = [str(d) for d, n in field.sizes.items() if n == 0]
        what = f"dimension {empty[0]!r} has length 0" if empty else "it has no dimensions"
        raise InputError(f"variable {name!r}: {what}; there is nothing to cut into signals")
    lat, lon = _find(field, "latitude"), _find(field, "longitude")
    if signal_dims is None:
        if lat is not None and lon is not None:
            signal_dims = tuple(str(d) for d in field.dims if d in (lat, lon))
        else:
            signal_dims = tuple(str(d) for d in field.dims[-2:])
    for dim in signal_dims:
        if dim not in field.dims:
            raise InputError(f"variable {name!r} has no dimension {dim!r}; it has {', '.join(map(str, field.dims))}")
    horizontal = lat is not None and lon is not None and {lat, lon} <= set(signal_dims)
    if system == "sphere" and not horizontal:
        raise InputError(f"variable {name!r}: the sphere needs latitude and longitude as the signal's dimensions")
    if horizontal and (system == "sphere" or (system == "auto" and _goes_round(field[lon].values))):
        dims = (*(d for d in signal_dims if d not in (lat, lon)), str(lat), str(lon))
        axes = tuple(_axis(field, d) for d in dims)
        return Layout(dims, axes, coordinates.sphere(axes[:-2]))
    axes = tuple(_axis(field, d) for d in signal_dims)
    return Layout(signal_dims, axes, coordinates.box(axes))


def split(field: xr.DataArray, dims: tuple[str, ...]) -> np.ndarray:
    """Values of `field` as signals ``[N, *grid]``, the index dimensions flattened in their own order."""
    return gather(field.values, tuple(field.dims.index(d) for d in dims))


def gather(values: np.ndarray, signal_axes: tuple[int, ...]) -> np.ndarray:
    """An array as signals ``[N, *grid]``, its axes `signal_axes` being the grid in the grid's order."""
    index = [a for a in range(values.ndim) if a not in signal_axes]
    ordered = values.transpose([*index, *signal_axes])
    count = int(np.prod(ordered.shape[: len(index)], dtype=np.int64))
    return ordered.reshape(count, *ordered.shape[len(index) :])


def unsplit(signals: np.ndarray, shape: tuple[int, ...], signal_axes: tuple[int, ...]) -> np.ndarray:
    """Inverse of `gather` for an array of `shape` whose axes `signal_axes` are the grid, in the grid's order."""
    index = [a for a in range(len(shape)) if a not in signal_axes]
    order = [*index, *signal_axes]
    return signals.reshape([shape[a] for a in order]).transpose(np.argsort(order))


def _find(field: xr.DataArray, kind: Literal["latitude", "longitude"]) -> str | None:
    units = {"latitude": "degrees_north", "longitude": "degrees_east"}[kind]
    for dim in field.dims:
        if dim not in field.coords or field[dim].dtype.kind not in "fiu":
            continue
        attrs = field[dim].attrs
        named = str(dim).lower() in (kind, kind[:3])
        if attrs.get("standard_name") == kind or attrs.get("units") == units or named:
            return str(dim)
    return None


def _goes_round(longitude: np.ndarray) -> bool:
    if len(longitude) < 3:
        return False
    spacing = np.median(np.abs(np.diff(longitude.astype(np.float64))))
    return bool(len(longitude) * spacing >= 359.0)


def _axis(field: xr.DataArray, dim: str) -> np.ndarray:
    """Coordinate values of `dim`, or its indices where it has none that are finite numbers."""
    if dim in field.coords and field[dim].ndim == 1 and field[dim].dtype.kind in "fiu":
        values = field[dim].values.astype(np.float64)
        if np.isfinite(values).all():
            return values
    return np.arange(field.sizes[dim], dtype=np.float64)
