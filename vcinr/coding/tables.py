"""Static tables of integers: what symbols they have, and how likely each is, in integer frequencies.

A table's entry 0 is the escape, for values that have no symbol; entry 1 + j stands for ``offset + j``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcinr.coding.static import TOTAL, Reader, Writer

ESCAPE_BITS = 32
MAX_LEVEL = 65
_WEIGHTS = np.array([0] + [math.isqrt(math.isqrt(1 << (k + 16))) for k in range(MAX_LEVEL)], np.int64)
"""16 * 2^(k / 4), rounded down, of level k + 1."""


def quantise_frequencies(weights: np.ndarray) -> np.ndarray:
    """Integer frequencies >= 1 summing to TOTAL, close to proportional to the integers `weights` ``[S]``.

    Integer arithmetic alone, so writer and reader agree. Raises ValueError for S > TOTAL / 2.
    """
    weights = np.asarray(weights, np.int64)
    free = TOTAL - len(weights)
    if free < len(weights):
        raise ValueError(f"{len(weights)} symbols do not fit {TOTAL} as the sum of frequencies")
    total = max(1, int(weights.sum()))
    frequencies = 1 + weights * free // total
    frequencies[int(np.argmax(weights))] += TOTAL - int(frequencies.sum())
    return frequencies


def levels_of(frequency: np.ndarray) -> np.ndarray:
    """Frequencies ``[..., S]``, 0 where padded, in quarters of an octave, uint8: a table in an eighth of its bytes."""
    with np.errstate(divide="ignore"):
        return np.where(frequency > 0, np.rint(4 * np.log2(frequency)) + 1, 0).astype(np.uint8)


def frequencies_of(level: np.ndarray) -> np.ndarray:
    """Integer frequencies of levels ``[..., S]``, int32: see `quantise_frequencies`."""
    weights = _WEIGHTS[level]
    free = TOTAL - np.count_nonzero(level, axis=-1)[..., None]
    found = np.where(level > 0, 1 + weights * free // weights.sum(-1, keepdims=True), 0)
    most = weights.argmax(-1)[..., None]
    rest = TOTAL - found.sum(-1, keepdims=True) + np.take_along_axis(found, most, -1)
    np.put_along_axis(found, most, rest, -1)
    return found.astype(np.int32)


def sound(level: np.ndarray) -> bool:
    """Whether these are levels ``[..., S]`` of tables, as `frequencies_of` takes them: padded at the end alone."""
    return bool(
        level.dtype == np.uint8
        and 0 not in level.shape
        and level.shape[-1] <= TOTAL // 2
        and level.max() <= MAX_LEVEL
        and (level[..., 0] > 0).all()
        and not ((level[..., 1:] > 0) & (level[..., :-1] == 0)).any()
    )


@dataclass(frozen=True)
class Tables:
    """Tables of m variables: offset ``[m]`` and frequency ``[m, S]``, rows that sum to TOTAL and are padded with 0."""

    offset: np.ndarray
    frequency: np.ndarray

    def _row(self, i: int) -> np.ndarray:
        row = self.frequency[i]
        return row[row > 0]

    def _symbols(self, column: np.ndarray, i: int, row: np.ndarray) -> np.ndarray:
        symbol = column - self.offset[i] + 1
        return np.where((symbol >= 1) & (symbol < len(row)), symbol, 0)

    def bits(self, z: np.ndarray) -> float:
        """Rate of z ``[n, m]`` in bits, or of the first variables: -log2 of the frequencies, and escapes' raw bits."""
        symbol = z - self.offset[: z.shape[1]] + 1
        symbol = np.where((symbol > 0) & (symbol < self.frequency.shape[1]), symbol, 0)
        cost = self._bits
        return float(cost.ravel()[symbol + np.arange(z.shape[1]) * cost.shape[1]].sum())

    def costs(self) -> np.ndarray:
        """Bits of the symbols ``offset[i] + j`` ``[m, S - 1]``; infinite where a table has none."""
        with np.errstate(divide="ignore"):
            return -np.log2(self.frequency[:, 1:] / TOTAL)

    @cached_property
    def _bits(self) -> np.ndarray:
        """Bits of entries ``[m, S]``; what has no symbol escapes."""
        with np.errstate(divide="ignore"):
            bits = -np.log2(self.frequency / TOTAL)
        bits[:, 0] += ESCAPE_BITS
        return np.where(np.isinf(bits), bits[:, :1], bits)

    def write(self, writer: Writer, z: np.ndarray) -> None:
        """Code z ``[n, m]``, of 32 bits with their sign, variable by variable."""
        for i in range(z.shape[1]):
            row = self._row(i)
            symbol = self._symbols(z[:, i], i, row)
            writer.symbols(symbol, row)
            writer.bits(z[symbol == 0, i] + (1 << (ESCAPE_BITS - 1)), ESCAPE_BITS)

    def read(self, reader: Reader, count: int) -> np.ndarray:
        """Inverse of `write`: z ``[count, m]`` int64."""
        z = np.empty((count, len(self.offset)), np.int64)
        for i in range(z.shape[1]):
            symbol = reader.symbols(count, self._row(i)).astype(np.int64)
            z[:, i] = symbol - 1 + self.offset[i]
            escaped = symbol == 0
            z[escaped, i] = reader.bits(int(escaped.sum()), ESCAPE_BITS) - (1 << (ESCAPE_BITS - 1))
        return z
