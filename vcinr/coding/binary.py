"""Adaptive binary arithmetic coding: context counters, logistic mixing, a range coder; integers throughout.

A decision (one bit) is predicted by `INPUTS` counters, each under a context of its own. Their logits are summed with
weights that learn online (Mahoney 2005, "Adaptive weighing of context models", the logistic mixing of PAQ), and
the bit goes to a byte-wise range coder with carry (Martin 1979; the layout of Subbotin and Pavlov). Counters,
weights and coder are integers and their tables are made with decimal arithmetic, so that every machine parses alike.

Everything runs compiled by Numba; with NUMBA_DISABLE_JIT=1 the same source runs as plain Python, slowly.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit

INPUTS = 6
NODES = 22
"""Decisions of an integer: 0 zero or not, 1 to 20 the magnitude in unary, 21 the sign."""
_SIGN = NODES - 1
_UNARY = NODES - 2
SETS = 10
"""Sets of mixing weights, chosen by the caller."""
LIMIT = 1 << 50
"""Magnitudes from here on cannot be coded."""

_LOGIT = 3071  # logits are in units of 1/256, within +-12
COUNT_LIMIT = 400  # a counter keeps moving by 1 / 400 at least
_LOW, _RANGE, _CACHE, _PENDING, _POSITION = range(5)
_CODE = _LOW  # a reader has a code where a writer has its low end
_WORST = 96  # bytes that one integer may take: 21 decisions of 16 bits, and 101 raw bits


class Coder(NamedTuple):
    """State of a writer or reader.

    state: int64 ``[5]``. counter: uint32 ``[INPUTS, NODES, contexts]``: P(1) in the upper 22 bits, below them the
    number of decisions seen. weight: int64 ``[SETS * NODES, INPUTS]``, 16 fractional bits. context: int64 ``[INPUTS]``, set by
    the caller before each integer. logit: scratch. stretch, squash, reciprocal: tables.
    """

    state: np.ndarray
    counter: np.ndarray
    weight: np.ndarray
    context: np.ndarray
    logit: np.ndarray
    stretch: np.ndarray
    squash: np.ndarray
    reciprocal: np.ndarray


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """stretch: 16-bit probability -> logit; squash, its inverse; reciprocal: how far a counter moves, by its count."""
    with localcontext() as context:
        context.prec = 30
        upper = [int((65536 / (1 + (Decimal(-k) / 256).exp())).to_integral_value()) for k in range(_LOGIT + 1)]
    half = np.minimum(np.array(upper, np.int32), 65535)
    squash = np.concatenate([65536 - half[:0:-1], half])
    stretch = np.minimum(np.searchsorted(squash, np.arange(65536)), 2 * _LOGIT) - _LOGIT
    seen = np.arange(COUNT_LIMIT + 1, dtype=np.int64)
    return stretch.astype(np.int16), squash, (655360 // (10 * seen + 16)).astype(np.int32)


def coder(contexts: int, sparsity: int) -> Coder:
    """A coder whose integers are non-zero with probability 2**-(1 + sparsity) at first."""
    counter = np.full((INPUTS, NODES, contexts), 1 << 31, np.uint32)
    counter[:, 0] >>= sparsity
    counter &= ~np.uint32(1023)
    stretch, squash, reciprocal = _tables()
    return Coder(
        np.array([0, 0xFFFFFFFF, 0, 1, 0], np.int64), counter,
        np.full((SETS * NODES, INPUTS), int(0.3 * 65536), np.int64), np.zeros(INPUTS, np.int64),
        np.zeros(INPUTS, np.int64), stretch, squash, reciprocal,
    )  # fmt: skip


@njit(cache=True)
def start_reading(state: np.ndarray, data: np.ndarray) -> None:
    """Take in the first four bytes of a stream."""
    for _ in range(4):
        state[_CODE] = state[_CODE] << 8 | _next(state, data)


@njit(cache=True)
def finish(state: np.ndarray, data: np.ndarray) -> int:
    """Flush a writer; its stream is ``data[1:end]`` (the first byte is always 0), `end` being returned.

    A reader takes bytes beyond the end for zeros.
    """
    # The number with the most trailing zeros in [low, low + range).
    state[_LOW] = (state[_LOW] + 0xFFFFFF) & ~0xFFFFFF
    for _ in range(5):
        _shift(state, data)
    length = state[_POSITION]
    while length > 1 and data[length - 1] == 0:
        length -= 1
    return length


@njit(cache=True)
def reserve(state: np.ndarray, data: np.ndarray, integers: int) -> np.ndarray:
    """`data`, or a larger copy, with room for so many more integers."""
    needed = state[_POSITION] + state[_PENDING] + _WORST * integers + 16
    if needed <= data.size:
        return data
    larger = np.empty(2 * needed, np.uint8)
    larger[: state[_POSITION]] = data[: state[_POSITION]]
    return larger


@njit(cache=True)
def _next(state: np.ndarray, data: np.ndarray) -> int:
    position = state[_POSITION]
    state[_POSITION] = position + 1
    return data[position] if position < data.size else 0


@njit(cache=True)
def _shift(state: np.ndarray, data: np.ndarray) -> None:
    """Write the top byte of the low end; a carry may still reach it through pending bytes of 0xFF."""
    low = state[_LOW]
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry = low >> 32
        position = state[_POSITION]
        data[position] = (state[_CACHE] + carry) & 0xFF
        for k in range(1, state[_PENDING]):
            data[position + k] = (0xFF + carry) & 0xFF
        state[_POSITION] = position + state[_PENDING]
        state[_CACHE] = (low >> 24) & 0xFF
        state[_PENDING] = 0
    state[_PENDING] += 1
    state[_LOW] = (low & 0x00FFFFFF) << 8


@njit(cache=True, inline="always")  # the call would cost more than it does
def bit(c: Coder, data: np.ndarray, node: int, weights: int, value: int, writing: bool) -> int:
    """Code one decision under the contexts set; returns it."""
    total = 0
    for i in range(INPUTS):
        logit = int(c.stretch[c.counter[i, node, c.context[i]] >> 16])
        c.logit[i] = logit
        total += c.weight[weights, i] * logit
    p = int(c.squash[max(-_LOGIT, min(_LOGIT, total >> 16)) + _LOGIT])
    value = _code(c.state, data, p, value, writing)
    error = ((value << 16) - p) * 10
    for i in range(INPUTS):
        c.weight[weights, i] += (c.logit[i] * error + (1 << 19)) >> 20
        counter = int(c.counter[i, node, c.context[i]])
        seen = counter & 1023
        probability = counter >> 10
        probability += ((value << 22) - probability) * c.reciprocal[seen] >> 16
        c.counter[i, node, c.context[i]] = probability << 10 | min(seen + 1, COUNT_LIMIT)
    return value


@njit(cache=True, inline="always")  # the call would cost more than it does
def _code(state: np.ndarray, data: np.ndarray, p: int, value: int, writing: bool) -> int:
    """One bit that is 1 with probability p / 65536. The less likely value takes the upper, rounded, part."""
    size = state[_RANGE]
    likely = 1 if p >= 32768 else 0
    upper = (size >> 16) * (65536 - p if likely else p)
    size -= upper
    if writing:
        rare = value != likely
        if rare:
            state[_LOW] += size
    else:
        rare = state[_CODE] >= size
        if rare:
            state[_CODE] -= size
    size = upper if rare else size
    while size < 1 << 24:
        size <<= 8
        if writing:
            _shift(state, data)
        else:
            state[_CODE] = state[_CODE] << 8 | _next(state, data)
    state[_RANGE] = size
    return 1 - likely if rare else likely


@njit(cache=True)
def _raw(state: np.ndarray, data: np.ndarray, value: int, width: int, writing: bool) -> int:
    """`width` bits of even odds, the highest first."""
    out = 0
    for k in range(width - 1, -1, -1):
        out = out << 1 | _code(state, data, 32768, (value >> k) & 1, writing)
    return out


@njit(cache=True)
def integer(c: Coder, data: np.ndarray, value: int, shift: int, weights: int, writing: bool) -> int:
    """Code one integer, |value| < LIMIT, under the contexts set; returns it.

    Its magnitude without the lowest `shift` bits goes in unary, beyond 20 as Elias-gamma; those bits are raw.
    """
    magnitude = abs(value)
    high = magnitude >> shift
    found = 0
    while found < _UNARY and bit(c, data, found, weights + SETS * found, 1 if high > found else 0, writing):
        found += 1
    if found == _UNARY:
        rest, length = high - found + 1, 0
        if writing:
            while rest >> (length + 1):
                length += 1
        length = _gamma_length(c.state, data, length, writing)
        found += (1 << length | _raw(c.state, data, rest & ((1 << length) - 1), length, writing)) - 1
    magnitude = found << shift | _raw(c.state, data, magnitude & ((1 << shift) - 1), shift, writing)
    if magnitude and bit(c, data, _SIGN, weights + SETS * _SIGN, 1 if value < 0 else 0, writing):
        return -magnitude
    return magnitude


@njit(cache=True)
def _gamma_length(state: np.ndarray, data: np.ndarray, length: int, writing: bool) -> int:
    """Unary in raw bits, never above 50, whatever a damaged stream says."""
    found = 0
    while found < 50 and _code(state, data, 32768, 1 if found < length else 0, writing):
        found += 1
    return found
