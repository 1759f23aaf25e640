"""Tilings: how a field, which is an array with named dimensions, is cut into signals.

Some dimensions are the coordinates of a signal (``latitude, longitude``), one may hold the features of a point
(``component``), and all others are index dimensions, which count signals (``time, level``). `split` cuts a field into
signals, and `unsplit` is its exact inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.signals import coordinates
from vcinr.signals.domain import Domain, Grid

System = Literal["auto", "box", "sphere"]
Horizontal = Literal["latitude", "longitude"]


@dataclass(frozen=True, eq=False)
class Layout:
    """How a field is cut into signals.

    Parameters
    ----------
    dims : tuple of str
        The dimensions over which one signal lies.
    grid : Domain
        Their coordinates: a grid, or the nodes of a graph, which have one dimension.
    system : dict
        The coordinate system for them.
    feature_dim : str, optional
        The dimension along which the features of a point lie, such as the components of a wind; None where each point
        has a single value. All other dimensions count signals.
    """

    dims: tuple[str, ...]
    grid: Domain
    system: dict[str, Any]
    feature_dim: str | None = None

    @property
    def value_dims(self) -> tuple[str, ...]:
        """The dimensions of a signal's values, with that of the features last."""
        return self.dims if self.feature_dim is None else (*self.dims, self.feature_dim)


def layout_of(
    field: xr.DataArray, signal_dims: tuple[str, ...] | None = None, system: System = "auto",
    feature_dim: str | None = None,
) -> Layout:  # fmt: skip
    """Find how to cut a field into signals.

    Parameters
    ----------
    field : xarray.DataArray
        The field.
    signal_dims : tuple of str, optional
        Dimensions of one signal. The default is latitude and longitude where the field has both, and else its last two
        dimensions (or its only one), not counting `feature_dim`.
    system : {"auto", "box", "sphere"}
        The kind of coordinate system. "auto" takes the sphere for latitudes and longitudes that go round the globe, and
        the box otherwise. On the sphere these two dimensions come last, after the other `signal_dims`.
    feature_dim : str, optional
        As in `Layout`.

    Raises
    ------
    InputError
        For an empty field, a dimension that is missing or has two roles, and a sphere without latitude and longitude.
        The message names the variable.
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
    if len(set(signal_dims)) != len(signal_dims):
        raise InputError(f"variable {name!r}: a dimension is named twice in {', '.join(signal_dims)}")
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
    """Cut a field into signals ``[N, *lengths of dims]``; the other dimensions are flattened in their own order."""
    return gather(field.values, tuple(field.dims.index(d) for d in dims))


def gather(values: np.ndarray, signal_axes: tuple[int, ...]) -> np.ndarray:
    """Arrange an array as signals ``[N, ...]``: `signal_axes` come last, in this order; the others are flattened."""
    index = [a for a in range(values.ndim) if a not in signal_axes]
    ordered = values.transpose([*index, *signal_axes])
    count = int(np.prod(ordered.shape[: len(index)], dtype=np.int64))
    return ordered.reshape(count, *ordered.shape[len(index) :])


def unsplit(signals: np.ndarray, shape: tuple[int, ...], signal_axes: tuple[int, ...]) -> np.ndarray:
    """Inverse of `gather`, for an array that had the shape `shape`."""
    index = [a for a in range(len(shape)) if a not in signal_axes]
    order = [*index, *signal_axes]
    return signals.reshape([shape[a] for a in order]).transpose(np.argsort(order))


def horizontal_dim(field: xr.DataArray, kind: Horizontal) -> str | None:
    """The dimension that holds latitudes or longitudes, by its standard name, units or own name; None without one."""
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
    """Whether longitudes in degrees go round the globe, but for the last step and 1 degree of inaccuracy."""
    if len(longitude) < 3:
        return False
    spacing = np.median(np.abs(np.diff(longitude.astype(np.float64))))
    return bool(len(longitude) * spacing >= 359.0)


def _axis(field: xr.DataArray, dim: str) -> np.ndarray:
    """Coordinates of a dimension as float64; its indices where it has no coordinates that are finite numbers."""
    if dim in field.coords and field[dim].ndim == 1 and field[dim].dtype.kind in "fiu":
        values = field[dim].values.astype(np.float64)
        if np.isfinite(values).all():
            return values
    return np.arange(field.sizes[dim], dtype=np.float64)
