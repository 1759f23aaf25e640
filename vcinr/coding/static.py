"""Entropy coders of symbols under given integer frequencies: ANS, range coding, Huffman codes.

One `Writer` collects symbols and raw bits, and the `Reader` of the same coder reads them in the order in which they
were written. ANS and range coder are constriction's: the probabilities handed to it are integer frequencies divided by
2**PRECISION, hence exact, and the bitstream is the same on every machine. Its ANS coder is a stack, so its writer
pushes the calls in reverse at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import constriction
import numpy as np

from vcinr.coding import huffman
from vcinr.errors import CorruptError

PRECISION = 16
TOTAL = 1 << PRECISION
_LIMB = 16


class Writer(Protocol):
    """Collects symbols; `getvalue` gives the bitstream."""

    def symbols(self, symbols: np.ndarray, frequencies: np.ndarray) -> None:
        """Symbols in [0, S), iid under `frequencies` ``[S]``, each >= 1, that sum to TOTAL; ValueError for others."""
        ...

    def bits(self, values: np.ndarray, width: int) -> None:
        """Non-negative integers below 2**width, uniformly."""
        ...

    def getvalue(self) -> bytes:
        """The bitstream."""
        ...


class Reader(Protocol):
    """Reads back, in order, what a `Writer` wrote; the caller has checked a checksum over its bytes before.

    Raises CorruptError for bytes that no writer writes, as far as they can be told.
    """

    def symbols(self, count: int, frequencies: np.ndarray) -> np.ndarray:
        """`count` symbols, int32."""
        ...

    def bits(self, count: int, width: int) -> np.ndarray:
        """`count` integers of `width` bits, int64."""
        ...


def checked(symbols: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """The symbols, int32 ``[n]``; none where their table leaves no choice, and nothing is coded."""
    symbols = np.ascontiguousarray(symbols, np.int32).ravel()
    if symbols.size and (symbols.min() < 0 or symbols.max() >= len(frequencies)):
        raise ValueError("symbol outside its table")
    return symbols if len(frequencies) > 1 else symbols[:0]


def _categorical(frequencies: np.ndarray) -> Any:
    return constriction.stream.model.Categorical(np.asarray(frequencies, np.float64) / TOTAL, perfect=False)


def _limbs(width: int) -> Iterator[tuple[int, int]]:
    """(shift, bits) of the limbs of at most 16 bits that raw bits are coded in."""
    for shift in range(0, width, _LIMB):
        yield shift, min(_LIMB, width - shift)


class _StreamWriter:
    """What the writers of stream codes share: the calls, in order."""

    def __init__(self) -> None:
        self._calls: list[tuple[np.ndarray, Any]] = []

    def symbols(self, symbols: np.ndarray, frequencies: np.ndarray) -> None:
        symbols = checked(symbols, frequencies)
        if symbols.size:
            self._calls.append((symbols, _categorical(frequencies)))

    def bits(self, values: np.ndarray, width: int) -> None:
        values = np.asarray(values, np.int64).ravel()
        for shift, n in _limbs(width if values.size else 0):
            limb = ((values >> shift) & ((1 << n) - 1)).astype(np.int32)
            self._calls.append((limb, constriction.stream.model.Uniform(1 << n)))


class _StreamReader:
    """What the readers of stream codes share: the models."""

    def _decode(self, model: Any, count: int) -> np.ndarray:
        raise NotImplementedError

    def symbols(self, count: int, frequencies: np.ndarray) -> np.ndarray:
        if count == 0 or len(frequencies) < 2:
            return np.zeros(count, np.int32)
        return self._decode(_categorical(frequencies), count)

    def bits(self, count: int, width: int) -> np.ndarray:
        values = np.zeros(count, np.int64)
        for shift, n in _limbs(width if count else 0):
            limb = self._decode(constriction.stream.model.Uniform(1 << n), count)
            values |= limb.astype(np.int64) << shift
        return values


class AnsWriter(_StreamWriter):
    """Asymmetric numeral systems (Duda 2013), a multiple of four bytes."""

    def getvalue(self) -> bytes:
        """The bitstream."""
        coder = constriction.stream.stack.AnsCoder()
        for symbols, model in reversed(self._calls):
            coder.encode_reverse(symbols, model)
        return coder.get_compressed().astype("<u4").tobytes()


class AnsReader(_StreamReader):
    """Reader of `AnsWriter`'s bytes."""

    def __init__(self, data: bytes) -> None:
        words = _words(data)
        try:
            # A few likely symbols fit the coder's state alone: their bitstream is empty.
            self._coder = constriction.stream.stack.AnsCoder(*([words] if len(words) else []))
        except ValueError:
            raise CorruptError("bitstream does not end as one") from None

    def _decode(self, model: Any, count: int) -> np.ndarray:
        return self._coder.decode(model, count)


class RangeWriter(_StreamWriter):
    """Range coding (Martin 1979), a multiple of four bytes."""

    def getvalue(self) -> bytes:
        """The bitstream."""
        coder = constriction.stream.queue.RangeEncoder()
        for symbols, model in self._calls:
            coder.encode(symbols, model)
        return coder.get_compressed().astype("<u4").tobytes()


class RangeReader(_StreamReader):
    """Reader of `RangeWriter`'s bytes."""

    def __init__(self, data: bytes) -> None:
        self._coder = constriction.stream.queue.RangeDecoder(_words(data))

    def _decode(self, model: Any, count: int) -> np.ndarray:
        try:
            return self._coder.decode(model, count)
        except AssertionError:
            raise CorruptError("bitstream is none of a range coder") from None


def _words(data: bytes) -> np.ndarray:
    if len(data) % 4:
        raise CorruptError("bitstream length is no multiple of four")
    return np.frombuffer(data, "<u4").astype(np.uint32)


class HuffmanWriter:
    """Canonical Huffman codes (:mod:`vcinr.coding.huffman`), one after the other, zeros up to the last byte's end."""

    def __init__(self) -> None:
        self._bits: list[np.ndarray] = []

    def symbols(self, symbols: np.ndarray, frequencies: np.ndarray) -> None:
        """As `Writer.symbols`."""
        symbols = checked(symbols, frequencies)
        if symbols.size:
            book = huffman.codebook(frequencies)
            self._bits.append(huffman.bits_of(book.code[symbols], book.length[symbols]))

    def bits(self, values: np.ndarray, width: int) -> None:
        """As `Writer.bits`."""
        values = np.asarray(values, np.int64).ravel()
        self._bits.append(huffman.bits_of(values, np.full(values.size, width)))

    def getvalue(self) -> bytes:
        """The bitstream."""
        return np.packbits(np.concatenate(self._bits)).tobytes() if self._bits else b""


class HuffmanReader:
    """Reader of `HuffmanWriter`'s bytes."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._position = np.unpackbits(np.frombuffer(data, np.uint8)), 0

    def symbols(self, count: int, frequencies: np.ndarray) -> np.ndarray:
        """As `Reader.symbols`."""
        if len(frequencies) < 2:
            return np.zeros(count, np.int32)
        found, self._position = huffman.decode(self._bits, self._position, count, huffman.codebook(frequencies))
        return found

    def bits(self, count: int, width: int) -> np.ndarray:
        """As `Reader.bits`."""
        end = self._position + count * width
        if end > len(self._bits):
            raise CorruptError("bitstream ends too early")
        found = self._bits[self._position : end].reshape(count, width).astype(np.int64)
        self._position = end
        return (found << np.arange(width - 1, -1, -1)).sum(1)


_STATIC: dict[str, tuple[type, type]] = {
    "ans": (AnsWriter, AnsReader), "range": (RangeWriter, RangeReader), "huffman": (HuffmanWriter, HuffmanReader),
}  # fmt: skip
STATIC = tuple(_STATIC)
"""Names of the coders."""


def writer(coder: str) -> Writer:
    """A new writer of one of `STATIC`."""
    return _STATIC[coder][0]()


def reader(coder: str, data: bytes) -> Reader:
    """A reader of what the writer of that coder gave."""
    return _STATIC[coder][1](data)
