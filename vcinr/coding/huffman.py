"""Canonical Huffman codes of integer frequencies (Huffman 1952; Schwartz & Kallick 1964).

Of several optimal codes, integers alone decide which is used. The two nodes of least weight are joined; of equal
weights those made first (entries in their order, then joined nodes in theirs). The resulting lengths define a canonical
code: codes of equal length are successive numbers in the order of their entries, and shorter codes come first.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vcinr.compiled import outer
from vcinr.errors import CorruptError


@dataclass(frozen=True)
class Codebook:
    """A code, and what its decoder needs.

    Attributes
    ----------
    code, length : numpy.ndarray
        int64 ``[S]``: the code of each entry, and its length in bits.
    order : numpy.ndarray
        int64 ``[S]``: the entries, sorted by their codes.
    first, start : numpy.ndarray
        int64 ``[longest + 2]``: the first code of each length, and its position in `order`.
    """

    code: np.ndarray
    length: np.ndarray
    order: np.ndarray
    first: np.ndarray
    start: np.ndarray


def codebook(frequencies: np.ndarray) -> Codebook:
    """The code of a table of two or more integer frequencies >= 1 ``[S]``.

    Where the frequencies sum to 2^16, its codes have at most 24 bits.
    """
    return _codebook(np.ascontiguousarray(frequencies, np.int64).tobytes())


@lru_cache(maxsize=4096)
def _codebook(frequencies: bytes) -> Codebook:
    """`codebook`, of the frequencies as bytes, by which results are cached."""
    length = _lengths(np.frombuffer(frequencies, np.int64).tolist())
    order = np.argsort(length, kind="stable")
    count = np.bincount(length, minlength=int(length.max()) + 2)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    first = np.zeros(len(count), np.int64)
    for n in range(1, len(count)):
        first[n] = (first[n - 1] + count[n - 1]) << 1
    code = np.empty(len(length), np.int64)
    code[order] = first[length[order]] + np.arange(len(order)) - start[length[order]]
    return Codebook(code, length, order, first, start)


def _lengths(weights: list[int]) -> np.ndarray:
    """Lengths in bits of an optimal code: how often each entry's node is joined."""
    entries = len(weights)
    heap = [(weight, node) for node, weight in enumerate(weights)]
    heapq.heapify(heap)
    parent = [0] * (2 * entries - 1)
    for node in range(entries, 2 * entries - 1):
        (a, left), (b, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[left] = parent[right] = node
        heapq.heappush(heap, (a + b, node))
    depth = [0] * len(parent)
    for node in range(len(parent) - 2, -1, -1):
        depth[node] = depth[parent[node]] + 1
    return np.array(depth[:entries], np.int64)


def bits_of(code: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Concatenate codes.

    Parameters
    ----------
    code, length : numpy.ndarray
        Numbers, and their lengths in bits.

    Returns
    -------
    numpy.ndarray
        uint8, one bit each, the highest bit of each code first.
    """
    place = length[:, None] - 1 - np.arange(int(length.max(initial=0)))
    return ((code[:, None] >> np.maximum(place, 0)) & 1).astype(np.uint8)[place >= 0]


def decode(bits: np.ndarray, position: int, count: int, book: Codebook) -> tuple[np.ndarray, int]:
    """Decode entries.

    Parameters
    ----------
    bits : numpy.ndarray
        uint8, one bit each.
    position : int
        Index of the first bit.
    count : int
        Number of entries.
    book : Codebook
        Their code.

    Returns
    -------
    entries : numpy.ndarray
        int32 ``[count]``.
    position : int
        Index of the bit after the last.

    Raises
    ------
    CorruptError
        Where the bits end too early.
    """
    entries = np.empty(count, np.int32)
    end = _decode(bits, position, book.order, book.first, book.start, entries)
    if end < 0:
        raise CorruptError("bitstream ends too early")
    return entries, end


@outer
def _decode(
    bits: np.ndarray, position: int, order: np.ndarray, first: np.ndarray, start: np.ndarray, entries: np.ndarray
) -> int:
    """Fill in entries; returns the position after the last bit, or -1 where the bits end too early."""
    for k in range(len(entries)):
        code, length = 0, 0
        while True:
            if position >= len(bits):
                return -1
            code, length = 2 * code + bits[position], length + 1
            position += 1
            # This loop ends within `start`: the code is complete, so that every sequence of bits has a code.
            rank = code - first[length]
            if rank < start[length + 1] - start[length]:
                entries[k] = order[start[length] + rank]
                break
    return position
