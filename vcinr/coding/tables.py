"""Static tables of integers: which symbols they have, and how likely each one is.

Entry 0 of a table is the escape, for values that have no symbol; entry 1 + j stands for the value ``offset + j``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcinr.coding.static import TOTAL, Reader, Writer

ESCAPE_BITS = 32
"""Raw bits of a value that has no symbol."""
MAX_LEVEL = 65
"""Largest level: that of a frequency of 2^16."""
_WEIGHTS = np.array([0] + [math.isqrt(math.isqrt(1 << (k + 16))) for k in range(MAX_LEVEL)], np.int64)
"""Weight of each level: 0 for level 0, and 16 * 2^(k / 4), rounded down, for level k + 1."""


def quantise_frequencies(weights: np.ndarray) -> np.ndarray:
    """Integer frequencies in about the proportions of integer weights.

    Writer and reader agree on them, because only integer arithmetic is used.

    Parameters
    ----------
    weights : numpy.ndarray
        Non-negative integers ``[S]``.

    Returns
    -------
    numpy.ndarray
        int64 ``[S]``: each at least 1, with the sum TOTAL.

    Raises
    ------
    ValueError
        For S > TOTAL / 2.
    """
    weights = np.asarray(weights, np.int64)
    free = TOTAL - len(weights)
    if free < len(weights):
        raise ValueError(f"{len(weights)} symbols are too many for frequencies that sum to {TOTAL}")
    total = max(1, int(weights.sum()))
    frequencies = 1 + weights * free // total
    frequencies[int(np.argmax(weights))] += TOTAL - int(frequencies.sum())
    return frequencies


def levels_of(frequency: np.ndarray) -> np.ndarray:
    """Frequencies on a logarithmic scale of a quarter of an octave, which take an eighth of the bytes in a model.

    Parameters
    ----------
    frequency : numpy.ndarray
        ``[..., S]``, 0 where padded.

    Returns
    -------
    numpy.ndarray
        uint8 ``[..., S]``: from 1 on, and 0 where padded.
    """
    with np.errstate(divide="ignore"):
        return np.where(frequency > 0, np.rint(4 * np.log2(frequency)) + 1, 0).astype(np.uint8)


def frequencies_of(level: np.ndarray) -> np.ndarray:
    """Integer frequencies of levels, in the way of `quantise_frequencies`.

    Parameters
    ----------
    level : numpy.ndarray
        uint8 ``[..., S]``, 0 where padded.

    Returns
    -------
    numpy.ndarray
        int32 ``[..., S]``: each at least 1, or 0 where padded; rows sum to TOTAL.
    """
    weights = _WEIGHTS[level]
    free = TOTAL - np.count_nonzero(level, axis=-1)[..., None]
    frequencies = np.where(level > 0, 1 + weights * free // weights.sum(-1, keepdims=True), 0)
    largest = weights.argmax(-1)[..., None]
    rest = TOTAL - frequencies.sum(-1, keepdims=True) + np.take_along_axis(frequencies, largest, -1)
    np.put_along_axis(frequencies, largest, rest, -1)
    return frequencies.astype(np.int32)


def sound(level: np.ndarray) -> bool:
    """Whether an array holds levels ``[..., S]`` that `frequencies_of` can take, with padding only at the end."""
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
    """Tables of m variables.

    Attributes
    ----------
    offset : numpy.ndarray
        ``[m]``: the value of entry 1 of each table.
    frequency : numpy.ndarray
        ``[m, S]``: integer frequencies; rows sum to TOTAL and are padded with 0 at the end.
    """

    offset: np.ndarray
    frequency: np.ndarray

    def _row(self, i: int) -> np.ndarray:
        """The table of variable i, without padding."""
        row = self.frequency[i]
        return row[row > 0]

    def _symbols(self, column: np.ndarray, i: int, row: np.ndarray) -> np.ndarray:
        """The entries of values of variable i; 0, the escape, for those without a symbol."""
        symbol = column - self.offset[i] + 1
        return np.where((symbol >= 1) & (symbol < len(row)), symbol, 0)

    def bits(self, z: np.ndarray) -> float:
        """Number of bits of values.

        Parameters
        ----------
        z : numpy.ndarray
            ``[n, m]``, or the first columns of it for the first variables.

        Returns
        -------
        float
            The sum of -log2 of their probabilities and, for escapes, of the raw bits.
        """
        symbol = z - self.offset[: z.shape[1]] + 1
        symbol = np.where((symbol > 0) & (symbol < self.frequency.shape[1]), symbol, 0)
        cost = self._bits
        return float(cost.ravel()[symbol + np.arange(z.shape[1]) * cost.shape[1]].sum())

    def costs(self) -> np.ndarray:
        """Bits of each symbol.

        Returns
        -------
        numpy.ndarray
            ``[m, S - 1]`` for the values ``offset[i] + j``; infinite where a table has no such symbol.
        """
        with np.errstate(divide="ignore"):
            return -np.log2(self.frequency[:, 1:] / TOTAL)

    @cached_property
    def _bits(self) -> np.ndarray:
        """Bits of entries ``[m, S]``; an entry that a table lacks costs as much as its escape."""
        with np.errstate(divide="ignore"):
            bits = -np.log2(self.frequency / TOTAL)
        bits[:, 0] += ESCAPE_BITS
        return np.where(np.isinf(bits), bits[:, :1], bits)

    def write(self, writer: Writer, z: np.ndarray) -> None:
        """Write values z ``[n, m]``, of 32 bits with their sign, variable by variable."""
        for i in range(z.shape[1]):
            row = self._row(i)
            symbol = self._symbols(z[:, i], i, row)
            writer.symbols(symbol, row)
            writer.bits(z[symbol == 0, i] + (1 << (ESCAPE_BITS - 1)), ESCAPE_BITS)

    def read(self, reader: Reader, count: int) -> np.ndarray:
        """Inverse of `write`: z int64 ``[count, m]``."""
        z = np.empty((count, len(self.offset)), np.int64)
        for i in range(z.shape[1]):
            symbol = reader.symbols(count, self._row(i)).astype(np.int64)
            z[:, i] = symbol - 1 + self.offset[i]
            escaped = symbol == 0
            z[escaped, i] = reader.bits(int(escaped.sum()), ESCAPE_BITS) - (1 << (ESCAPE_BITS - 1))
        return z
