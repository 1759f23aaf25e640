"""Signals on disk: one Zarr store with a group a split, written by ingestion and read by every later stage."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vcinr.errors import InputError
from vcinr.signals.domain import Grid


@dataclass(frozen=True, eq=False)
class SignalSet:
    """N signals on one grid.

    Parameters
    ----------
    features
        ``[N, *grid, d_out]`` in the data's own units and dtype.
    mask
        ``[N, *grid]`` bool, True at points that count: all features have a value there. None where all points do.
    variable
        ``[N]``, the variable that each signal belongs to.

    Notes
    -----
    The arrays must not be changed: what is derived from them is worked out once.
    """

    features: np.ndarray
    mask: np.ndarray | None
    variable: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def known_points(self) -> np.ndarray | None:
        """Sorted indices of the points at which some signal has a value; None where nothing is masked."""
        return None if self.mask is None else np.flatnonzero(self.mask.any(axis=0))

    @cached_property
    def known_share(self) -> np.ndarray:
        """Of the known points, the share at which each signal has a value, ``[N]``; at least one point's."""
        assert self.mask is not None and self.known_points is not None
        counts = np.count_nonzero(self.mask.reshape(len(self), -1), axis=1)
        return np.maximum(counts, 1) / max(1, len(self.known_points))


@dataclass(frozen=True, eq=False)
class Signals:
    """Splits of signals that share a grid, a coordinate system and the normalisation of the training split.

    Parameters
    ----------
    splits
        Signals by the name of their split.
    dims
        Names of the grid's dimensions.
    axes
        Their coordinates, float64.
    system
        The coordinate system (:mod:`vcinr.signals.coordinates`).
    normalisation
        (offset, scale) by variable, the same for all features of a point, which share a unit. The network sees (value -
        offset) / scale, which lies in [0, 1] on the training split: `scale` is the training range, and the peak of
        every PSNR.
    attrs
        Facts about their origin, JSON-able.
    feature_dim
        Name of the data's dimension that holds the features of a point; None where each point has a single value.
    """

    splits: Mapping[str, SignalSet]
    dims: tuple[str, ...]
    axes: tuple[np.ndarray, ...]
    system: dict[str, Any]
    normalisation: Mapping[str, tuple[float, float]]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    feature_dim: str | None = None

    @property
    def domain(self) -> Grid:
        """The grid that all signals lie on."""
        return Grid(self.axes)

    @cached_property
    def inputs(self) -> np.ndarray:
        """Network inputs ``[P, d_in]`` float32 of every point of the grid; made once, not to be changed."""
        return self.domain.inputs(self.system)

    @property
    def points(self) -> int:
        """Points of the grid, P."""
        return self.domain.points

    def known_points(self, split: str) -> np.ndarray:
        """Points worth drawing from: those at which some signal of a split has a value.

        Parameters
        ----------
        split : str
            Name of the split.

        Returns
        -------
        numpy.ndarray
            Sorted indices; those of all points where nothing is masked.
        """
        known = self.splits[split].known_points
        return np.arange(self.points) if known is None else known

    def variable_index(self, split: str) -> np.ndarray:
        """Index of every signal's variable in `normalisation`, ``[N]`` int64."""
        order = {name: i for i, name in enumerate(self.normalisation)}
        return np.array([order[v] for v in self.splits[split].variable], np.int64)

    def normalised(self, split: str, index: Any = slice(None)) -> tuple[np.ndarray, np.ndarray | None]:
        """Whole signals as an encoder sees them.

        Parameters
        ----------
        split : str
            Name of the split.
        index : slice or array of int
            Which signals of it, B of them.

        Returns
        -------
        targets : numpy.ndarray
            ``[B, P, d_out]`` float32, 0 at masked points.
        weights : numpy.ndarray or None
            ``[B, P]`` float32, 0 at masked points, averaging to 1 over each signal; None where nothing is masked.
        """
        chosen = self.splits[split]
        features = np.asarray(chosen.features[index])
        mask = None if chosen.mask is None else np.asarray(chosen.mask[index]).reshape(len(features), -1)
        flat = features.reshape(len(features), -1, features.shape[-1])
        return normalise(flat, mask, *self._scaling(chosen, index))

    def sampled(self, split: str, index: Any, points: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Signals at some of a split's known points, as training sees them; the rest is never touched.

        Parameters
        ----------
        split : str
            Name of the split.
        index : slice or array of int
            Which signals of it, B of them.
        points : numpy.ndarray
            Q indices, drawn from `known_points` of the split.

        Returns
        -------
        targets : numpy.ndarray
            ``[B, Q, d_out]`` float32, 0 at masked points.
        weights : numpy.ndarray or None
            ``[B, Q]`` float32, 0 at masked points; over all known points they average to 1 for each signal. None
            where all of them are 1, so that signals that share a mask need none.
        """
        chosen = self.splits[split]
        rows, columns = np.arange(len(chosen))[index], points[:, None]
        # Points before signals in memory: sums over them are then taken in one order, however signals are stored.
        flat = chosen.features.reshape(len(chosen), -1, chosen.features.shape[-1])[rows, columns].swapaxes(0, 1)
        offset, scale = self._scaling(chosen, index)
        if chosen.mask is None:
            return normalise(flat, None, offset, scale)
        mask = chosen.mask.reshape(len(chosen), -1)[rows, columns].swapaxes(0, 1)
        share = chosen.known_share[rows, None]
        if mask.all() and (share == 1.0).all():
            return normalise(flat, None, offset, scale)
        targets = np.where(mask[..., None], (flat - offset) / scale, 0.0).astype(np.float32)
        return targets, (mask / share).astype(np.float32)

    def _scaling(self, chosen: SignalSet, index: Any) -> tuple[np.ndarray, np.ndarray]:
        """Offset and scale of signals, ``[B, 1, 1]`` float64 each."""
        rows = np.arange(len(chosen))[index]
        pairs = np.array([self.normalisation[chosen.variable[i]] for i in rows], np.float64).reshape(len(rows), 2)
        return pairs[:, 0, None, None], pairs[:, 1, None, None]


def normalise(
    values: np.ndarray, mask: np.ndarray | None, offset: Any, scale: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """What the inner loop sees of values ``[B, P, d_out]``: targets float32 and weights ``[B, P]``, or None.

    Targets are (values - offset) / scale, computed in float64. Where `mask` ``[B, P]`` is False, target and weight
    are 0; the weights of each signal average to 1.
    """
    y = (values - np.asarray(offset, np.float64)) / scale
    if mask is None:
        return y.astype(np.float32), None
    y = np.where(mask[..., None], y, 0.0).astype(np.float32)
    share = np.maximum(mask.mean(axis=1, keepdims=True), 1.0 / mask.shape[1])
    return y, (mask / share).astype(np.float32)


def fixed_points(total: int, count: int) -> np.ndarray:
    """Sorted indices of `count` of `total` points, at random but always the same; all of them where there are fewer.

    Large grids are encoded, validated and assessed on such a part: the figures change little, the time a lot.
    """
    return np.sort(np.random.default_rng(0).choice(total, min(total, count), replace=False))


def fixed_known_points(signals: Signals, split: str, count: int) -> np.ndarray:
    """`fixed_points` of those at which some signal of a split has a value."""
    known = signals.known_points(split)
    return known[fixed_points(len(known), count)]


def normalisation_of(training: SignalSet) -> dict[str, tuple[float, float]]:
    """(minimum, range) of every variable over the training signals' valid values; a constant has range 1.

    Raises InputError for a variable without any valid value.
    """
    result = {}
    for name in dict.fromkeys(training.variable):
        rows = np.array([v == name for v in training.variable])
        values = training.features[rows]
        if training.mask is not None:
            values = values[training.mask[rows]]
        if values.size == 0:
            raise InputError(f"variable {name!r}: the training split holds no valid value")
        low, high = float(values.min()), float(values.max())
        result[name] = (low, high - low if high > low else 1.0)
    return result


def write_signals(path: str | Path, signals: Signals) -> None:
    """Write `signals` as a Zarr v3 store at `path`, replacing it whole; sharded, so it is a handful of files."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    root = zarr.open_group(temporary, mode="w")
    root.attrs.update(
        {
            **signals.attrs,
            "dims": list(signals.dims),
            "system": signals.system,
            **({} if signals.feature_dim is None else {"feature_dim": signals.feature_dim}),
            "normalisation": [[k, *v] for k, v in signals.normalisation.items()],
        }
    )
    for dim, axis in zip(signals.dims, signals.axes, strict=True):
        root.create_array(f"axes/{dim}", data=np.asarray(axis, np.float64))
    for name, chosen in signals.splits.items():
        names = list(dict.fromkeys(chosen.variable))
        group = root.create_group(name, attributes={"variables": names})
        _sharded(group, "features", np.asarray(chosen.features))
        if chosen.mask is not None:
            _sharded(group, "mask", np.asarray(chosen.mask))
        group.create_array("variable", data=np.array([names.index(v) for v in chosen.variable], np.int32))
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def read_signals(path: str | Path) -> Signals:
    """Read what `write_signals` wrote; raises InputError naming `path`."""
    try:
        root = zarr.open_group(path, mode="r")
        attrs: dict[str, Any] = dict(root.attrs)
        members: Any = root  # zarr types a member as anything it may be
        dims, feature_dim = tuple(attrs.pop("dims")), attrs.pop("feature_dim", None)
        splits = {}
        for name, group in root.groups():
            if name == "axes":
                continue
            own: Any = group
            names = own.attrs["variables"]
            splits[name] = SignalSet(
                own["features"][...],
                own["mask"][...] if "mask" in own else None,
                tuple(names[i] for i in own["variable"][...]),
            )
        return Signals(
            splits,
            dims,
            tuple(members[f"axes/{d}"][...] for d in dims),
            attrs.pop("system"),
            {k: (offset, scale) for k, offset, scale in attrs.pop("normalisation")},
            attrs,
            feature_dim,
        )
    except (FileNotFoundError, KeyError, zarr.errors.GroupNotFoundError) as error:
        raise InputError(f"{path}: not a store of signals ({error}); run the ingest stage first") from None


def _sharded(group: zarr.Group, name: str, data: np.ndarray) -> None:
    item = max(1, data[:1].nbytes)
    chunk = max(1, min(len(data), 2**20 // item))
    per_shard = max(1, min(math.ceil(len(data) / chunk), 2**26 // (item * chunk)))
    rest = data.shape[1:]
    array = group.create_array(
        name, shape=data.shape, dtype=data.dtype, chunks=(chunk, *rest), shards=(chunk * per_shard, *rest)
    )
    array[...] = data
