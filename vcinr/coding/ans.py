"""One ANS bitstream a chunk: symbols under integer frequency tables, written and read in the same order.

constriction's ANS coder is a stack; `Writer` collects the calls and pushes them in reverse at the end, so that
`Reader` pops them in the order they were written and every part of a chunk shares one flush.
Frequencies are integers summing to 2**PRECISION; the probabilities handed to constriction are these integers
divided by that power of two, hence exact, and the bitstream is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np

from vcinr.errors import CorruptError

PRECISION = 16
TOTAL = 1 << PRECISION
_LIMB = 16


def quantise_frequencies(weights: np.ndarray) -> np.ndarray:
    """Integer frequencies >= 1 summing to TOTAL, close to proportional to the integers `weights` ``[S]``.

    Integer arithmetic alone, so writer and reader agree. Raises ValueError for S > TOTAL / 2.
    """
    weights = np.asarray(weights, np.int64)
    free = TOTAL - len(weights)
    if free < len(weights):
        raise ValueError(f"{len(weights)} symbols do not fit {PRECISION}-bit frequencies")
    total = max(1, int(weights.sum()))
    frequencies = 1 + weights * free // total
    frequencies[int(np.argmax(weights))] += TOTAL - int(frequencies.sum())
    return frequencies


def _categorical(frequencies: np.ndarray) -> Any:
    return constriction.stream.model.Categorical(np.asarray(frequencies, np.float64) / TOTAL, perfect=False)


def _limbs(width: int) -> Iterator[tuple[int, int]]:
    """(shift, bits) of the limbs of at most 16 bits that raw bits are coded in."""
    for shift in range(0, width, _LIMB):
        yield shift, min(_LIMB, width - shift)


class Writer:
    """Collects symbols; `getvalue` gives the bitstream."""

    def __init__(self) -> None:
        self._calls: list[tuple[np.ndarray, Any]] = []

    def fork(self) -> Writer:
        """A writer that goes on from here on its own."""
        copy = Writer()
        copy._calls = list(self._calls)
        return copy

    def symbols(self, symbols: np.ndarray, frequencies: np.ndarray) -> None:
        """Symbols in [0, S), iid under `frequencies` ``[S]``."""
        symbols = np.ascontiguousarray(symbols, np.int32).ravel()
        if symbols.size == 0 or len(frequencies) < 2:
            return
        if symbols.min() < 0 or symbols.max() >= len(frequencies):
            raise ValueError("symbol outside its table")
        self._calls.append((symbols, _categorical(frequencies)))

    def bits(self, values: np.ndarray, width: int) -> None:
        """Non-negative integers below 2**width, uniformly."""
        values = np.asarray(values, np.int64).ravel()
        for shift, n in _limbs(width if values.size else 0):
            limb = ((values >> shift) & ((1 << n) - 1)).astype(np.int32)
            self._calls.append((limb, constriction.stream.model.Uniform(1 << n)))

    def getvalue(self) -> bytes:
        """The bitstream, a multiple of four bytes."""
        coder = constriction.stream.stack.AnsCoder()
        for symbols, model in reversed(self._calls):
            coder.encode_reverse(symbols, model)
        return coder.get_compressed().astype("<u4").tobytes()


class Reader:
    """Reads back, in order, what a `Writer` wrote; the caller has checked a checksum over `data` before."""

    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise CorruptError("bitstream length is no multiple of four")
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        try:
            # A few likely symbols fit the coder's state alone: their bitstream is empty.
            self._coder = constriction.stream.stack.AnsCoder(*([words] if len(words) else []))
        except ValueError:
            raise CorruptError("bitstream does not end as one") from None

    def symbols(self, count: int, frequencies: np.ndarray) -> np.ndarray:
        """`count` symbols, int32."""
        if count == 0 or len(frequencies) < 2:
            return np.zeros(count, np.int32)
        return self._coder.decode(_categorical(frequencies), count)

    def bits(self, count: int, width: int) -> np.ndarray:
        """`count` integers of `width` bits, int64."""
        values = np.zeros(count, np.int64)
        for shift, n in _limbs(width if count else 0):
            limb = self._coder.decode(constriction.stream.model.Uniform(1 << n), count)
            values |= limb.astype(np.int64) << shift
        return values
