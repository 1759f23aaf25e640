"""Signals in memory and on disk: a Zarr store with a group for each split, written by ingestion."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vcinr.errors import InputError
from vcinr.signals.domain import Domain, Grid, Points
from vcinr.signals.stored import SHA256, Stored, blocks

_CHUNK, _SHARD = 1 << 20, 1 << 26  # bytes of values that a chunk and a shard hold at most, unless a signal has more

PATCH_LENGTH = "patch_length"
"""Attribute of signals of one dimension: the length of patches that suits them, where it is not the usual one."""


@dataclass(frozen=True, eq=False)
class SignalSet:
    """N signals on one grid.

    Parameters
    ----------
    features : numpy.ndarray or Stored
        Values ``[N, *grid, d_out]`` in the data's own units and dtype. They are in memory, or stay in their store.
    mask : numpy.ndarray, Stored or None
        bool ``[N, *grid]``: True at points that count, where all features have a value. None where all points do.
    variable : tuple of str
        The variable that each signal belongs to, ``[N]``.

    Notes
    -----
    The arrays must not be changed, because what is derived from them is computed once.
    """

    features: np.ndarray | Stored
    mask: np.ndarray | Stored | None
    variable: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def streamed(self) -> bool:
        """Whether the features stay in their store."""
        return isinstance(self.features, Stored)

    def read_ahead(self, rows: np.ndarray) -> None:
        """Begin to read the signals that are needed next, where they are in a store."""
        for array in (self.features, self.mask):
            if isinstance(array, Stored):
                array.read_ahead(rows)

    @cached_property
    def known_points(self) -> np.ndarray | None:
        """Sorted indices of the points at which at least one signal has a value; None where nothing is masked."""
        if self.mask is None:
            return None
        return np.flatnonzero(np.logical_or.reduce([block.any(axis=0) for block in blocks(self.mask)]))

    @cached_property
    def known_share(self) -> np.ndarray:
        """The share of the known points at which each signal has a value, ``[N]``.

        A signal without any value counts as having one, so that weights stay finite.
        """
        assert self.mask is not None and self.known_points is not None
        counts = np.concatenate(
            [np.count_nonzero(block.reshape(len(block), -1), axis=1) for block in blocks(self.mask)]
        )
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
        known = self._variable_indices
        if split not in known:
            order = {name: i for i, name in enumerate(self.normalisation)}
            known[split] = np.array([order[v] for v in self.splits[split].variable], np.int64)
        return known[split]

    @cached_property
    def _variable_indices(self) -> dict[str, np.ndarray]:
        return {}

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
        flat = _at(signals.features, rows, columns, signals.features.shape[-1:]).swapaxes(0, 1)
        offset, scale = self._scaling(signals, index)
        if signals.mask is None:
            return normalise(flat, None, offset, scale)
        mask = _at(signals.mask, rows, columns, ()).swapaxes(0, 1)
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


def _at(array: np.ndarray | Stored, rows: np.ndarray, columns: np.ndarray, rest: tuple[int, ...]) -> np.ndarray:
    """Values ``[Q, B, *rest]`` of B signals, by their `rows`, at Q points, by their `columns` ``[Q, 1]``."""
    if isinstance(array, Stored):
        array, rows = array[rows], np.arange(len(rows))
    return array.reshape(len(array), -1, *rest)[rows, columns]


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
    ranges = {}
    for name in dict.fromkeys(training.variable):
        rows = np.array([v == name for v in training.variable])
        ranges[name] = range_of(training.features[rows], None if training.mask is None else training.mask[rows])
    return normalisation_by_range(ranges)


def range_of(features: np.ndarray, mask: np.ndarray | None) -> tuple[float, float] | None:
    """The least and the greatest valid value of signals; None where there is none."""
    values = features if mask is None else features[mask]
    return None if values.size == 0 else (float(values.min()), float(values.max()))


def normalisation_by_range(ranges: Mapping[str, tuple[float, float] | None]) -> dict[str, tuple[float, float]]:
    """`normalisation_of` from the least and the greatest valid value of each variable."""
    result = {}
    for name, found in ranges.items():
        if found is None:
            raise InputError(f"variable {name!r}: the training split holds no valid value")
        low, high = found
        result[name] = (low, high - low if high > low else 1.0)
    return result


def write_signals(path: str | Path, signals: Signals) -> None:
    """Write signals as a Zarr v3 store, which replaces whatever is at `path`.

    Arrays are sharded, so that the store consists of few files.
    """
    with written_store(path, signals) as root:
        for name, split in signals.splits.items():
            group = split_of(root, name, split.variable)
            for key, values in (("features", split.features), ("mask", split.mask)):
                if values is not None:
                    array = Growing(group, key, values.shape, values.dtype)
                    for block in blocks(values):
                        array.add(block)
                    array.close()


@contextmanager
def written_store(path: str | Path, signals: Signals) -> Iterator[zarr.Group]:
    """Write a store of signals split by split; it appears at `path` once it is whole.

    Parameters
    ----------
    path : str or Path
        The store, which replaces whatever is there.
    signals : Signals
        All but the splits, which are ignored.

    Yields
    ------
    zarr.Group
        The root, for `split_of`.
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
    yield root
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def split_of(root: zarr.Group, name: str, variable: Sequence[str]) -> zarr.Group:
    """Add a split to a store: the group for its arrays ``features`` and, where points are masked, ``mask``."""
    names = {v: i for i, v in enumerate(dict.fromkeys(variable))}
    group = root.create_group(name, attributes={"variables": list(names)})
    group.create_array("variable", data=np.array([names[v] for v in variable], np.int32))
    return group


class Growing:
    """An array in a store to which rows are added in their order, and which is written by whole shards.

    Chunks have about 1 MiB, and at least one row; shards about 64 MiB.

    Parameters
    ----------
    group, name : zarr.Group, str
        Where it lies.
    shape, dtype : tuple of int, numpy.dtype
        Its shape in the end, and its type.
    """

    def __init__(self, group: zarr.Group, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        length, rest = shape[0], shape[1:]
        item = max(1, math.prod(rest) * np.dtype(dtype).itemsize)
        chunk = max(1, min(length, _CHUNK // item))
        self._shard = chunk * max(1, min(math.ceil(length / chunk), _SHARD // (item * chunk)))
        self._array = group.create_array(
            name, shape=shape, dtype=dtype, chunks=(chunk, *rest), shards=(self._shard, *rest)
        )
        self._waiting = np.empty((min(self._shard, length), *rest), dtype)
        self._held, self._written, self._digest = 0, 0, hashlib.sha256()

    def add(self, rows: np.ndarray) -> None:
        """Add rows, which become of the array's type."""
        while len(rows):
            count = min(len(rows), len(self._waiting) - self._held)
            self._waiting[self._held : self._held + count] = rows[:count]
            self._held, rows = self._held + count, rows[count:]
            if self._held == len(self._waiting):
                self._write()

    def close(self) -> None:
        """Write what is left, and note the digest of all values."""
        self._write()
        assert self._written == self._array.shape[0]
        self._array.attrs[SHA256] = self._digest.hexdigest()

    def _write(self) -> None:
        if self._held:
            block = self._waiting[: self._held]
            self._array[self._written : self._written + self._held] = block
            self._digest.update(block.data)
            self._written, self._held = self._written + self._held, 0


def read_signals(path: str | Path, memory: float | None = None) -> Signals:
    """Read a store from `write_signals`.

    Parameters
    ----------
    path : str or Path
        The store.
    memory : float, optional
        Gigabytes that features and masks may take. Where they take more, they stay in the store, and what is needed of
        them is read when it is needed. Default: all are read at once.

    Returns
    -------
    Signals
        The same values in either case.

    Raises
    ------
    InputError
        For anything else than such a store; the message names `path`.
    """
    try:
        root = zarr.open_group(path, mode="r")
        attrs: dict[str, Any] = dict(root.attrs)
        members: Any = root  # for type checkers: a member may be an array or a group
        dims, feature_dim = tuple(attrs.pop("dims")), attrs.pop("feature_dim", None)
        tiled = bool(attrs.pop("tiled", False))
        system: dict[str, Any] = attrs.pop("system")
        axes = tuple(members[f"axes/{d}"][...] for d in dims)
        splits = {}
        # Folders are listed in any order.
        groups: dict[str, Any] = {name: group for name, group in sorted(root.groups()) if name != "axes"}
        stored = {
            (name, key): Stored(group[key]) for name, group in groups.items() for key in ("features", "mask")
            if key in group
        }  # fmt: skip
        whole = memory is None or sum(array.nbytes for array in stored.values()) <= memory * 1e9
        arrays = {key: array[:] if whole else array for key, array in stored.items()}
        for name, group in groups.items():
            names = group.attrs["variables"]
            variable = tuple(names[i] for i in group["variable"][...])
            splits[name] = SignalSet(arrays[name, "features"], arrays.get((name, "mask")), variable)
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
