"""Integers of any size as tokens of a small alphabet plus raw bits, and adaptive tables over the tokens.

|v| <= DIRECT has a token of its own; a larger magnitude falls into half-octave buckets whose offset follows as
raw bits. Tokens are coded by counts of what was coded before in the same context: integers on both sides, no
side information, and the tables adapt within the chunk.
"""

from __future__ import annotations

import numpy as np

from vcinr.coding.ans import Reader, Writer, quantise_frequencies
from vcinr.errors import CorruptError

DIRECT = 24
_OCTAVES = 40
# Half-octave bucket edges from DIRECT + 1 on; bucket k holds edges[k] <= |v| < edges[k + 1] = edges[k] + 2**bits[k].
_BITS = np.repeat(np.arange(3, 3 + _OCTAVES), 2)
_EDGES = DIRECT + 1 + np.concatenate([[0], np.cumsum(1 << _BITS.astype(np.int64))])
LIMIT = int(_EDGES[-1]) - 1
"""Largest magnitude that can be coded."""
MAGNITUDES = DIRECT + 1 + len(_BITS)
ALPHABET = 2 * MAGNITUDES - 1


def tokenise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """values int64 ``[n]``, |v| <= LIMIT -> tokens ``[n]``, raw-bit widths ``[n]``, raw bits ``[n]``."""
    magnitude = np.abs(values)
    bucket = np.searchsorted(_EDGES, magnitude, side="right") - 1
    big = bucket >= 0
    safe = np.where(big, bucket, 0)
    rank = np.where(big, DIRECT + 1 + safe, magnitude)
    width = np.where(big, _BITS[safe], 0)
    extra = np.where(big, magnitude - _EDGES[safe], 0)
    return np.where(values < 0, MAGNITUDES - 1 + rank, rank), width, extra


def write(writer: Writer, values: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Write int64 `values` under one table; returns their tokens."""
    tokens, width, extra = tokenise(values)
    writer.symbols(tokens, frequencies)
    for w in np.unique(width[width > 0]):
        writer.bits(extra[width == w], int(w))
    return tokens


def read(reader: Reader, count: int, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read `count` values; returns (values int64, tokens)."""
    tokens = reader.symbols(count, frequencies).astype(np.int64)
    if tokens.size and tokens.max() >= ALPHABET:
        raise CorruptError("token outside its alphabet")
    negative = tokens >= MAGNITUDES
    rank = np.where(negative, tokens - (MAGNITUDES - 1), tokens)
    big = rank > DIRECT
    bucket = np.where(big, rank - DIRECT - 1, 0)
    width = np.where(big, _BITS[bucket], 0)
    magnitude = np.where(big, _EDGES[bucket], rank)
    for w in np.unique(width[width > 0]):
        chosen = width == w
        magnitude[chosen] += reader.bits(int(chosen.sum()), int(w))
    return np.where(negative, -magnitude, magnitude), tokens


class Adaptive:
    """Tables of `contexts` contexts, each the counts of its own past over a geometric prior.

    ``spread`` is the prior's scale: the magnitude at which its density has halved; a writer chooses it and
    tells the reader. Counts halve when they reach a limit, so that a table follows its data.
    """

    def __init__(self, contexts: int, spread: int) -> None:
        rank = np.arange(MAGNITUDES)
        size = np.concatenate([np.arange(DIRECT + 1), _EDGES[:-1]])
        # Integer prior: 2**-(size / spread) by shifts, times the bucket's width, never quite zero.
        log2 = np.minimum(size // spread, 40)
        per_value = (np.int64(1) << 40) >> log2
        fraction = size % spread
        per_value = per_value * (2 * spread - fraction) // (2 * spread)
        width = np.where(
            rank > DIRECT,
            np.int64(1) << np.minimum(np.concatenate([np.zeros(DIRECT + 1, int), _BITS]), 16),
            1,
        )
        weight = np.minimum(per_value * width, np.int64(1) << 40)
        both = np.concatenate([weight, weight[1:]])
        prior = 8 * _STEP * both // max(1, int(both.sum()) // 4) + 1
        self._counts = np.tile(prior, (contexts, 1))

    def table(self, context: int) -> np.ndarray:
        """Current integer frequencies of `context`."""
        return quantise_frequencies(self._counts[context])

    def update(self, context: int, tokens: np.ndarray) -> None:
        """Learn from tokens coded in `context`."""
        counts = self._counts[context]
        counts += _STEP * np.bincount(tokens, minlength=ALPHABET)
        if counts.sum() > _FULL:
            counts -= counts >> 1


_STEP = 32
_FULL = _STEP << 14
