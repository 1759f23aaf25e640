"""Values of an archive between its samples: at single places, or on another grid.

Where a variable has a model, its network is evaluated at the places, and only the rest is interpolated. Only the chunks
that hold the samples around are read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.core.sync import sync

from vcinr.archive import metadata, models
from vcinr.archive.contents import Archive, chunks_of, codec_of, counts_of
from vcinr.archive.manifest import fetch
from vcinr.archive.metadata import PREFIX
from vcinr.archive.read import opened, sound
from vcinr.archive.zarr_codec import VcinrCodec
from vcinr.codec.at import Places, decode_at, interpolate, locate
from vcinr.codec.promise import valid_values
from vcinr.errors import InputError, ModelError
from vcinr.inr.model import Model
from vcinr.signals.domain import Grid
from vcinr.signals.tiling import Horizontal, goes_round, horizontal_dim

POINT = "point"
"""Dimension of several places."""
UNCERTAINTY = "_uncertainty"
"""What the name of a variable's uncertainty ends in."""
_HORIZONTAL: dict[str, Horizontal] = {
    "lat": "latitude",
    "latitude": "latitude",
    "lon": "longitude",
    "longitude": "longitude",
}


def at(
    path: str | Path,
    places: Mapping[str, float | Sequence[float] | np.ndarray],
    *,
    variables: Sequence[str] | None = None,
    group: str = "",
) -> xr.Dataset:
    """Evaluate the variables of an archive at places between its samples.

    Parameters
    ----------
    path
        The archive: a folder, a zip file or an fsspec URL.
    places
        Coordinates by dimension, in the archive's units: numbers for one place, or sequences of one length. ``lat`` and
        ``lon`` stand for latitude and longitude whatever their names in the archive. All other dimensions are kept.
    variables
        Names within the group. Default: all compressed variables that have the dimensions.
    group
        Which group, the root by default.

    Returns
    -------
    xarray.Dataset
        Each variable in its own units, float64, NaN where a sample around the place has no value, and beside it
        ``NAME_uncertainty``: the archive's error, plus how far apart the samples around are in what is interpolated,
        which is the residual where a model predicts the variable. Data that vary more between two samples than the
        samples differ can be off by more.

    Raises
    ------
    InputError
        For a place outside the grid, or dimensions that a variable does not have.
    CorruptError
        Where the archive is damaged.
    """
    scalar = all(np.ndim(v) == 0 for v in places.values())
    columns = dict(zip(places, np.broadcast_arrays(*(np.atleast_1d(v) for v in places.values())), strict=True))
    if not columns or any(c.ndim != 1 for c in columns.values()):
        raise InputError("give the places as numbers, or as sequences of one length, by dimension")
    found = _evaluated(sound(path), columns, variables, group)
    return found.squeeze(POINT) if scalar else found


def regrid(
    path: str | Path,
    like: xr.Dataset | xr.DataArray,
    *,
    variables: Sequence[str] | None = None,
    group: str = "",
) -> xr.Dataset:
    """Evaluate the variables of an archive on another grid.

    Parameters
    ----------
    path, variables, group
        As in `at`.
    like
        Has the grid: its latitudes and longitudes, or else its one-dimensional coordinates of the archive's names.

    Returns
    -------
    xarray.Dataset
        As of `at`, on that grid.

    Raises
    ------
    InputError, CorruptError
        As `at`, and where `like` has no coordinates to take.
    """
    archive = sound(path)
    with opened(archive, group, decode=False) as stored:
        axes = _axes(like, {str(d) for d in stored.sizes})
    if not axes:
        raise InputError(
            f"the grid to take has no coordinates of {path}, which has {', '.join(map(str, stored.sizes))}"
        )
    mesh = np.meshgrid(*(np.asarray(axis.values, np.float64) for axis in axes.values()), indexing="ij")
    flat = _evaluated(archive, {key: m.ravel() for key, m in zip(axes, mesh, strict=True)}, variables, group)
    result = xr.Dataset(attrs=flat.attrs, coords={n: c for n, c in flat.coords.items() if POINT not in c.dims})
    result = result.assign_coords({str(axis.name): axis for axis in axes.values()})
    dims = [str(axis.name) for axis in axes.values()]
    for name, values in flat.data_vars.items():
        full = values.values.reshape(*values.shape[:-1], *mesh[0].shape)
        result[name] = ((*values.dims[:-1], *dims), full, values.attrs)
    return result


def _axes(like: xr.Dataset | xr.DataArray, known: set[str]) -> dict[str, xr.DataArray]:
    """The coordinates of the grid to take: latitude and longitude, or else all of the archive's dimensions."""
    coords = {str(n): c for n, c in like.coords.items() if c.dims == (n,) and c.dtype.kind in "fiu"}
    axes = {
        key: next((c for c in coords.values() if horizontal_dim(c, _HORIZONTAL[key])), None) for key in ("lat", "lon")
    }
    horizontal = {key: axis for key, axis in axes.items() if axis is not None}
    return horizontal if len(horizontal) == 2 else {n: c for n, c in coords.items() if n in known}


def _evaluated(
    archive: Archive, columns: Mapping[str, np.ndarray], variables: Sequence[str] | None, group: str
) -> xr.Dataset:
    """Every variable at the places, with its uncertainty."""
    path, stored = archive.place, opened(archive, group, decode=False)
    arrays = {n.rpartition("/")[2]: (n, a) for n, a in archive.arrays() if n.rpartition("/")[0] == group}
    chosen = list(variables) if variables else [n for n, (_, a) in arrays.items() if PREFIX + "bytes" in a.attrs]
    jobs, on_graphs = [], []
    for name in chosen:
        if name not in arrays or name not in stored.variables:
            raise InputError(f"{path}: variable {name!r} is not in the archive; it has {', '.join(sorted(arrays))}")
        dims = {key: _dim(stored[name], key) for key in columns}
        nodes = _Variable(archive, *arrays[name], stored[name]).nodes
        if nodes is not None and (nodes in dims.values() or not all(dims.values())):
            on_graphs.append(name)
            continue
        if all(dims.values()) and stored[name].dtype.kind in "fiu":
            jobs.append((name, {str(dim): columns[key] for key, dim in dims.items()}))
        elif variables:
            raise InputError(
                f"{path}: variable {name!r} has the dimensions {', '.join(map(str, stored[name].dims))}, not "
                f"{', '.join(k for k, d in dims.items() if d is None) or 'numbers'}"
            )
    if on_graphs and (variables or not jobs):
        raise InputError(
            f"{path}: variable {on_graphs[0]!r} lies on the nodes of a graph, between which its model gives no values; "
            "open the archive for those at the nodes"
        )
    if not jobs:
        raise InputError(f"{path}: no variable has the dimensions {', '.join(columns)}")
    result = xr.Dataset(attrs=stored.attrs)
    decoded = xr.decode_cf(stored.drop_vars(list(stored.data_vars)))
    for name, wanted in jobs:
        variable = _Variable(archive, *arrays[name], stored[name])
        point_dims, values, spread = variable.evaluated(wanted)
        known = {k: v for k, v in stored[name].attrs.items() if not str(k).startswith(PREFIX)}
        factor, shift = (
            float(np.asarray(known.pop(k, d)).item()) for k, d in zip(metadata.PACKING, (1, 0), strict=True)
        )
        attrs = {k: v for k, v in known.items() if k not in ("_FillValue", "missing_value")}
        error: Any = variable.array.attrs.get(PREFIX + "max_abs_error", 0.0)
        about = {"long_name": f"uncertainty of {name} between its samples"}
        about |= {k: v for k, v in attrs.items() if k == "units"}
        result[name] = (point_dims, values * factor + shift, attrs)
        result[name + UNCERTAINTY] = (point_dims, spread * abs(factor) + float(error or 0.0), about)
        result = result.assign_coords({d: decoded[d] for d in point_dims if d in decoded.coords})
        result = result.assign_coords({d: (POINT, c) for d, c in wanted.items()})
    return result


def _dim(values: xr.DataArray, key: str) -> str | None:
    """The dimension of a variable that a key names."""
    if key in values.dims:
        return key
    return horizontal_dim(values, _HORIZONTAL[key]) if key in _HORIZONTAL else None


def _near(axis: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Longitudes in degrees, each turned by full circles to where it is nearest to the middle of a region's axis."""
    middle = 0.5 * (axis.min() + axis.max())
    return longitude - 360.0 * np.rint((longitude - middle) / 360.0)


@dataclass(frozen=True, eq=False)
class _Variable:
    """A variable of an archive: its full name, its array, and the array with its coordinates, as stored."""

    archive: Archive
    name: str
    array: zarr.Array[Any]
    stored: xr.DataArray

    @property
    def nodes(self) -> str | None:
        """The dimension of the nodes, where a model predicts the variable on a graph."""
        codec = codec_of(self.array)
        if codec is None or codec.model is None:
            return None
        model = sync(models.find(self.archive.store, self.name, codec.model))
        on_graph = isinstance(model, Model) and model.domain is not None
        return str(self.stored.dims[codec.axes_of(self.array.ndim)[-1]]) if on_graph else None

    def evaluated(self, wanted: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Dimensions, values and spread at places, as stored; the last dimension is `POINT`."""
        codec = codec_of(self.array)
        # Where a model is not evaluated at coordinates, as experts for patches are not, it has no axes.
        if codec is None or codec.model is None or not codec.axes or self.array.shards is not None:
            return self._interpolated(codec, wanted)
        return self._predicted(codec, wanted)

    def _places(self, dims: Sequence[str], wanted: Mapping[str, np.ndarray], grid: Grid) -> Places:
        longitude = horizontal_dim(self.stored, "longitude")
        columns, periods = [], []
        for d, axis in zip(dims, grid.columns, strict=True):
            closed = d == longitude and goes_round(axis)
            columns.append(_near(axis, wanted[d]) if d == longitude and not closed else wanted[d])
            periods.append(360.0 if closed else None)
        return locate(grid, columns, dims, periods)

    def _predicted(
        self, codec: VcinrCodec, wanted: Mapping[str, np.ndarray]
    ) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """By the network and the residual around."""
        model = sync(models.find(self.archive.store, self.name, str(codec.model)))
        if model is None:
            raise ModelError(f"model {codec.model} is not in this archive; copy the archive whole")
        array, field = self.array, codec.field(self.array.chunks, model)
        dims = [str(d) for d in self.stored.dims]
        lies = [dims[axis] for axis in field.signal_axes]
        if set(lies) != set(wanted):
            raise InputError(
                f"variable {self.name!r} is predicted by a model of signals over {', '.join(lies)}: give coordinates "
                f"of all of these, and of no other dimension; {', '.join(wanted)} is given"
            )
        places = self._places(lies, wanted, Grid(field.domain.columns))
        order = [a for a in range(array.ndim) if a not in field.value_axes]
        if field.feature_axis is not None:
            order.append(field.feature_axis)
        shape = (*(array.shape[a] for a in order), len(places.corners))
        values, spread = np.empty(shape), np.empty(shape)
        sums = self.archive.manifest.checksums(self.name, counts_of(array))
        for chunk in chunks_of(self.name, array):
            data = fetch(self.archive.store, chunk.key, int(sums[chunk.number]))
            part = tuple(chunk.part[a] for a in order)
            found = decode_at(data, array.chunks, array.dtype, field, places)
            values[part], spread[part] = (f.reshape(values[part].shape) for f in found)
        return (*(dims[a] for a in order), POINT), values, spread

    def _interpolated(
        self, codec: VcinrCodec | None, wanted: Mapping[str, np.ndarray]
    ) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """From the samples around alone: of the dimensions asked for, the part that holds them is read."""
        dims = [str(d) for d in self.stored.dims]
        lies = [d for d in dims if d in wanted]
        axes = [np.asarray(self.stored[d].values, np.float64) for d in lies]
        places = self._places(lies, wanted, Grid(tuple(axes)))
        grid = tuple(len(a) for a in axes)
        index = np.unravel_index(places.corners, grid)
        box = [slice(int(i.min()), int(i.max()) + 1) for i in index]
        lengths = tuple(part.stop - part.start for part in box)
        corners = np.ravel_multi_index(tuple(i - part.start for i, part in zip(index, box, strict=True)), lengths)
        places = Places(places.points, corners, places.weights)
        others = [d for d in dims if d not in wanted]
        shape = (*(self.stored.sizes[d] for d in others), len(corners))
        values, spread = np.empty(shape), np.empty(shape)
        fill = metadata.fill_values(self.stored) if codec is None else codec.fill
        for part in self._parts(others):
            read = self.stored.isel(dict(zip([*lies, *others], [*box, *part], strict=True))).transpose(*others, *lies)
            samples = read.values.reshape(-1, math.prod(lengths))
            valid = valid_values(samples, fill)
            whole = np.where(valid, samples, 0).astype(np.float64)
            found = interpolate(whole, None if valid.all() else valid, places)
            values[part], spread[part] = (f.reshape(values[part].shape) for f in found)
        return (*others, POINT), values, spread

    def _parts(self, others: Sequence[str]) -> Iterator[tuple[slice, ...]]:
        """Parts of the other dimensions that are a chunk long."""
        lengths = {str(d): c for d, c in zip(self.stored.dims, self.array.chunks, strict=True)}
        ranges = [
            [slice(i, min(i + lengths[d], n)) for i in range(0, n, lengths[d])]
            for d in others for n in (self.stored.sizes[d],)
        ]  # fmt: skip
        yield from itertools.product(*ranges)
