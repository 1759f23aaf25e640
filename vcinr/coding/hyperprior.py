"""Hyperprior coding: integers coded under tables that side information selects, in integer arithmetic alone.

The codes z ``[n, d]`` of a signal are modelled as Gaussians about integer centres, whose scales (standard deviations)
differ from signal to signal. Side information w ``[n, r]``, integers that are coded first, says which scales: that of
z_i has the index clip((a_i + sum_j B_ij w_j) >> SHIFT, 0, L - 1) into a list of L scales. The scales are evenly spaced
on a logarithmic axis, so the logarithm of a scale is linear in w. w itself has fixed scales.

This is the hyperprior of Ballé, Minnen, Singh, Hwang & Johnston 2018 with a log-linear synthesis, in integers as Ballé,
Johnston & Minnen 2019 ask, so that every machine finds the same tables. Any w can be decoded; the encoder searches for
the one that needs the fewest bits in all.
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
"""Standard deviation of scale 0, and the number of scales for each doubling."""
SCALES = 56
"""Largest number of scales: the last has a standard deviation of about 1500."""
_LIMIT = 1 << 15  # of weights and of w. With centres below 2^30 and scales below 2^24, 64 bits hold all sums
_STEPS = (16, 8, 4, 2, 1)  # lengths of moves in the search for w
_SWEEPS = 8  # rounds of that search, at most


def scale_levels(count: int) -> np.ndarray:
    """Tables of discretised Gaussians about 0, one for each scale.

    Parameters
    ----------
    count : int
        Number of scales, from `SMALLEST` on.

    Returns
    -------
    numpy.ndarray
        Levels (see `tables.levels_of`) uint8 ``[count, S]``: the escape, then the values -h, ..., h, then padding.
    """
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
    """The integers of a hyperprior for K rates, L scales, d codes and r integers of side information.

    Attributes
    ----------
    level : numpy.ndarray
        uint8 ``[L, S]``: tables from `scale_levels`.
    centre : numpy.ndarray
        int32 ``[K, r + d]``: centres of w, then of z.
    scale : numpy.ndarray
        int32 ``[K, r + d]``: scales of w, then those of z at w = 0 (the vector a), in 2**-SHIFT of a scale's index.
    weight : numpy.ndarray
        int32 ``[d, r]``: the matrix B.
    """

    level: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    weight: np.ndarray

    @property
    def side(self) -> int:
        """r, the number of integers of side information for each signal."""
        return self.weight.shape[1]

    @cached_property
    def tables(self) -> Tables:
        """The tables of the L scales."""
        entries = np.count_nonzero(self.level, axis=1)
        return Tables(1 - entries // 2, frequencies_of(self.level))

    @cached_property
    def cost(self) -> np.ndarray:
        """Bits of values under each scale, escapes included.

        Returns
        -------
        numpy.ndarray
            ``[L, 2 h + 3]``, of the values -h - 1, ..., h + 1, where h is the largest value with a symbol.
        """
        half = self.level.shape[1] // 2 - 1
        cost = np.empty((len(self.level), 2 * half + 3))
        for row, frequency, offset in zip(cost, self.tables.frequency, self.tables.offset, strict=True):
            row[:] = ESCAPE_BITS - math.log2(frequency[0] / TOTAL)
            present = frequency[1:][frequency[1:] > 0]
            row[half + 1 + offset : half + 1 + offset + len(present)] = -np.log2(present / TOTAL)
        return cost

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Arrays for the model file."""
        return {"level": self.level, "centre": self.centre, "scale": self.scale, "weight": self.weight}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], rates: int, d: int) -> Hyperprior:
        """Inverse of `to_tensors`.

        Parameters
        ----------
        tensors : mapping of str to numpy.ndarray
            From the model file, and not trusted.
        rates, d : int
            Number of rates and of codes that the quantiser has.

        Returns
        -------
        Hyperprior
            Its integers are small enough for signed 64-bit arithmetic.

        Raises
        ------
        KeyError, ValueError
            For arrays that are not those of a hyperprior.
        """
        level, centre, scale, weight = (tensors[k] for k in ("level", "centre", "scale", "weight"))
        if weight.ndim != 2 or weight.shape[0] != d or not 1 <= weight.shape[1] <= 256:
            raise ValueError("the weights of the hyperprior have a wrong shape")
        shape = (rates, d + weight.shape[1])
        if not (centre.shape == scale.shape == shape) or any(v.dtype.kind != "i" for v in (centre, scale, weight)):
            raise ValueError("the centres or scales of the hyperprior have a wrong shape or type")
        if level.ndim != 2 or not sound(level) or (np.count_nonzero(level, axis=1) % 2).any():
            raise ValueError("the tables of the hyperprior are malformed")
        for values, limit in ((weight, _LIMIT), (centre, 1 << 30), (scale, 1 << 24)):
            if np.abs(values.astype(np.int64)).max() >= limit:
                raise ValueError("numbers of the hyperprior are too large")
        return cls(level, centre, scale, weight)

    def indices(self, w: np.ndarray, rate: int) -> np.ndarray:
        """Indices ``[n, r + d]`` of the scales of w ``[n, r]`` itself, then of z, at one of the K rates."""
        moved = np.zeros((len(w), self.scale.shape[1]), np.int64)
        moved[:, self.side :] = w @ self.weight.T.astype(np.int64)
        return np.clip((self.scale[rate] + moved) >> SHIFT, 0, len(self.level) - 1)

    def bits(self, z: np.ndarray, w: np.ndarray, rate: int) -> np.ndarray:
        """Bits of each signal ``[n]`` for codes z ``[n, d]`` and side information w ``[n, r]``, both included."""
        values = np.concatenate([w, z], 1) - self.centre[rate]
        return self.cost[self.indices(w, rate), self.column(values)].sum(1)

    def column(self, values: np.ndarray) -> np.ndarray:
        """The column of `cost` for values relative to their centres."""
        half = self.cost.shape[1] // 2
        return np.clip(values, -half, half) + half

    def search(self, z: np.ndarray, rate: int) -> np.ndarray:
        """Find side information that needs few bits.

        Parameters
        ----------
        z : numpy.ndarray
            Codes ``[n, d]``.
        rate : int
            Which of the K rates.

        Returns
        -------
        numpy.ndarray
            w int64 ``[n, r]``: coordinate descent from the centres, by exact counts of bits.
        """
        w = np.tile(self.centre[rate, : self.side].astype(np.int64), (len(z), 1))
        column = self.column(z - self.centre[rate, self.side :])
        _descend(w, column, self.cost, self.centre[rate].astype(np.int64), self.scale[rate].astype(np.int64),
                 self.weight.astype(np.int64), np.empty(column.shape[1], np.int64))  # fmt: skip
        return w

    def encode(self, z: np.ndarray, rate: int) -> bytes:
        """Encode codes.

        Parameters
        ----------
        z : numpy.ndarray
            int64 ``[n, d]``, of at most 31 bits with their sign.
        rate : int
            Which of the K rates.

        Returns
        -------
        bytes
            An ANS bitstream of w, then of z.
        """
        w, out = self.search(z, rate), writer("ans")
        index, values = self.indices(w, rate), np.concatenate([w, z], 1) - self.centre[rate]
        for part in (slice(self.side), slice(self.side, None)):
            for k, where in self._groups(index[:, part]):
                self._of(k).write(out, values[:, part][where][:, None])
        return out.getvalue()

    def decode(self, data: bytes, count: int, rate: int) -> np.ndarray:
        """Inverse of `encode`: z int64 ``[count, d]`` of `count` signals."""
        source, values = reader("ans", data), np.zeros((count, self.scale.shape[1]), np.int64)
        for part in (slice(self.side), slice(self.side, None)):
            index = self.indices(values[:, : self.side], rate)[:, part]
            for k, where in self._groups(index):
                values[:, part][where] = self._of(k).read(source, int(where.sum()))[:, 0]
            values[:, part] += self.centre[rate, part]
        return values[:, self.side :]

    def _groups(self, index: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Each scale in use, and where: values are coded scale by scale."""
        return [(int(scale), index == scale) for scale in np.unique(index)]

    def _of(self, k: int) -> Tables:
        """The table of one scale."""
        return Tables(self.tables.offset[k : k + 1], self.tables.frequency[k : k + 1])


@outer
def _descend(
    w: np.ndarray, column: np.ndarray, cost: np.ndarray, centre: np.ndarray, scale: np.ndarray, weight: np.ndarray,
    total: np.ndarray,
) -> None:  # fmt: skip
    """Improve w ``[n, r]`` in place by coordinate descent; `total` int64 ``[d]`` is scratch.

    Each number of w makes the best of a few moves of fixed lengths, until none saves bits or `_SWEEPS` are over.
    `column` ``[n, d]`` are the columns of `cost` for z.
    """
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
                side_cost = cost[min(max(scale[j] >> SHIFT, 0), last)]
                best, best_move = 0.0, 0
                for step in _STEPS:
                    for move in (-step, step):
                        if abs(w[n, j] + move) >= _LIMIT:
                            continue
                        residual = w[n, j] - centre[j]
                        change = (
                            side_cost[min(max(residual + move, -half), half) + half]
                            - side_cost[min(max(residual, -half), half) + half]
                        )
                        for i in range(d):
                            old = min(max(total[i] >> SHIFT, 0), last)
                            new = min(max((total[i] + move * weight[i, j]) >> SHIFT, 0), last)
                            change += cost[new, column[n, i]] - cost[old, column[n, i]]
                        if change < best - 1e-9:
                            best, best_move = change, move
                if best_move != 0:
                    w[n, j] += best_move
                    moved = True
                    for i in range(d):
                        total[i] += best_move * weight[i, j]
            if not moved:
                break


def warm() -> None:
    """Compile what `Hyperprior.search` runs, before it is needed."""
    one = np.zeros((1, 1), np.int64)
    _descend(one, one, np.zeros((1, 3)), np.zeros(2, np.int64), np.zeros(2, np.int64), one, np.zeros(1, np.int64))
