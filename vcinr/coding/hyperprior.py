"""Integers under tables that side information chooses: a hyperprior whose synthesis is integer arithmetic alone.

Codes z ``[n, d]`` are taken as zero-mean Gaussians about integer centres, of scales that differ from signal to signal.
Integers w ``[n, r]`` are coded first and say which: the scale of z_i has the index
clip((a_i + sum_j B_ij w_j) >> SHIFT, 0, L - 1), and so its logarithm is linear in w (Ballé, Minnen, Singh, Hwang &
Johnston 2018, with a log-linear hyper-synthesis; integers as Ballé, Johnston & Minnen 2019 ask, so that every machine
finds the same tables). w itself has a fixed scale. Any w decodes: the writer searches for that of fewest bits in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcinr.coding.static import TOTAL, reader, writer
from vcinr.coding.tables import ESCAPE_BITS, Tables, frequencies_of, levels_of, quantise_frequencies, sound
from vcinr.compiled import outer

SHIFT = 8
SMALLEST, PER_OCTAVE = 0.11, 4
"""Standard deviation of scale 0, and how many scales there are to each doubling of it."""
SCALES = 56
"""How many there are at most: the largest has a standard deviation of about 1500."""
_LIMIT = 1 << 15  # of the weights and of w as it is written; of centres 2^30, of scales 2^24: 64 bits hold all sums
_STEPS = (16, 8, 4, 2, 1)
_SWEEPS = 8


def scale_levels(count: int) -> np.ndarray:
    """Levels ``[count, S]`` of discretised Gaussians about 0, a row a scale: the escape, then -h, ..., h, padded."""
    sigma = SMALLEST * 2.0 ** (np.arange(count) / PER_OCTAVE)
    half = np.ceil(5 * sigma).astype(int) + 8
    level = np.zeros((count, 2 * half.max() + 2), np.uint8)
    for i, (s, h) in enumerate(zip(sigma, half, strict=True)):
        edges = (np.arange(-h, h + 2) - 0.5) / (s * math.sqrt(2))
        p = np.diff([math.erf(e) for e in edges]) / 2
        level[i, : 2 * h + 2] = levels_of(quantise_frequencies(np.rint(2**40 * np.concatenate([[0], p]))))
    return level


@dataclass(frozen=True)
class Hyperprior:
    """The integers of a hyperprior for K rates.

    level uint8 ``[L, S]``: tables as `scale_levels` makes them; centre, scale int32 ``[K, r + d]``: of w, then of z
    (a, in 2**-SHIFT of a scale); weight int32 ``[d, r]``: B.
    """

    level: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    weight: np.ndarray

    @property
    def side(self) -> int:
        """r, how many integers of side information a signal has."""
        return self.weight.shape[1]

    @cached_property
    def tables(self) -> Tables:
        """Those of the scales, ``[L]``."""
        entries = np.count_nonzero(self.level, axis=1)
        return Tables(1 - entries // 2, frequencies_of(self.level))

    @cached_property
    def cost(self) -> np.ndarray:
        """Bits ``[L, 2 h + 3]`` of the values -h - 1, ..., h + 1 under each scale, h the largest that has a symbol."""
        half = self.level.shape[1] // 2 - 1
        cost = np.empty((len(self.level), 2 * half + 3))
        for row, frequency, offset in zip(cost, self.tables.frequency, self.tables.offset, strict=True):
            row[:] = ESCAPE_BITS - math.log2(frequency[0] / TOTAL)
            found = frequency[1:][frequency[1:] > 0]
            row[half + 1 + offset : half + 1 + offset + len(found)] = -np.log2(found / TOTAL)
        return cost

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Arrays for the model artifact."""
        return {"level": self.level, "centre": self.centre, "scale": self.scale, "weight": self.weight}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], rates: int, d: int) -> Hyperprior:
        """Inverse of `to_tensors` for `rates` of `d` codes; raises ValueError or KeyError on what is none."""
        level, centre, scale, weight = (tensors[k] for k in ("level", "centre", "scale", "weight"))
        if weight.ndim != 2 or weight.shape[0] != d or not 1 <= weight.shape[1] <= 256:
            raise ValueError("weights of a hyperprior have another shape")
        shape = (rates, d + weight.shape[1])
        if not (centre.shape == scale.shape == shape) or any(v.dtype.kind != "i" for v in (centre, scale, weight)):
            raise ValueError("centres and scales of a hyperprior have other shapes or types")
        if level.ndim != 2 or not sound(level) or (np.count_nonzero(level, axis=1) % 2).any():
            raise ValueError("tables of a hyperprior are none")
        for values, limit in ((weight, _LIMIT), (centre, 1 << 30), (scale, 1 << 24)):
            if np.abs(values.astype(np.int64)).max() >= limit:
                raise ValueError("numbers of a hyperprior are too large")
        return cls(level, centre, scale, weight)

    def indices(self, w: np.ndarray, rate: int) -> np.ndarray:
        """Scales ``[n, r + d]`` of w ``[n, r]`` itself and of the codes that it stands beside."""
        moved = np.zeros((len(w), self.scale.shape[1]), np.int64)
        moved[:, self.side :] = w @ self.weight.T.astype(np.int64)
        return np.clip((self.scale[rate] + moved) >> SHIFT, 0, len(self.level) - 1)

    def bits(self, z: np.ndarray, w: np.ndarray, rate: int) -> np.ndarray:
        """Rate of each signal ``[n]`` in bits, w counted."""
        values = np.concatenate([w, z], 1) - self.centre[rate]
        return self.cost[self.indices(w, rate), self.column(values)].sum(1)

    def column(self, values: np.ndarray) -> np.ndarray:
        """Where `cost` has values relative to their centres."""
        half = self.cost.shape[1] // 2
        return np.clip(values, -half, half) + half

    def search(self, z: np.ndarray, rate: int) -> np.ndarray:
        """w ``[n, r]`` int64 of few bits for z ``[n, d]``: coordinate descent by exact counts, from the centres."""
        w = np.tile(self.centre[rate, : self.side].astype(np.int64), (len(z), 1))
        column = self.column(z - self.centre[rate, self.side :])
        _descend(w, column, self.cost, self.centre[rate].astype(np.int64), self.scale[rate].astype(np.int64),
                 self.weight.astype(np.int64), np.empty(column.shape[1], np.int64))  # fmt: skip
        return w

    def encode(self, z: np.ndarray, rate: int) -> bytes:
        """z int64 ``[n, d]``, of 31 bits with their sign -> an ANS bitstream: w, then z."""
        w, out = self.search(z, rate), writer("ans")
        index, values = self.indices(w, rate), np.concatenate([w, z], 1) - self.centre[rate]
        for part in (slice(self.side), slice(self.side, None)):
            for k, where in self._groups(index[:, part]):
                self._of(k).write(out, values[:, part][where][:, None])
        return out.getvalue()

    def decode(self, data: bytes, count: int, rate: int) -> np.ndarray:
        """Inverse of `encode`: z int64 ``[count, d]``."""
        source, values = reader("ans", data), np.zeros((count, self.scale.shape[1]), np.int64)
        for part in (slice(self.side), slice(self.side, None)):
            index = self.indices(values[:, : self.side], rate)[:, part]
            for k, where in self._groups(index):
                values[:, part][where] = self._of(k).read(source, int(where.sum()))[:, 0]
            values[:, part] += self.centre[rate, part]
        return values[:, self.side :]

    def _groups(self, index: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Each scale in use and where it is: values are coded scale by scale."""
        return [(int(k), index == k) for k in np.unique(index)]

    def _of(self, k: int) -> Tables:
        return Tables(self.tables.offset[k : k + 1], self.tables.frequency[k : k + 1])


@outer
def _descend(
    w: np.ndarray, column: np.ndarray, cost: np.ndarray, centre: np.ndarray, scale: np.ndarray, weight: np.ndarray,
    total: np.ndarray,
) -> None:  # fmt: skip
    """Change w ``[n, r]`` in place; total int64 ``[d]``: scratch."""
    signals, side = w.shape
    d, last, half = column.shape[1], len(cost) - 1, cost.shape[1] // 2
    for n in range(signals):
        for i in range(d):
            total[i] = scale[side + i]
            for j in range(side):
                total[i] += weight[i, j] * w[n, j]
        for _ in range(_SWEEPS):
            moved = False
            for j in range(side):
                own = cost[min(max(scale[j] >> SHIFT, 0), last)]
                best, way = 0.0, 0
                for size in _STEPS:
                    for move in (-size, size):
                        if abs(w[n, j] + move) >= _LIMIT:
                            continue
                        before = w[n, j] - centre[j]
                        change = (
                            own[min(max(before + move, -half), half) + half] - own[min(max(before, -half), half) + half]
                        )
                        for i in range(d):
                            k = min(max(total[i] >> SHIFT, 0), last)
                            to = min(max((total[i] + move * weight[i, j]) >> SHIFT, 0), last)
                            change += cost[to, column[n, i]] - cost[k, column[n, i]]
                        if change < best - 1e-9:
                            best, way = change, move
                if way != 0:
                    w[n, j] += way
                    moved = True
                    for i in range(d):
                        total[i] += way * weight[i, j]
            if not moved:
                break


def warm() -> None:
    """Compile what `Hyperprior.search` runs."""
    one = np.zeros((1, 1), np.int64)
    _descend(one, one, np.zeros((1, 3)), np.zeros(2, np.int64), np.zeros(2, np.int64), one, np.zeros(1, np.int64))
