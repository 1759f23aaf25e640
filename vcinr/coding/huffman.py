"""Canonical Huffman codes of integer frequencies (Huffman 1952; Schwartz & Kallick 1964).

Which of several optimal codes is taken depends on integers alone: the two nodes of least weight are joined, of equal
ones those made first (entries in their order, then joined nodes in theirs), and of the lengths so found the canonical
code: codes of a length are successive numbers in the order of their entries, after those of all smaller lengths.
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
    """code and length in bits of every entry, ``[S]`` int64, and what a decoder needs.

    order ``[S]``: entries by code; first, start ``[longest + 2]``: the first code of each length, and its place in
    `order`.
    """

    code: np.ndarray
    length: np.ndarray
    order: np.ndarray
    first: np.ndarray
    start: np.ndarray


def codebook(frequencies: np.ndarray) -> Codebook:
    """The code of two or more integer frequencies >= 1 ``[S]``; where they sum to 2**16, it has up to 24 bits."""
    return _codebook(np.ascontiguousarray(frequencies, np.int64).tobytes())


@lru_cache(maxsize=4096)
def _codebook(frequencies: bytes) -> Codebook:
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
    """The bits of codes, the highest of each first, uint8."""
    place = length[:, None] - 1 - np.arange(int(length.max(initial=0)))
    return ((code[:, None] >> np.maximum(place, 0)) & 1).astype(np.uint8)[place >= 0]


def decode(bits: np.ndarray, position: int, count: int, book: Codebook) -> tuple[np.ndarray, int]:
    """`count` entries from `position` on, int32, and where they end; CorruptError where the bits end before."""
    found = np.empty(count, np.int32)
    end = _decode(bits, position, book.order, book.first, book.start, found)
    if end < 0:
        raise CorruptError("bitstream ends too early")
    return found, end


@outer
def _decode(
    bits: np.ndarray, position: int, order: np.ndarray, first: np.ndarray, start: np.ndarray, found: np.ndarray
) -> int:
    for k in range(len(found)):
        code, length = 0, 0
        while True:
            if position >= len(bits):
                return -1
            code, length = 2 * code + bits[position], length + 1
            position += 1
            # The code is complete, so that some length fits before `start` ends.
            at = code - first[length]
            if at < start[length + 1] - start[length]:
                found[k] = order[start[length] + at]
                break
    return position
