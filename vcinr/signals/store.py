"""Signals on disk: one Zarr store with a group a split, written by ingestion and read by every later stage."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vcinr.errors import InputError
from vcinr.signals import coordinates


@dataclass(frozen=True)
class SignalSet:
    """N signals on one grid.

    features ``[N, *grid, d_out]`` in the data's own units and dtype; mask ``[N, *grid]`` bool, True where the
    value counts, or None where all do; variable ``[N]`` the variable each signal belongs to.
    """

    features: np.ndarray
    mask: np.ndarray | None
    variable: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Signals:
    """Splits of signals that share a grid, a coordinate system and the normalisation of the training split.

    ``normalisation[variable] = (offset, scale)``: the network sees (value - offset) / scale, which lies in
    [0, 1] on the training split, so `scale` is the training range and the peak of every PSNR.
    """

    splits: Mapping[str, SignalSet]
    dims: tuple[str, ...]
    axes: tuple[np.ndarray, ...]
    system: dict[str, Any]
    normalisation: Mapping[str, tuple[float, float]]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> np.ndarray:
        """Network inputs ``[P, d_in]`` float32."""
        return coordinates.inputs(self.system, self.axes)

    def variable_index(self, split: str) -> np.ndarray:
        """Index of every signal's variable in `normalisation`, ``[N]`` int64."""
        order = {name: i for i, name in enumerate(self.normalisation)}
        return np.array([order[v] for v in self.splits[split].variable], np.int64)

    def normalised(self, split: str, index: Any = slice(None)) -> tuple[np.ndarray, np.ndarray | None]:
        """Targets ``[B, P, d_out]`` float32 and weights ``[B, P]`` (None where nothing is masked).

        Weights are 0 at masked points, whose target is 0, and average to 1 over each signal.
        """
        chosen = self.splits[split]
        features = np.asarray(chosen.features[index])
        names = np.asarray(chosen.variable)[index]
        pairs = np.array([self.normalisation[n] for n in names], np.float64).reshape(len(names), 2)
        mask = None if chosen.mask is None else np.asarray(chosen.mask[index]).reshape(len(features), -1)
        flat = features.reshape(len(features), -1, features.shape[-1])
        return normalise(flat, mask, pairs[:, 0, None, None], pairs[:, 1, None, None])


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
        dims = tuple(attrs.pop("dims"))
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
