"""Signals in memory and on disk: a Zarr store with a group for each split, written by ingestion."""

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
from vcinr.signals.domain import Domain, Grid, Points

PATCH_LENGTH = "patch_length"
"""Attribute of signals of one dimension: the length of patches that suits them, where it is not the usual one."""


@dataclass(frozen=True, eq=False)
class SignalSet:
    """N signals on one grid.

    Parameters
    ----------
    features : numpy.ndarray
        Values ``[N, *grid, d_out]`` in the data's own units and dtype.
    mask : numpy.ndarray or None
        bool ``[N, *grid]``: True at points that count, where all features have a value. None where all points do.
    variable : tuple of str
        The variable that each signal belongs to, ``[N]``.

    Notes
    -----
    The arrays must not be changed, because what is derived from them is computed once.
    """

    features: np.ndarray
    mask: np.ndarray | None
    variable: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def known_points(self) -> np.ndarray | None:
        """Sorted indices of the points at which at least one signal has a value; None where nothing is masked."""
        return None if self.mask is None else np.flatnonzero(self.mask.any(axis=0))

    @cached_property
    def known_share(self) -> np.ndarray:
        """The share of the known points at which each signal has a value, ``[N]``.

        A signal without any value counts as having one, so that weights stay finite.
        """
        assert self.mask is not None and self.known_points is not None
        counts = np.count_nonzero(self.mask.reshape(len(self), -1), axis=1)
        return np.maximum(counts, 1) / max(1, len(self.known_points))


@dataclass(frozen=True, eq=False)
class Signals:
    """Splits of signals that share a grid, a coordinate system and the normalisation of the training split.

    Parameters
    ----------
    splits : mapping of str to SignalSet
        Signals by the name of their split.
    dims : tuple of str
        Names of the grid's dimensions.
    axes : tuple of numpy.ndarray
        Coordinates of these dimensions, float64. On the nodes of a graph, which have one dimension, they are its
        spectral coordinates ``[P]`` each.
    system : dict
        The coordinate system (:mod:`vcinr.signals.coordinates`).
    normalisation : mapping of str to (float, float)
        (offset, scale) of each variable, the same for all features of a point, which share a unit. The network works on
        (value - offset) / scale, which lies in [0, 1] on the training split. `scale` is therefore the training range;
        it is also the peak of every PSNR.
    attrs : mapping
        Facts about the origin of the signals, which JSON can hold.
    feature_dim : str, optional
        Name of the data's dimension that holds the features of a point; None where each point has a single value.
    tiled : bool
        Whether the signals are tiles of larger ones, whose points have their indices within the tile as coordinates.
    """

    splits: Mapping[str, SignalSet]
    dims: tuple[str, ...]
    axes: tuple[np.ndarray, ...]
    system: dict[str, Any]
    normalisation: Mapping[str, tuple[float, float]]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    feature_dim: str | None = None
    tiled: bool = False

    @property
    def domain(self) -> Domain:
        """The grid, or the nodes of the graph, that all signals lie on."""
        return Points(self.axes) if self.system["system"] == "spectral" else Grid(self.axes)

    @cached_property
    def inputs(self) -> np.ndarray:
        """The network's inputs at all points of the grid, float32 ``[P, d_in]``; they must not be changed."""
        return self.domain.inputs(self.system)

    @property
    def points(self) -> int:
        """Number P of points of the grid."""
        return self.domain.points

    def known_points(self, split: str) -> np.ndarray:
        """The points from which training may draw: those at which at least one signal of a split has a value.

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
        """Position in `normalisation` of the variable of each signal of a split, int64 ``[N]``."""
        order = {name: i for i, name in enumerate(self.normalisation)}
        return np.array([order[v] for v in self.splits[split].variable], np.int64)

    def normalised(self, split: str, index: Any = slice(None)) -> tuple[np.ndarray, np.ndarray | None]:
        """Normalise whole signals, as an encoder does.

        Parameters
        ----------
        split : str
            Name of the split.
        index : slice or array of int
            The B signals of the split to take; by default all.

        Returns
        -------
        targets : numpy.ndarray
            float32 ``[B, P, d_out]``, 0 at masked points.
        weights : numpy.ndarray or None
            float32 ``[B, P]``, 0 at masked points and averaging to 1 over each signal. None where nothing is masked.
        """
        signals = self.splits[split]
        features = np.asarray(signals.features[index])
        mask = None if signals.mask is None else np.asarray(signals.mask[index]).reshape(len(features), -1)
        flat = features.reshape(len(features), -1, features.shape[-1])
        return normalise(flat, mask, *self._scaling(signals, index))

    def sampled(self, split: str, index: Any, points: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Normalise signals at some points, as training does. Values at other points are not touched.

        Parameters
        ----------
        split : str
            Name of the split.
        index : slice or array of int
            The B signals of the split to take.
        points : numpy.ndarray
            Indices of Q points, drawn from `known_points` of the split.

        Returns
        -------
        targets : numpy.ndarray
            float32 ``[B, Q, d_out]``, 0 at masked points.
        weights : numpy.ndarray or None
            float32 ``[B, Q]``, 0 at masked points. Over all known points they average to 1 for each signal. None where
            all of them are 1, as for signals that share a mask.
        """
        signals = self.splits[split]
        rows, columns = np.arange(len(signals))[index], points[:, None]
        # In memory, points come before signals: sums over them are then taken in one order, however signals are stored.
        flat = signals.features.reshape(len(signals), -1, signals.features.shape[-1])[rows, columns].swapaxes(0, 1)
        offset, scale = self._scaling(signals, index)
        if signals.mask is None:
            return normalise(flat, None, offset, scale)
        mask = signals.mask.reshape(len(signals), -1)[rows, columns].swapaxes(0, 1)
        share = signals.known_share[rows, None]
        if mask.all() and (share == 1.0).all():
            return normalise(flat, None, offset, scale)
        targets = np.where(mask[..., None], (flat - offset) / scale, 0.0).astype(np.float32)
        return targets, (mask / share).astype(np.float32)

    def _scaling(self, signals: SignalSet, index: Any) -> tuple[np.ndarray, np.ndarray]:
        """Offset and scale of some signals of a set, float64 ``[B, 1, 1]`` each."""
        rows = np.arange(len(signals))[index]
        pairs = np.array([self.normalisation[signals.variable[i]] for i in rows], np.float64).reshape(len(rows), 2)
        return pairs[:, 0, None, None], pairs[:, 1, None, None]


def normalise(
    values: np.ndarray, mask: np.ndarray | None, offset: Any, scale: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """Normalise values for an inner loop.

    Parameters
    ----------
    values : numpy.ndarray
        Values of signals ``[B, P, d_out]``.
    mask : numpy.ndarray or None
        bool ``[B, P]``: False at points that do not count. None where all points do.
    offset, scale
        Numbers, or arrays that broadcast with the values.

    Returns
    -------
    targets : numpy.ndarray
        (values - offset) / scale, computed in float64 and rounded to float32; 0 at masked points.
    weights : numpy.ndarray or None
        float32 ``[B, P]``, 0 at masked points and averaging to 1 over each signal; None without a mask.
    """
    y = (values - np.asarray(offset, np.float64)) / scale
    if mask is None:
        return y.astype(np.float32), None
    y = np.where(mask[..., None], y, 0.0).astype(np.float32)
    share = np.maximum(mask.mean(axis=1, keepdims=True), 1.0 / mask.shape[1])
    return y, (mask / share).astype(np.float32)


def fixed_points(total: int, count: int) -> np.ndarray:
    """Choose `count` of `total` points at random, but always the same ones; all of them where there are fewer.

    On large grids, encoding, validation and assessment use only such points, which saves much time and changes little.

    Returns
    -------
    numpy.ndarray
        Sorted indices.
    """
    return np.sort(np.random.default_rng(0).choice(total, min(total, count), replace=False))


def fixed_known_points(signals: Signals, split: str, count: int) -> np.ndarray:
    """Like `fixed_points`, but chosen from the points at which at least one signal of a split has a value."""
    known = signals.known_points(split)
    return known[fixed_points(len(known), count)]


def normalisation_of(training: SignalSet) -> dict[str, tuple[float, float]]:
    """Compute the normalisation of each variable from the valid values of the training signals.

    Returns
    -------
    dict of str to (float, float)
        Offset and scale: the minimum and the range. A constant variable has the scale 1.

    Raises
    ------
    InputError
        For a variable without any valid value.
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
    """Write signals as a Zarr v3 store, which replaces whatever is at `path`.

    Arrays are sharded, so that the store consists of few files.
    """
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
            **({"tiled": True} if signals.tiled else {}),
            "normalisation": [[k, *v] for k, v in signals.normalisation.items()],
        }
    )
    spectral = signals.system["system"] == "spectral"
    axes = [np.stack(signals.axes)] if spectral else signals.axes
    for dim, axis in zip(signals.dims, axes, strict=True):
        root.create_array(f"axes/{dim}", data=np.asarray(axis, np.float64))
    for name, split in signals.splits.items():
        names = list(dict.fromkeys(split.variable))
        group = root.create_group(name, attributes={"variables": names})
        _write_sharded(group, "features", np.asarray(split.features))
        if split.mask is not None:
            _write_sharded(group, "mask", np.asarray(split.mask))
        group.create_array("variable", data=np.array([names.index(v) for v in split.variable], np.int32))
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def read_signals(path: str | Path) -> Signals:
    """Read a store from `write_signals`; raises InputError, which names `path`, for anything else."""
    try:
        root = zarr.open_group(path, mode="r")
        attrs: dict[str, Any] = dict(root.attrs)
        members: Any = root  # for type checkers: a member may be an array or a group
        dims, feature_dim = tuple(attrs.pop("dims")), attrs.pop("feature_dim", None)
        tiled = bool(attrs.pop("tiled", False))
        system: dict[str, Any] = attrs.pop("system")
        axes = tuple(members[f"axes/{d}"][...] for d in dims)
        splits = {}
        for name, group in sorted(root.groups()):  # folders are listed in any order
            if name == "axes":
                continue
            arrays: Any = group
            names = arrays.attrs["variables"]
            splits[name] = SignalSet(
                arrays["features"][...],
                arrays["mask"][...] if "mask" in arrays else None,
                tuple(names[i] for i in arrays["variable"][...]),
            )
        return Signals(
            splits,
            dims,
            tuple(axes[0]) if system["system"] == "spectral" else axes,
            system,
            {k: (offset, scale) for k, offset, scale in attrs.pop("normalisation")},
            attrs,
            feature_dim,
            tiled,
        )
    except (FileNotFoundError, KeyError, zarr.errors.GroupNotFoundError) as error:
        raise InputError(f"{path}: not a store of signals ({error}); run the ingest stage first") from None


def _write_sharded(group: zarr.Group, name: str, data: np.ndarray) -> None:
    """Write an array in chunks of about 1 MiB, and shards of about 64 MiB, along its first axis."""
    item = max(1, data[:1].nbytes)
    chunk = max(1, min(len(data), 2**20 // item))
    per_shard = max(1, min(math.ceil(len(data) / chunk), 2**26 // (item * chunk)))
    rest = data.shape[1:]
    array = group.create_array(
        name, shape=data.shape, dtype=data.dtype, chunks=(chunk, *rest), shards=(chunk * per_shard, *rest)
    )
    array[...] = data
