"""Entropy coders of symbols with given integer frequencies: ANS, range coding and Huffman codes.

A `Writer` collects symbols and raw bits, and the `Reader` of the same coder reads them in the order in which they were
written. The ANS and range coders are constriction's. The probabilities handed to it are integer frequencies divided by
2**PRECISION, hence exact, so the bitstream is the same on every machine. Its ANS coder is a stack, so the writer
encodes all its calls in reverse at the end.
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
_LIMB = 16  # raw bits are coded in pieces of at most so many, which constriction's 24-bit probabilities can hold


class Writer(Protocol):
    """Collects symbols and raw bits for a bitstream."""

    def symbols(self, symbols: np.ndarray, frequencies: np.ndarray) -> None:
        """Append symbols with the same table.

        Parameters
        ----------
        symbols : numpy.ndarray
            Integers in [0, S).
        frequencies : numpy.ndarray
            ``[S]``: the table, integers of at least 1 that sum to TOTAL.

        Raises
        ------
        ValueError
            For a symbol outside the table.
        """
        ...

    def bits(self, values: np.ndarray, width: int) -> None:
        """Append raw bits: non-negative integers below 2**width."""
        ...

    def getvalue(self) -> bytes:
        """The bitstream."""
        ...


class Reader(Protocol):
    """Reads back, in order, what a `Writer` wrote.

    The caller has checked a checksum of the bytes before. Bytes that no writer makes raise CorruptError, as far as they
    can be told.
    """

    def symbols(self, count: int, frequencies: np.ndarray) -> np.ndarray:
        """The next `count` symbols, int32, under the table `frequencies`."""
        ...

    def bits(self, count: int, width: int) -> np.ndarray:
        """The next `count` integers of `width` raw bits, int64."""
        ...


def checked(symbols: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Check symbols against their table.

    Returns
    -------
    numpy.ndarray
        int32 ``[n]``; empty where the table has one entry, since then nothing is coded.

    Raises
    ------
    ValueError
        For a symbol outside the table.
    """
    symbols = np.ascontiguousarray(symbols, np.int32).ravel()
    if symbols.size and (symbols.min() < 0 or symbols.max() >= len(frequencies)):
        raise ValueError("symbol outside its table")
    return symbols if len(frequencies) > 1 else symbols[:0]


def _categorical(frequencies: np.ndarray) -> Any:
    return constriction.stream.model.Categorical(np.asarray(frequencies, np.float64) / TOTAL, perfect=False)


def _limbs(width: int) -> Iterator[tuple[int, int]]:
    """(shift, bits) of the pieces, of at most 16 bits, in which raw bits are coded."""
    for shift in range(0, width, _LIMB):
        yield shift, min(_LIMB, width - shift)


class _StreamWriter:
    """Common part of the ANS and range writers: the calls in their order."""

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
    """Common part of the ANS and range readers: how tables become models."""

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
    """Writer of asymmetric numeral systems (Duda 2013); its bitstreams are multiples of four bytes."""

    def getvalue(self) -> bytes:
        """The bitstream."""
        coder = constriction.stream.stack.AnsCoder()
        for symbols, model in reversed(self._calls):
            coder.encode_reverse(symbols, model)
        return coder.get_compressed().astype("<u4").tobytes()


class AnsReader(_StreamReader):
    """Reader of bitstreams of `AnsWriter`."""

    def __init__(self, data: bytes) -> None:
        words = _words(data)
        try:
            # A few likely symbols fit into the coder's state: their bitstream is empty.
            self._coder = constriction.stream.stack.AnsCoder(*([words] if len(words) else []))
        except ValueError:
            raise CorruptError("an ANS bitstream does not end where it should") from None

    def _decode(self, model: Any, count: int) -> np.ndarray:
        return self._coder.decode(model, count)


class RangeWriter(_StreamWriter):
    """Writer of range coding (Martin 1979); its bitstreams are multiples of four bytes."""

    def getvalue(self) -> bytes:
        """The bitstream."""
        coder = constriction.stream.queue.RangeEncoder()
        for symbols, model in self._calls:
            coder.encode(symbols, model)
        return coder.get_compressed().astype("<u4").tobytes()


class RangeReader(_StreamReader):
    """Reader of bitstreams of `RangeWriter`."""

    def __init__(self, data: bytes) -> None:
        self._coder = constriction.stream.queue.RangeDecoder(_words(data))

    def _decode(self, model: Any, count: int) -> np.ndarray:
        try:
            return self._coder.decode(model, count)
        except AssertionError:
            raise CorruptError("this is not a bitstream of the range coder") from None


def _words(data: bytes) -> np.ndarray:
    if len(data) % 4:
        raise CorruptError("the length of a bitstream is not a multiple of four")
    return np.frombuffer(data, "<u4").astype(np.uint32)


class HuffmanWriter:
    """Writer of canonical Huffman codes (:mod:`vcinr.coding.huffman`).

    Codes follow one another without a gap; zeros fill the last byte.
    """

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
    """Reader of bitstreams of `HuffmanWriter`."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._position = np.unpackbits(np.frombuffer(data, np.uint8)), 0

    def symbols(self, count: int, frequencies: np.ndarray) -> np.ndarray:
        """As `Reader.symbols`."""
        if len(frequencies) < 2:
            return np.zeros(count, np.int32)
        entries, self._position = huffman.decode(self._bits, self._position, count, huffman.codebook(frequencies))
        return entries

    def bits(self, count: int, width: int) -> np.ndarray:
        """As `Reader.bits`."""
        end = self._position + count * width
        if end > len(self._bits):
            raise CorruptError("bitstream ends too early")
        digits = self._bits[self._position : end].reshape(count, width).astype(np.int64)
        self._position = end
        return (digits << np.arange(width - 1, -1, -1)).sum(1)


_STATIC: dict[str, tuple[type, type]] = {
    "ans": (AnsWriter, AnsReader), "range": (RangeWriter, RangeReader), "huffman": (HuffmanWriter, HuffmanReader),
}  # fmt: skip
STATIC = tuple(_STATIC)
"""Names of the coders."""


def writer(coder: str) -> Writer:
    """A new writer for one of the coders in `STATIC`."""
    return _STATIC[coder][0]()


def reader(coder: str, data: bytes) -> Reader:
    """A reader of a bitstream from the writer of the same coder."""
    return _STATIC[coder][1](data)
