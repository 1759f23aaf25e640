"""What codes a chunk, compiled: a binary arithmetic coder, and the walks over planes and latents that feed it.

A decision (one bit) is predicted by `INPUTS` counters, each under a context of its own. Their logits are summed with
weights that learn online (logistic mixing: Mahoney 2005, "Adaptive weighing of context models"), and the bit goes to a
byte-wise range coder with carry (Martin 1979). Counters, weights and coder are integers and their tables are made
with decimal arithmetic; contexts are made of decoded integers alone: every machine parses alike. What is
reconstructed uses float64 addition, multiplication, division and square root one by one in a fixed order, never
fused, which IEEE 754 makes the same everywhere.

Compiled by Numba; with NUMBA_DISABLE_JIT=1 the same source runs as plain Python, slowly. All of it is in one file
because Numba keeps what it has compiled until the function's own file changes, not those it calls into.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal, localcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from vcinr.compiled import inner, outer
from vcinr.errors import CorruptError

INPUTS = 6
_I = np.uint64(6)
_UNARY = 20
_SIGN: Any = np.int64(_UNARY)  # NumPy's integers, as Numba would compile a function anew for a literal
_EVEN: Any = np.int64(32768)
_ZERO: Any = np.int64(0)
NODES = _UNARY + 1
"""Decisions of an integer: 0 zero or not, 1 to 19 the magnitude in unary, 20 the sign."""
SETS = 9
"""Sets of mixing weights, chosen by the caller."""
LIMIT = 1 << 50
"""Magnitudes from here on cannot be coded."""

_LOGIT = 3071  # logits are in units of 1/256, within +-12
COUNT_LIMIT = 400  # a counter keeps moving by 1 / 400 at least
_LOW, _RANGE, _CACHE, _PENDING, _POSITION = range(5)
_CODE = _LOW  # a reader has a code where a writer has its low end
_RUN = 1 << 16  # integers that one call codes, about: a buffer has room for them beforehand
_WORST = 96  # bytes that one integer may take: 21 decisions of 16 bits, and 101 raw bits


class Coder(NamedTuple):
    """State of a writer or reader.

    state: int64 ``[5]``. counter: int32 ``[INPUTS, NODES, contexts]``, P(1) in 21 bits and below them, in 10 bits, the
    number of decisions seen; rare: int32 ``[contexts]``, the same for decisions taken alone. weight: int64
    ``[SETS * NODES, INPUTS]``, 16 fractional bits. context: int64 ``[INPUTS]``, set by the caller before each
    integer. logit: scratch. stretch, squash, reciprocal: tables.
    """

    state: np.ndarray
    counter: np.ndarray
    rare: np.ndarray
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
    return stretch.astype(np.int16), squash, 655360 // (10 * seen + 16)


def coder(contexts: int, rare: int = 0) -> Coder:
    """A coder that expects, at first, an integer to be zero with odds of 3:1, a rare decision to be 0 with 15:1.

    contexts: of integers; rare: of decisions taken alone.
    """
    counter = np.full((INPUTS, NODES, contexts), 1 << 30, np.int32)
    counter[:, 0] = 1 << 29
    stretch, squash, reciprocal = _tables()
    return Coder(
        np.array([0, 0xFFFFFFFF, 0, 1, 0], np.int64), counter, np.full(rare, 1 << 27, np.int32),
        np.full((SETS * NODES, INPUTS), int(0.3 * 65536), np.int64), np.zeros(INPUTS, np.uint64),
        np.zeros(INPUTS, np.int64), stretch, squash, reciprocal,
    )  # fmt: skip


@outer
def _start(state: np.ndarray, data: np.ndarray) -> None:
    """Take in the first four bytes."""
    for _ in range(4):
        state[_CODE] = state[_CODE] << 8 | _next(state, data)


@outer
def _finish(state: np.ndarray, data: np.ndarray) -> int:
    """Flush a writer: what is left of the number with the most trailing zeros in [low, low + range)."""
    state[_LOW] = (state[_LOW] + 0xFFFFFF) & ~0xFFFFFF
    for _ in range(5):
        _shift(state, data)
    return state[_POSITION]


def stream(c: Coder, data: np.ndarray) -> bytes:
    """What a writer has written. The first byte is always 0; of the last four, zeros at the end are left out."""
    written = data[1 : _finish(c.state, data)].tobytes()
    return written[:-4] + written[-4:].rstrip(b"\0")


def open_stream(c: Coder, data: bytes) -> np.ndarray:
    """A stream as a reader takes it: bytes beyond its end are zeros."""
    array = np.frombuffer(bytearray(data), np.uint8)
    _start(c.state, array)
    return array


def check_end(c: Coder, data: np.ndarray) -> None:
    """Raise CorruptError where a reader did not take all of its stream, or more than that."""
    if not c.state[_POSITION] - 4 <= len(data) <= c.state[_POSITION]:
        raise CorruptError("a bitstream does not end where it should")


def reserve(state: np.ndarray, data: np.ndarray, integers: int) -> np.ndarray:
    """`data`, or a larger copy, with room for so many more integers."""
    needed = int(state[_POSITION] + state[_PENDING]) + _WORST * integers + 16
    if needed <= data.size:
        return data
    larger = np.empty(2 * needed, np.uint8)
    larger[: state[_POSITION]] = data[: state[_POSITION]]
    return larger


def _runs(items: int, size: int) -> Iterator[tuple[int, int]]:
    """First and last of runs of items, each run of some `_RUN` integers: one call of a kernel codes a run."""
    most = max(1, _RUN // max(1, size))
    for first in range(0, items, most):
        yield first, min(first + most, items)


@inner()
def _next(state: np.ndarray, data: np.ndarray) -> int:
    position = state[_POSITION]
    state[_POSITION] = position + 1
    return data[position] if position < data.size else 0


@inner()
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


@inner(forceinline=True)  # the call would cost more than it does
def bit(c: Coder, data: np.ndarray, node: int, weights: int, value: int, writing: bool) -> int:
    """Code one decision under the contexts set; returns it."""
    total, which, row = 0, np.uint64(node), np.uint64(weights)
    for i in range(_I):
        logit = int(c.stretch[np.uint64(c.counter[i, which, c.context[i]] >> 15)])
        c.logit[i] = logit
        total += c.weight[row, i] * logit
    p = np.int64(c.squash[np.uint64(max(-_LOGIT, min(_LOGIT, total >> 16)) + _LOGIT)])
    value = _code(c.state, data, p, value, writing)
    error = ((value << 16) - p) * 10
    for i in range(_I):
        c.weight[row, i] += (c.logit[i] * error + (1 << 19)) >> 20
        c.counter[i, which, c.context[i]] = _learn(c, int(c.counter[i, which, c.context[i]]), value)
    return value


@inner()
def rare(c: Coder, data: np.ndarray, context: int, value: int, writing: bool) -> int:
    """Code one decision by a single counter: a decision that hardly ever is 1 is not worth more."""
    counter = int(c.rare[context])
    value = _code(c.state, data, np.int64(max(1, min(65535, counter >> 15))), value, writing)
    c.rare[context] = _learn(c, counter, value)
    return value


@inner(forceinline=True)
def _learn(c: Coder, counter: int, value: int) -> int:
    """The counter after a decision: 1 / (n + 1.6) of the way towards it."""
    seen, probability = counter & 1023, counter >> 10
    probability += ((value << 21) - probability) * c.reciprocal[np.uint64(seen)] >> 16
    return probability << 10 | min(seen + 1, COUNT_LIMIT)


@inner(forceinline=True)  # the call would cost more than it does
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


@inner()
def _raw(state: np.ndarray, data: np.ndarray, value: int, width: int, writing: bool) -> int:
    """`width` bits of even odds, the highest first."""
    out = 0
    for k in range(width - 1, -1, -1):
        out = out << 1 | _code(state, data, _EVEN, (value >> k) & 1, writing)
    return out


@inner()
def integer(c: Coder, data: np.ndarray, value: int, first: int, shift: int, weights: int, writing: bool) -> int:
    """Code one integer, |value| < LIMIT, under the contexts set; returns it.

    Its magnitude without the lowest `shift` bits goes in unary, beyond 20 as Elias-gamma; those bits are raw.
    `first` is 1 where the magnitude (then without shift) is known not to be 0.
    """
    magnitude = abs(value)
    high = magnitude >> shift
    found = first
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


@inner()
def _gamma_length(state: np.ndarray, data: np.ndarray, length: int, writing: bool) -> int:
    """Unary in raw bits, never above 50, whatever a damaged stream says."""
    found = 0
    while found < 50 and _code(state, data, _EVEN, 1 if found < length else 0, writing):
        found += 1
    return found


# --- planes

_LEVELS = 4  # lattice levels that have weights and contexts of their own; coarser ones share the last
_KINDS = 2 * _LEVELS  # classes of points: level and cell centre or edge midpoint; one more for the first point
CONTEXTS = 4096
PLAIN_CONTEXTS = 1120
"""Of integers, with and without prediction; the latter are fewer, and soon made. CONTEXTS also of decisions alone."""
_FORGET = 4096  # points after which a least-squares problem halves its memory
_MOST = 4095  # magnitudes are cut here as contexts

# Neighbours in units of the lattice's stride, as pairs (second = first: only one). Near ones first.
_NEAR = np.array([[(-1, -1), (-1, 1), (1, -1), (1, 1)], [(-1, 0), (1, 0), (0, -1), (0, 1)]], np.int64)
_BEFORE = np.array([[(0, -2), (-2, 0), (-2, -2), (-2, 2)], [(0, -2), (-2, 0), (-1, -1), (-1, 1)]], np.int64)
_FAR = np.array(
    [
        [(-3, -1, -3, -1), (-3, 1, -3, 1), (3, -1, 3, -1), (3, 1, 3, 1),
         (-1, -3, -1, -3), (1, -3, 1, -3), (-1, 3, -1, 3), (1, 3, 1, 3)],
        [(-3, 0, -3, 0), (3, 0, 3, 0), (0, -3, 0, -3), (0, 3, 0, 3),
         (-2, -1, -2, 1), (2, -1, 2, 1), (-1, -2, 1, -2), (-1, 2, 1, 2)],
    ],
    np.int64,
)  # fmt: skip
_SPATIAL = 16
_FEATURES = _SPATIAL + 4
_SCALE = np.searchsorted(
    [1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 28, 37, 50, 67, 90, 120, 160, 220, 300, 400, 600, 900], np.arange(1024), "right"
).astype(np.int64)


@inner(forceinline=True)
def _scale(value: int) -> int:
    """A magnitude on a roughly logarithmic scale, 0 to 29."""
    if value < 1024:
        return int(_SCALE[value])
    level = 23
    while value >= 2048 and level < 29:
        value >>= 1
        level += 1
    return level


@inner(forceinline=True)
def _sign(value: int) -> int:
    """0 for negative, 1 for zero, 2 for positive."""
    return 1 if value == 0 else (2 if value > 0 else 0)


@inner()
def _solve(
    a: np.ndarray, b: np.ndarray, ridge: float, weights: np.ndarray, n: int, up: np.ndarray, y: np.ndarray
) -> None:
    """weights = (a + ridge I)^-1 b by Cholesky, of the first n entries; `a` ``[F, F]`` has its lower triangle alone.

    Columns are taken off as soon as they are known, which is the order of operations on each entry that taking them off
    at the end has, and makes vectors of them. up, y: scratch, the transposed factor and what is right of it.
    """
    for j in range(n):
        y[j] = b[j]
        for i in range(j, n):
            up[j, i] = a[i, j]
        up[j, j] += ridge
    for k in range(n):
        if not up[k, k] > 0.0:
            return  # rounding has the better of it: the weights stay
        up[k, k] = math.sqrt(up[k, k])
        for i in range(k + 1, n):
            up[k, i] /= up[k, k]
        y[k] /= up[k, k]
        for j in range(k + 1, n):
            y[j] -= up[k, j] * y[k]
            for i in range(j, n):
                up[j, i] -= up[k, i] * up[k, j]
    for i in range(n - 1, -1, -1):
        total = y[i]
        for k in range(i + 1, n):
            total -= up[i, k] * weights[k]
        weights[i] = total / up[i, i]


class _Plane(NamedTuple):
    """One plane ``[H, W]`` in the making, and those that it may look at, each as ``[H * W]``.

    now: reconstructed values; code: int16 codes. earlier, mean, below, before_below: the plane of the time before, the
    mean of all before, the level below, and that one's of the time before, or zeros; code_earlier, code_below: the
    codes of the first and the third; activity: int64, see `_remember_codes`.
    """

    now: np.ndarray
    code: np.ndarray
    earlier: np.ndarray
    mean: np.ndarray
    below: np.ndarray
    before_below: np.ndarray
    code_earlier: np.ndarray
    code_below: np.ndarray
    activity: np.ndarray


class _Weights(NamedTuple):
    """Least-squares problems, one for each class of points.

    normal ``[kinds, F, F]`` (a lower triangle counts), target and solution ``[kinds, F]``; seen and due ``[kinds]``:
    points, now and when it is solved next; features ``[F]`` and offset ``[3, 8, 2]``: of the point at hand, see `_look`
    and `_offsets`; up ``[F, F]`` and right ``[F]``: scratch of `_solve`.
    """

    normal: np.ndarray
    target: np.ndarray
    solution: np.ndarray
    seen: np.ndarray
    due: np.ndarray
    features: np.ndarray
    offset: np.ndarray
    up: np.ndarray
    right: np.ndarray


class _Planes(NamedTuple):
    """What a walk over planes remembers from one to the next, one row of H * W points a level.

    mean: of the values of all times before; activity: int64, see `_remember_codes`; code: int16 ``[2, C, H * W]``, of
    this time and of the one before; blank, none: zeros, for a plane and for codes that do not exist.
    """

    mean: np.ndarray
    activity: np.ndarray
    code: np.ndarray
    blank: np.ndarray
    none: np.ndarray


def adaptive(
    c: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, sizes: np.ndarray,
    temporal: bool, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Code ``[T, C, H, W]`` float64 with the adaptive predictor; see `vcinr.coding.residual`.

    sizes: step of each lattice level. valid: bool, of the same shape, or one True. Fills `recon`; returns the (perhaps
    larger) buffer, and False where a value is too large for its step.
    """
    times, levels, height, width = recon.shape
    planes, points = times * levels, height * width
    w = _Weights(
        np.zeros((_KINDS, _FEATURES, _FEATURES)), np.zeros((_KINDS, _FEATURES)), np.zeros((_KINDS, _FEATURES)),
        np.zeros(_KINDS, np.int64), np.full(_KINDS, 64, np.int64), np.zeros(_FEATURES),
        np.zeros((3, 8, 2), np.int64), np.zeros((_FEATURES, _FEATURES)), np.zeros(_FEATURES),
    )  # fmt: skip
    memory = _Planes(
        np.zeros((levels, points)), np.zeros((levels, points), np.int64), np.zeros((2, levels, points), np.int16),
        np.zeros(points), np.zeros(points, np.int16),
    )  # fmt: skip
    flat, given = recon.reshape(planes, points), values.reshape(planes, points)
    mask = valid.reshape(planes, points) if valid.size > 1 else valid.reshape(1, 1)
    for first, last in _runs(planes, points):
        if writing:
            data = reserve(c.state, data, (last - first) * points)
        if not _adaptive(
            c, data, given, flat, mask, width, w, memory, sizes, first, last, temporal, writing
        ):  # fmt: skip
            return data, False
    return data, True


@outer
def _adaptive(
    c: Coder, data: np.ndarray, given: np.ndarray, flat: np.ndarray, valid: np.ndarray, width: int, w: _Weights,
    memory: _Planes, sizes: np.ndarray, begin: int, end: int, temporal: bool, writing: bool,
) -> bool:  # fmt: skip
    """Code planes ``[begin, end)`` of `given` and `flat` ``[T * C, H * W]``; whether the values fit."""
    levels, points = memory.mean.shape
    for p in range(begin, end):
        t, level = p // levels, p % levels
        late, high = temporal and t > 0, level > 0
        plane = _Plane(
            flat[p], memory.code[t & 1, level],
            flat[p - levels] if late else memory.blank, memory.mean[level] if late else memory.blank,
            flat[p - 1] if high else memory.blank, flat[p - levels - 1] if late and high else memory.blank,
            memory.code[1 - (t & 1), level] if late else memory.none,
            memory.code[t & 1, level - 1] if high else memory.none, memory.activity[level],
        )  # fmt: skip
        used = _SPATIAL + (4 if high else (2 if late else 0))
        mean = memory.mean[level]
        first = mean[0] if late else plane.below[0]
        mask = valid[p if valid.size > 1 else 0]
        if not _refine(c, data, given[p], plane, mask, points // width, width, w, sizes, used, first, writing):
            return False
        for o in range(points):
            mean[o] += (plane.now[o] - mean[o]) / (t + 1)
        _remember_codes(memory.activity[level], plane.code, t)
    return True


@inner()
def _remember_codes(activity: np.ndarray, code: np.ndarray, t: int) -> None:
    """A fading mean of 64 |code| at every point of a plane."""
    for o in range(activity.size):
        size = 64 * abs(int(code[o]))
        activity[o] = size if t == 0 else activity[o] + ((size - activity[o]) >> (3 if t > 7 else 2))


@inner(inline="always")
def _refine(
    c: Coder, data: np.ndarray, values: np.ndarray, plane: _Plane, valid: np.ndarray, height: int, width: int,
    w: _Weights, sizes: np.ndarray, used: int, first: float, writing: bool,
) -> bool:  # fmt: skip
    """Code one plane, lattice by lattice from its first point, predicted to be `first`; whether the values fit."""
    top = 0
    while 1 << top < max(height, width):
        top += 1
    for lattice in range(top, -1, -1):
        stride, size = 1 << lattice, sizes[lattice]
        for half in range(1 if lattice == top else 2):  # centres, then midpoints
            kind = _KINDS if lattice == top else 2 * min(lattice, _LEVELS - 1) + half
            start = stride if half == 0 and lattice < top else 0
            _offsets(w.offset, half, stride, width)
            for i in range(start, height, stride if half else 2 * stride):
                for j in range(
                    0 if half and (i >> lattice) & 1 else (start if half == 0 else stride), width, 2 * stride
                ):
                    o = i * width + j
                    there, code, base, near, before = valid[o if valid.size > 1 else 0], 0, 0.0, 0, 0
                    prediction = first
                    if kind < _KINDS:
                        inside = 3 * stride <= i < height - 3 * stride and 3 * stride <= j < width - 3 * stride
                        if inside:
                            base, near, before = _look_inside(plane, w.features, w.offset, half, o)
                        else:
                            base, near, before = _look(plane, w.features, half, stride, i, j, height, width)
                        prediction = base
                        if there:  # nothing would hold back what is predicted from predictions
                            for k in range(used):
                                prediction += w.solution[kind, k] * w.features[k]
                    if there:
                        if writing:
                            scaled = (values[o] - prediction) / size
                            if not abs(scaled) < LIMIT - 1:
                                return False
                            code = math.floor(scaled + 0.5)
                        west = _sign(int(plane.code[o - 2 * stride])) if j >= 2 * stride else 1
                        north = _sign(int(plane.code[o - 2 * stride * width])) if i >= 2 * stride else 1
                        code = _point(c, data, plane, o, code, kind, near, before, west, north, writing)
                    plane.now[o] = prediction + code * size
                    plane.code[o] = max(-_MOST, min(_MOST, code))
                    if there and kind < _KINDS:
                        _learn_weights(w, kind, used, plane.now[o] - base, 2 * before + near, sizes[0])
    return True


@inner()
def _offsets(offset: np.ndarray, half: int, stride: int, width: int) -> None:
    """How far the neighbours are in ``[H * W]``: near, before and far, pairs of the last."""
    for k in range(4):
        offset[0, k, 0] = (_NEAR[half, k, 0] * width + _NEAR[half, k, 1]) * stride
        offset[1, k, 0] = (_BEFORE[half, k, 0] * width + _BEFORE[half, k, 1]) * stride
    for k in range(8):
        offset[2, k, 0] = (_FAR[half, k, 0] * width + _FAR[half, k, 1]) * stride
        offset[2, k, 1] = (_FAR[half, k, 2] * width + _FAR[half, k, 3]) * stride


@inner(inline="always")
def _look_inside(plane: _Plane, f: np.ndarray, offset: np.ndarray, half: int, o: int) -> tuple[float, int, int]:
    """`_look` where all neighbours are inside the plane."""
    base, near, before = 0.0, 0, 0
    earlier, mean, below, before_below = 0.0, 0.0, 0.0, 0.0
    for k in range(4):
        n = o + offset[0, k, 0]
        base += plane.now[n]
        near += abs(int(plane.code[n]))
        earlier += plane.earlier[n]
        mean += plane.mean[n]
        below += plane.below[n]
        before_below += plane.before_below[n]
        before += abs(int(plane.code[o + offset[1, k, 0]]))
    base /= 4
    for k in range(4):
        f[k] = plane.now[o + offset[0, k, 0]] - base
        f[4 + k] = plane.now[o + offset[1, k, 0]] - base
    for k in range(8):
        f[8 + k] = plane.now[o + offset[2, k, 0]] - base
    if half:
        for k in range(4, 8):
            f[8 + k] += plane.now[o + offset[2, k, 1]] - base
    f[16] = plane.earlier[o] - earlier / 4
    f[17] = plane.mean[o] - mean / 4
    f[18] = plane.below[o] - below / 4
    f[19] = plane.before_below[o] - before_below / 4
    return base, near, before


@inner()
def _look(
    plane: _Plane, f: np.ndarray, half: int, stride: int, i: int, j: int, height: int, width: int
) -> tuple[float, int, int]:
    """Fill the features of a point; returns the mean of its near neighbours, and sums of |code| near and before it."""
    o = i * width + j
    base, near, before, found = 0.0, 0, 0, 0
    earlier, mean, below, before_below = 0.0, 0.0, 0.0, 0.0
    for k in range(4):
        y, x = i + _NEAR[half, k, 0] * stride, j + _NEAR[half, k, 1] * stride
        f[k] = math.inf
        if 0 <= y < height and 0 <= x < width:
            n = y * width + x
            f[k] = plane.now[n]
            base += f[k]
            near += abs(int(plane.code[n]))
            earlier += plane.earlier[n]
            mean += plane.mean[n]
            below += plane.below[n]
            before_below += plane.before_below[n]
            found += 1
    base /= found
    near = 4 * near // found
    for k in range(4):
        f[k] = f[k] - base if f[k] != math.inf else 0.0
    for k in range(4):
        y, x = i + _BEFORE[half, k, 0] * stride, j + _BEFORE[half, k, 1] * stride
        f[4 + k] = 0.0
        if y >= 0 and 0 <= x < width:
            f[4 + k] = plane.now[y * width + x] - base
            before += abs(int(plane.code[y * width + x]))
        else:
            before += near >> 2
    for k in range(8):
        y, x = i + _FAR[half, k, 0] * stride, j + _FAR[half, k, 1] * stride
        total = 0.0
        if 0 <= y < height and 0 <= x < width:
            total = plane.now[y * width + x] - base
        if half == 1 and k >= 4:
            y, x = i + _FAR[half, k, 2] * stride, j + _FAR[half, k, 3] * stride
            if 0 <= y < height and 0 <= x < width:
                total += plane.now[y * width + x] - base
        f[8 + k] = total
    f[16] = plane.earlier[o] - earlier / found
    f[17] = plane.mean[o] - mean / found
    f[18] = plane.below[o] - below / found
    f[19] = plane.before_below[o] - before_below / found
    return base, near, before


@inner(inline="always")
def _point(
    c: Coder, data: np.ndarray, plane: _Plane, o: int, code: int, kind: int, near: int, before: int, west: int,
    north: int, writing: bool,
) -> int:  # fmt: skip
    """Code one point's integer; returns it. west, north: signs of the codes there."""
    then, below = abs(int(plane.code_earlier[o])), abs(int(plane.code_below[o]))
    active = _scale(plane.activity[o] >> 2)
    local = 2 * before + near
    first = 0
    if local + then + below == 0:
        first = rare(c, data, ((kind * 30 + active) * 3 + west) * 3 + north, 1 if code != 0 else 0, writing)
        if not first:
            return 0
    recent = _scale(before)
    c.context[0] = (kind * 20 + min(_scale(near), 19)) * 22 + min(recent, 21)
    c.context[1] = kind * 30 + _scale(local + 4 * then + 4 * below)
    c.context[2] = (kind * 30 + active) * 4 + min(before, 3)
    c.context[3] = ((kind * 6 + min(then, 5)) * 6 + min(below, 5)) * 6 + min(recent, 5)
    c.context[4] = (kind * 30 + _scale(16 * then + 16 * below)) * 4 + min(recent >> 1, 3)
    c.context[5] = ((kind * 3 + west) * 3 + north) * 30 + _scale(near + before)
    return integer(c, data, code, first, _shift_of(local), kind, writing)


@inner(forceinline=True)
def _shift_of(local: int) -> int:
    """Raw bits of a code among neighbours of such size, so that what is left is about 6."""
    shift = 0
    while local >> (3 + shift) > 6:
        shift += 1
    return shift


@inner(inline="always")
def _learn_weights(w: _Weights, kind: int, used: int, value: float, local: int, step: float) -> None:
    """Add an equation, sum of weights * features = value; solve them anew when enough have come.

    Features that are not used are zero: whole rows, which the compiler makes vectors of, come to the same.
    """
    trust = 1.0 / (1.0 + 0.04 * local * local)
    for p in range(_FEATURES):
        g = w.features[p] * trust
        w.target[kind, p] += g * value
        row = w.normal[kind, p]
        for q in range(row.size):
            row[q] += g * w.features[q]
    w.seen[kind] += 1
    if w.seen[kind] >= w.due[kind]:
        _solve_weights(w, kind, used, step)


@inner()
def _solve_weights(w: _Weights, kind: int, used: int, step: float) -> None:
    """Solve a problem with its first `used` features, and halve the memory of a long one."""
    trace = 0.0
    for p in range(used):
        trace += w.normal[kind, p, p]
    ridge = 0.1 * step * step + 1e-5 * trace / used
    _solve(w.normal[kind], w.target[kind], ridge, w.solution[kind], used, w.up, w.right)
    if w.seen[kind] > _FORGET:
        for p in range(used):
            w.target[kind, p] *= 0.5
            for q in range(p + 1):
                w.normal[kind, p, q] *= 0.5
        w.seen[kind] >>= 1
    w.due[kind] = min(2 * w.seen[kind], w.seen[kind] + 64)


class _Rasters(NamedTuple):
    """What a walk in raster order remembers from one plane to the next; planes have a border of zeros.

    code: int16 ``[2, C, H + 2, W + 4]``, of this time and of the one before; none: zeros, for codes that do not exist;
    activity: int64 ``[C, H + 2, W + 4]``, see `_remember_codes`. size: int64 ``[2, C, H + 1]``, of each row, the
    border's first, see `_raster`; nothing: zeros ``[H + 1]``. row ``[W]``: scratch.
    """

    code: np.ndarray
    none: np.ndarray
    activity: np.ndarray
    size: np.ndarray
    nothing: np.ndarray
    row: np.ndarray


def plain(
    c: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, size: float,
    temporal: bool, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Code ``[T, C, H, W]`` float64 without prediction; arguments and result as those of `adaptive`."""
    times, levels, height, width = recon.shape
    planes = times * levels
    bordered = (height + 2, width + 4)
    memory = _Rasters(
        np.zeros((2, levels, *bordered), np.int16), np.zeros(bordered, np.int16),
        np.zeros((levels, *bordered), np.int64), np.zeros((2, levels, height + 1), np.int64),
        np.zeros(height + 1, np.int64), np.zeros(width, np.int64),
    )  # fmt: skip
    shape = (planes, height, width)
    given, out, mask = (
        values.reshape(shape),
        recon.reshape(shape),
        valid.reshape(shape if valid.size > 1 else (1, 1, 1)),
    )
    for first, last in _runs(planes, height * width):
        if writing:
            data = reserve(c.state, data, (last - first) * 2 * height * width)
        if not _plain(c, data, given, out, mask, memory, size, first, last, temporal, writing):
            return data, False
    return data, True


@outer
def _plain(
    c: Coder, data: np.ndarray, given: np.ndarray, out: np.ndarray, valid: np.ndarray, memory: _Rasters, size: float,
    begin: int, end: int, temporal: bool, writing: bool,
) -> bool:  # fmt: skip
    """Code planes ``[begin, end)`` of `given` and `out` ``[T * C, H, W]``; whether the values fit."""
    levels = memory.activity.shape[0]
    for p in range(begin, end):
        t, level = p // levels, p % levels
        late = temporal and t > 0
        code, here = memory.code[t & 1, level], memory.size[t & 1, level]
        for i in range(code.shape[0]):
            for j in range(code.shape[1]):
                code[i, j] = 0
        then = memory.code[1 - (t & 1), level] if late else memory.none
        past = memory.size[1 - (t & 1), level] if late else memory.nothing
        below = memory.code[t & 1, level - 1] if level > 0 else memory.none
        under = memory.size[t & 1, level - 1] if level > 0 else memory.nothing
        mask = valid[p if valid.size > 1 else 0]
        if not _raster(
            c, data, given[p], out[p], mask, code, then, below, memory.activity[level], here, past, under, memory.row,
            size, writing,
        ):  # fmt: skip
            return False
        for i in range(code.shape[0]):
            _remember_codes(memory.activity[level, i], code[i], t)
    return True


@inner(inline="always")
def _raster(
    c: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, code: np.ndarray,
    then: np.ndarray, below: np.ndarray, activity: np.ndarray, here: np.ndarray, past: np.ndarray, under: np.ndarray,
    row: np.ndarray, size: float, writing: bool,
) -> bool:  # fmt: skip
    """Code one plane ``[H, W]`` row by row; whether the values fit.

    code, then, below, activity: with a border. here, past, under ``[H + 1]``: sums of min(|code|, 2) of the row before
    each row of this plane and of those before; `here` is filled. row ``[W]``: scratch.
    """
    height, width = recon.shape
    masked = valid.size > 1 or not valid[0, 0]
    for i in range(height):
        around, some = here[i] + past[i + 1] + under[i + 1], 0
        here[i + 1] = 0
        if writing:
            for j in range(width):
                row[j] = 0
                if not masked or valid[i, j]:
                    scaled = values[i, j] / size
                    if not abs(scaled) < LIMIT - 1:
                        return False
                    row[j] = math.floor(scaled + 0.5)
                    some |= row[j]
        if not rare(c, data, CONTEXTS - 1 - _scale(around), 1 if some else 0, writing):
            continue
        for j in range(width):
            if not masked or valid[i, j]:
                active = _scale(activity[i + 2, j + 2] >> 2)
                k = _raster_point(c, data, code, then, below, row[j], i + 2, j + 2, active, writing)
                recon[i, j] = k * size
                code[i + 2, j + 2] = max(-_MOST, min(_MOST, k))
                here[i + 1] += min(abs(k), 2)
    return True


@inner(inline="always")
def _raster_point(
    c: Coder, data: np.ndarray, code: np.ndarray, then: np.ndarray, below: np.ndarray, value: int, y: int, x: int,
    active: int, writing: bool,
) -> int:  # fmt: skip
    """Code one integer of a plane in raster order; returns it. y, x: in planes with a border."""
    west, north = int(code[y, x - 1]), int(code[y - 1, x])
    near = abs(west) + abs(north)
    side = (
        abs(int(code[y - 1, x - 1]))
        + abs(int(code[y - 1, x + 1]))
        + abs(int(code[y, x - 2]))
        + abs(int(code[y - 2, x]))
    )
    was, under = abs(int(then[y, x])), abs(int(below[y, x]))
    about = abs(int(then[y, x - 1])) + abs(int(then[y, x + 1])) + abs(int(then[y - 1, x]))
    local = 2 * near + side
    first = 0
    if local + was + under == 0:
        first = rare(c, data, active * 10 + min(_scale(about), 9), 1 if value != 0 else 0, writing)
        if not first:
            return 0
    c.context[0] = _scale(near) * 30 + _scale(side)
    c.context[1] = _scale(local + 3 * was + 3 * under) * 3 + min(abs(west), 2)
    c.context[2] = active * 30 + _scale(local)
    c.context[3] = (_scale(was) * 6 + min(under, 5)) * 6 + min(_scale(near), 5)
    c.context[4] = _scale(about + was) * 30 + _scale(near)
    largest = _scale(max(abs(west), abs(north)))
    c.context[5] = ((_sign(west) * 3 + _sign(north)) * 30 + largest) * 3 + min(under, 2)
    return integer(c, data, value, first, _shift_of(local), min(_scale(local) // 3, _KINDS), writing)


# --- latents

PRIMED = 3  # inputs whose contexts know the dimension
_TRUST = 12  # decisions that a table counts for


@inner()
def _usual_shift(usual: int) -> int:
    """Raw bits of codes of a usual size, in 1/16, so that what is left is at most about 5."""
    shift = 0
    while usual >> (4 + shift) > 5:
        shift += 1
    return shift


def prime(counter: np.ndarray, usual: np.ndarray, offset: np.ndarray, frequency: np.ndarray) -> None:
    """First state of the counters, and usual sizes of the codes in 1/16.

    Entry 0 of a table is its escape, entries of 0 pad it: neither counts.
    """
    _prime(counter, usual, offset, frequency, np.zeros(_UNARY + 2, np.int64))


@outer
def _prime(
    counter: np.ndarray, usual: np.ndarray, offset: np.ndarray, frequency: np.ndarray, at_least: np.ndarray
) -> None:
    """`prime`; at_least: scratch, how frequent a magnitude is, without what is raw."""
    for k in range(offset.size):
        total, weighted, nonzero, negative = 1, 0, 0, 0
        for s in range(1, frequency.shape[1]):
            value, often = offset[k] + s - 1, frequency[k, s]
            total += often
            weighted += often * abs(value)
            nonzero += often if value != 0 else 0
            negative += often if value < 0 else 0
        usual[k] = 16 * (weighted // total)
        shift = _usual_shift(usual[k])
        for node in range(at_least.size):
            at_least[node] = 0
        for s in range(1, frequency.shape[1]):
            at_least[min(abs(offset[k] + s - 1) >> shift, _UNARY)] += frequency[k, s]
        for node in range(_UNARY, -1, -1):
            at_least[node] += at_least[node + 1]
        for node in range(NODES):
            all_of = nonzero if node == _SIGN else at_least[node]
            ones = negative if node == _SIGN else at_least[node + 1]
            p = ((2 * ones + 1) << 21) // (2 * all_of + 2)
            p = max(32, min((1 << 21) - 32, p))
            counter[0, node, k] = p << 10 | _TRUST
            for context in range(3):
                counter[1, node, 3 * k + context] = p << 10 | _TRUST
                counter[2, node, 3 * k + context] = p << 10 | _TRUST


def latent_codes(c: Coder, data: np.ndarray, z: np.ndarray, first: np.ndarray, writing: bool) -> np.ndarray:
    """Code z int64 ``[T, C, d]``, whose usual sizes are `first` to begin with; fills it when reading.

    Returns the buffer.
    """
    times, levels, d = z.shape
    past = np.zeros((levels, 7, d), np.int64)
    past[:, 3] = first
    signals = z.reshape(times * levels, d)
    for begin, end in _runs(times * levels, d):
        if writing:
            data = reserve(c.state, data, (end - begin) * d)
        _latents(c, data, signals, past, begin, end, writing)
    return data


@outer
def _latents(
    c: Coder, data: np.ndarray, signals: np.ndarray, past: np.ndarray, begin: int, end: int, writing: bool
) -> None:
    """Code signals ``[begin, end)`` of ``[T * C, d]``."""
    levels = past.shape[0]
    for p in range(begin, end):
        _latent_signal(c, data, signals[p], past[p % levels], p // levels, writing)


@inner(inline="always")
def _latent_signal(c: Coder, data: np.ndarray, z: np.ndarray, past: np.ndarray, t: int, writing: bool) -> None:
    """Code the latents of one signal, z ``[d]``.

    past ``[7, d]``: the code before; a running mean in 1/256; the last difference; usual sizes of differences in 1/16;
    and how far none, the code before and the mean have missed, fading.
    """
    nonzero, one, two = 0, 0, 0  # of this signal; sizes of the two differences before
    for k in range(z.size):
        before, mean, last, recent = past[0, k], past[1, k], abs(past[2, k]), past[3, k]
        middle, guess = (mean + 128) >> 8, 0
        nearest = past[4, k] * 3 >> 2  # a prediction has to be clearly better than none
        if past[5, k] < nearest:
            guess, nearest = before, past[5, k]
        if past[6, k] < nearest:
            guess = middle
        c.context[0] = k
        c.context[1] = 3 * k + min(last, 2)
        c.context[2] = 3 * k + min(one + two, 2)
        c.context[3] = min(recent >> 2, 60)
        c.context[4] = min(recent >> 4, 15) * 16 + min(nonzero, 15)
        c.context[5] = min(one + two, 7) * 8 + min(last, 7)
        difference = z[k] - guess
        difference = integer(c, data, difference, _ZERO, _usual_shift(recent), min(one + two, 2), writing)
        value = max(-LIMIT, min(LIMIT, difference + guess))  # whatever a damaged stream says
        difference = value - guess
        z[k] = value
        one, two = abs(difference), one
        nonzero += 1 if difference != 0 else 0
        past[4, k] += 16 * abs(value) - (past[4, k] >> 4)
        past[5, k] += 16 * abs(value - before) - (past[5, k] >> 4)
        past[6, k] += 16 * abs(value - middle) - (past[6, k] >> 4)
        past[0, k], past[2, k] = value, difference
        past[1, k] += ((value << 8) - mean) // min(t + 1, 16)
        past[3, k] += (16 * abs(difference) - recent) >> 2
