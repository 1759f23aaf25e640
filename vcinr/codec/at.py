"""Values between the samples of a grid.

Where a chunk has a prior, the network is evaluated at the very places that are asked for, and only what the residual
coder added at the samples around is interpolated. Without a prior the values themselves are interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vcinr.codec.decode import parse, values_of
from vcinr.codec.prior import on_domain, predicted, read_codes, to_units
from vcinr.codec.promise import Field, valid_values
from vcinr.errors import InputError
from vcinr.signals.domain import Grid, Points
from vcinr.signals.tiling import gather

_AT_ONCE = 1 << 22  # numbers of the samples around that are held at a time


@dataclass(frozen=True, eq=False)
class Places:
    """Places on a grid: Q points, each with the K samples around it.

    Attributes
    ----------
    points
        Their coordinates.
    corners
        Indices ``[Q, K]`` of the samples, on the grid in C order.
    weights
        Weights ``[Q, K]`` of multilinear interpolation, float64; those of a point sum to 1.
    """

    points: Points
    corners: np.ndarray
    weights: np.ndarray


def locate(grid: Grid, columns: Sequence[np.ndarray], names: Sequence[str], periods: Sequence[float | None]) -> Places:
    """Find the samples around places.

    Parameters
    ----------
    grid
        The grid.
    columns
        Coordinates of the places, an array ``[Q]`` for each of the grid's axes.
    names
        The axes' names, for messages.
    periods
        For an axis that closes on itself, such as longitudes round the globe, its period; else None.

    Returns
    -------
    Places
        The places, in their order.

    Raises
    ------
    InputError
        For a place outside the grid. A sample stands for half the distance to the next, so the grid reaches half a
        step beyond its outermost samples, whose values hold there. Also for axes that neither rise nor fall.
    """
    corners, weights = np.zeros((len(columns[0]), 1), np.int64), np.ones((len(columns[0]), 1))
    inside = []
    for axis, column, name, period in zip(grid.columns, columns, names, periods, strict=True):
        wanted = np.asarray(column, np.float64)
        if period is not None:
            wanted = axis.min() + np.mod(wanted - axis.min(), period)
        inside.append(wanted)
        lower, upper, share = _around(axis, wanted, name, period)
        pair = np.stack([lower, upper], 1)
        corners = (corners[:, :, None] * len(axis) + pair[:, None, :]).reshape(len(corners), -1)
        weights = (weights[:, :, None] * np.stack([1 - share, share], 1)[:, None, :]).reshape(len(weights), -1)
    return Places(Points(tuple(inside)), corners, weights)


def _around(
    axis: np.ndarray, wanted: np.ndarray, name: str, period: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the samples before and after each place along one axis, and the weight of the second."""
    steps = np.diff(axis)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise InputError(f"coordinate {name!r} neither rises nor falls: there is nothing between its values")
    order = np.arange(len(axis)) if len(axis) < 2 or steps[0] > 0 else np.arange(len(axis))[::-1]
    rising, last = axis[order], len(axis) - 1
    reach = (0.0, 0.0) if last == 0 else (0.5 * (rising[1] - rising[0]), 0.5 * (rising[-1] - rising[-2]))
    outside = (
        ~np.isfinite(wanted) if period else ~((rising[0] - reach[0] <= wanted) & (wanted <= rising[-1] + reach[1]))
    )
    if outside.any():
        raise InputError(f"{name} = {wanted[outside][0]:g} is outside the grid, {rising[0]:g} to {rising[-1]:g}")
    below = np.clip(np.searchsorted(rising, wanted, side="right") - 1, 0, max(0, last - 1))
    above = np.minimum(below + 1, last)
    width = rising[above] - rising[below]
    if period is not None:  # between the last and the first
        wraps = wanted >= rising[-1]
        below, above = np.where(wraps, last, below), np.where(wraps, 0, above)
        width = np.where(wraps, period - (rising[-1] - rising[0]), width)
    share = np.clip((wanted - rising[below]) / np.where(width > 0, width, 1.0), 0.0, 1.0)
    return order[below], order[above], share


def interpolate(
    samples: np.ndarray, valid: np.ndarray | None, places: Places
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Interpolate linearly between samples.

    Parameters
    ----------
    samples
        ``[n, P]``, float64.
    valid
        Which samples have a value, of the same shape; None where all have.
    places
        Where values are wanted.

    Returns
    -------
    values, spread : numpy.ndarray
        ``[n, Q]`` each: the values, NaN where one of the samples around has none, and how far apart the samples around
        are, which bounds what interpolation between them may be off for data that lie between their neighbours.
    """
    n, used = len(samples), places.weights > 0
    values, spread = np.empty((n, len(used))), np.empty((n, len(used)))
    size = max(1, _AT_ONCE // max(1, places.corners.size))
    for start in range(0, n, size):
        part = slice(start, start + size)
        around = samples[part][:, places.corners]
        values[part] = (around * places.weights).sum(-1)
        high, low = np.where(used, around, -np.inf).max(-1), np.where(used, around, np.inf).min(-1)
        spread[part] = high - low
        if valid is not None:
            lost = (~valid[part][:, places.corners] & used).any(-1)
            values[part][lost] = spread[part][lost] = np.nan
    return values, spread


def decode_at(
    data: bytes, chunk_shape: tuple[int, ...], dtype: np.dtype, field: Field, places: Places
) -> tuple[np.ndarray, np.ndarray]:
    """Decode a chunk at places between its samples.

    Parameters
    ----------
    data, chunk_shape, dtype, field
        As in :func:`vcinr.codec.decode.decode`.
    places
        Where values are wanted, on the field's grid.

    Returns
    -------
    values, spread : numpy.ndarray
        ``[*index lengths, features, Q]`` each, float64, as `interpolate`, but for what the network gives: the spread is
        that of the residual alone.

    Raises
    ------
    CorruptError, ModelError
        As in :func:`vcinr.codec.decode.decode`.
    """
    native = np.dtype(dtype).newbyteorder("=")
    chunk, shape = parse(data, tuple(chunk_shape), native, field)
    signals = gather(values_of(chunk, shape, native, field), field.value_axes)
    valid = valid_values(signals, field.fill)
    samples = np.where(valid, signals, 0).astype(np.float64)
    count, features, network = len(signals), field.features_of(shape), None
    if chunk.sections.prior is not None:
        model, z, rate = read_codes(field, shape, chunk.sections.prior, chunk.stream)
        samples -= to_units(field, predicted(model, field, shape, z, rate))
        here = on_domain(model, places.points).output(field.variable, z, rate)
        network = to_units(field, here.swapaxes(1, 2)).reshape(count * features, -1)
    rows = (count * features, -1)
    values, spread = interpolate(samples.reshape(rows), None if valid.all() else valid.reshape(rows), places)
    if network is not None:
        values += network
    if field.limits is not None:
        values = np.clip(values, *field.limits)
    full = (*field.index_of(shape), features, -1)
    return values.reshape(full), spread.reshape(full)
