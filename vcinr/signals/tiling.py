"""Tilings: a field (an array with named dimensions) cut into signals.

Some dimensions are the coordinates of a signal (``latitude, longitude``), one may hold the features of a point
(``component``), and all others index signals (``time, level``). `split` brings a field to signals, and `unsplit` is its
exact inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.signals import coordinates
from vcinr.signals.domain import Grid

System = Literal["auto", "box", "sphere"]
Horizontal = Literal["latitude", "longitude"]


@dataclass(frozen=True, eq=False)
class Layout:
    """How a field is cut into signals.

    Parameters
    ----------
    dims
        The dimensions over which one signal lies.
    grid
        Their coordinates.
    system
        The coordinate system that fits them.
    feature_dim
        The dimension along which the features of a point lie, such as the components of a wind; None where every
        point has a single value. All other dimensions count signals.
    """

    dims: tuple[str, ...]
    grid: Grid
    system: dict[str, Any]
    feature_dim: str | None = None

    @property
    def value_dims(self) -> tuple[str, ...]:
        """The dimensions of a signal's values, the features' last."""
        return self.dims if self.feature_dim is None else (*self.dims, self.feature_dim)


def layout_of(
    field: xr.DataArray, signal_dims: tuple[str, ...] | None = None, system: System = "auto",
    feature_dim: str | None = None,
) -> Layout:  # fmt: skip
    """Find the layout of a field.

    Parameters
    ----------
    field
        The field.
    signal_dims
        Dimensions of one signal. Default: latitude and longitude where the field has both, else its last two dimensions
        (its only one in 1-D), not counting `feature_dim`.
    system
        "auto" takes the sphere for latitudes and longitudes that go round the globe, the box otherwise. On the sphere
        these two come last, after further `signal_dims` in their order.
    feature_dim
        As in `Layout`.

    Returns
    -------
    Layout
        Of this field.

    Raises
    ------
    InputError
        For a dimension that is missing, empty or named twice; the message names the variable.
    """
    name = field.name or "array"
    if field.ndim == 0 or field.size == 0:
        empty = [str(d) for d, n in field.sizes.items() if n == 0]
        what = f"dimension {empty[0]!r} has length 0" if empty else "it has no dimensions"
        raise InputError(f"variable {name!r}: {what}; there is nothing to cut into signals")
    lat, lon = horizontal_dim(field, "latitude"), horizontal_dim(field, "longitude")
    have = ", ".join(map(str, field.dims))
    if feature_dim is not None and feature_dim not in field.dims:
        raise InputError(f"variable {name!r} has no dimension {feature_dim!r} with features; it has {have}")
    if signal_dims is None:
        if lat is not None and lon is not None:
            signal_dims = tuple(str(d) for d in field.dims if d in (lat, lon))
        else:
            signal_dims = tuple([str(d) for d in field.dims if d != feature_dim][-2:])
    for dim in signal_dims:
        if dim not in field.dims:
            raise InputError(f"variable {name!r} has no dimension {dim!r}; it has {have}")
    if feature_dim in signal_dims or not signal_dims:
        raise InputError(
            f"variable {name!r}: dimension {feature_dim!r} holds features, and a signal needs others as its "
            f"coordinates; it has {have}"
        )
    horizontal = lat is not None and lon is not None and {lat, lon} <= set(signal_dims)
    if system == "sphere" and not horizontal:
        raise InputError(f"variable {name!r}: the sphere needs latitude and longitude as the signal's dimensions")
    if horizontal and (system == "sphere" or (system == "auto" and goes_round(field[lon].values))):
        dims = (*(d for d in signal_dims if d not in (lat, lon)), str(lat), str(lon))
        axes = tuple(_axis(field, d) for d in dims)
        return Layout(dims, Grid(axes), coordinates.sphere(axes[:-2]), feature_dim)
    axes = tuple(_axis(field, d) for d in signal_dims)
    return Layout(signal_dims, Grid(axes), coordinates.box(axes), feature_dim)


def split(field: xr.DataArray, dims: tuple[str, ...]) -> np.ndarray:
    """Values of a field as signals ``[N, *lengths of dims]``, the other dimensions flattened in their own order."""
    return gather(field.values, tuple(field.dims.index(d) for d in dims))


def gather(values: np.ndarray, signal_axes: tuple[int, ...]) -> np.ndarray:
    """An array as signals ``[N, ...]``: its axes `signal_axes` come last in that order, the others are flattened."""
    index = [a for a in range(values.ndim) if a not in signal_axes]
    ordered = values.transpose([*index, *signal_axes])
    count = int(np.prod(ordered.shape[: len(index)], dtype=np.int64))
    return ordered.reshape(count, *ordered.shape[len(index) :])


def unsplit(signals: np.ndarray, shape: tuple[int, ...], signal_axes: tuple[int, ...]) -> np.ndarray:
    """Inverse of `gather` for an array of `shape`."""
    index = [a for a in range(len(shape)) if a not in signal_axes]
    order = [*index, *signal_axes]
    return signals.reshape([shape[a] for a in order]).transpose(np.argsort(order))


def horizontal_dim(field: xr.DataArray, kind: Horizontal) -> str | None:
    """Name of the dimension of latitudes or longitudes, by CF's attributes or its name; None where there is none."""
    units = {"latitude": "degrees_north", "longitude": "degrees_east"}[kind]
    for dim in field.dims:
        if dim not in field.coords or field[dim].dtype.kind not in "fiu":
            continue
        attrs = field[dim].attrs
        named = str(dim).lower() in (kind, kind[:3])
        if attrs.get("standard_name") == kind or attrs.get("units") == units or named:
            return str(dim)
    return None


def goes_round(longitude: np.ndarray) -> bool:
    """Whether evenly spaced longitudes in degrees close round the globe."""
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
