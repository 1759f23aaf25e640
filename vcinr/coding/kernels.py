"""Binary arithmetic coding of residuals and latents, compiled by Numba.

The file is built from the bottom up. Functions that code something take a flag `writing`: the same function writes and
reads, so that the two cannot disagree. docs/format.md specifies every number below (sections Binary stream, Latents
and Residual).

1. *Range coder* (`_code_bit`, `_raw`). A byte-wise range coder with carry (Martin 1979) codes one decision, 0 or 1,
   at a given probability.
2. *Decisions* (`bit`, `rare`). The probability of a 1 is estimated by `INPUTS` adaptive counters, each of which is
   selected by a context of its own. Their logits are summed with weights that learn online (logistic mixing: Mahoney
   2005, "Adaptive weighing of context models"). After the decision, counters and weights move towards it. `rare` uses
   a single counter instead.
3. *Integers* (`integer`). An integer is a sequence of decisions: its magnitude in unary, then its sign. The caller
   sets the contexts, and says how many of the lowest bits are coded raw, at even odds.
4. *Planes* (`adaptive`, `plain`). Residuals ``[T, C, H, W]`` are coded plane by plane. `adaptive` visits a plane from
   coarse to fine: `_refine` predicts each point from points that are known already (`_gather`), `_code_point` codes
   the difference in steps, and `_learn_weights` improves the prediction. `plain` predicts nothing and codes rounded
   values row by row. In both, contexts are the sizes of the codes nearby.
5. *Scattered points* (`nearest`). As `adaptive`, but each point is predicted from its nearest neighbours, which
   `vcinr.coding.neighbours` has found.
6. *Latents* (`prime`, `latent_codes`). Each latent is coded as its difference from the nearest of three guesses.
   Counters start from the model's static tables.

Parsing depends on integers alone: counters, weights, contexts and coder are integers, and their tables are computed
in decimal arithmetic. Reconstructed values use float64 addition, multiplication, division and square root, one by one
in a fixed order and never fused. So IEEE 754 makes every machine read the same values from the same bytes.

With NUMBA_DISABLE_JIT=1 the same source runs as plain Python, slowly. All kernels are in one file because Numba keeps
a compiled function until the function's own file changes, whatever happens to the functions that it calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from vcinr.compiled import inner, outer
from vcinr.errors import CorruptError

INPUTS = 6
"""Counters whose estimates are mixed for each decision."""
_INPUT_COUNT = np.uint64(6)  # INPUTS; an unsigned index spares the check for negative ones
_UNARY_LIMIT = 20
# Arguments of kernels are NumPy's integers, because Numba would compile a function anew for each literal.
_SIGN: Any = np.int64(_UNARY_LIMIT)
_EVEN_ODDS: Any = np.int64(32768)
_ZERO: Any = np.int64(0)
NODES = _UNARY_LIMIT + 1
"""Decisions that an integer may have: 0 whether it is zero, 1 to 19 its magnitude in unary, 20 its sign."""
SETS = 9
"""Sets of mixing weights, from which the caller of `integer` chooses."""
LIMIT = 1 << 50
"""Integers of this magnitude or more cannot be coded."""

_LOGIT = 3071  # largest logit, just below 12, in units of 1/256
COUNT_LIMIT = 400  # counts stop here, so that a counter always moves by about 1 / 400 and keeps adapting
_LOW, _RANGE, _CACHE, _PENDING, _POSITION = range(5)
_CODE = _LOW  # a reader keeps its code where a writer keeps the low end of its range
_INTEGERS_PER_CALL = 1 << 16  # about; kernels allocate nothing, so a buffer must have room for them beforehand
_MAX_BYTES = 96  # of one integer: 21 decisions take at most 16 bits each, and at most 101 bits are raw


class Coder(NamedTuple):
    """State of a writer or a reader of a binary stream.

    Attributes
    ----------
    state : numpy.ndarray
        int64 ``[5]``: the range coder's registers, indexed by `_LOW`, `_RANGE`, `_CACHE`, `_PENDING` and `_POSITION`.
    counter : numpy.ndarray
        int32 ``[INPUTS, NODES, contexts]``: in the upper 21 bits the probability of a 1, in the lower 10 bits the
        number of decisions seen.
    rare : numpy.ndarray
        int32 ``[contexts]``: the same for single decisions (`rare`).
    weight : numpy.ndarray
        int64 ``[SETS * NODES, INPUTS]``: mixing weights with 16 fractional bits.
    context : numpy.ndarray
        uint64 ``[INPUTS]``: the contexts, which the caller sets before each integer.
    logit : numpy.ndarray
        int64 ``[INPUTS]``: scratch.
    stretch, squash, reciprocal : numpy.ndarray
        The tables of `_tables`.
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
    """The tables of every coder.

    Returns
    -------
    stretch : numpy.ndarray
        Probability in 16 bits to logit.
    squash : numpy.ndarray
        Logit to probability, the inverse.
    reciprocal : numpy.ndarray
        How fast a counter moves after each number of decisions seen, in 1 / 2^16.
    """
    with localcontext() as context:
        context.prec = 30
        positive = [int((65536 / (1 + (Decimal(-k) / 256).exp())).to_integral_value()) for k in range(_LOGIT + 1)]
    half = np.minimum(np.array(positive, np.int32), 65535)
    squash = np.concatenate([65536 - half[:0:-1], half])
    stretch = np.minimum(np.searchsorted(squash, np.arange(65536)), 2 * _LOGIT) - _LOGIT
    seen = np.arange(COUNT_LIMIT + 1, dtype=np.int64)
    return stretch.astype(np.int16), squash, 655360 // (10 * seen + 16)


def coder(contexts: int, rare: int = 0) -> Coder:
    """A new coder, for writing or for reading.

    At first it expects an integer to be zero with odds of 3:1, and a rare decision to be 0 with odds of 15:1.

    Parameters
    ----------
    contexts : int
        Number of contexts that each of the inputs of `integer` may have.
    rare : int
        Number of contexts of `rare`.
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
    """Read the first four bytes of a stream."""
    for _ in range(4):
        state[_CODE] = state[_CODE] << 8 | _next_byte(state, data)


@outer
def _finish(state: np.ndarray, data: np.ndarray) -> int:
    """Flush a writer; returns the number of bytes written.

    Of all numbers in [low, low + range), which decode alike, it writes the one with the most trailing zeros.
    """
    state[_LOW] = (state[_LOW] + 0xFFFFFF) & ~0xFFFFFF
    for _ in range(5):
        _shift_out(state, data)
    return state[_POSITION]


def stream(c: Coder, data: np.ndarray) -> bytes:
    """The bytes that a writer has written.

    The first byte in the buffer is always 0 and is dropped. Zeros among the last four bytes are dropped too, since a
    reader takes bytes beyond the end as zeros.
    """
    written = data[1 : _finish(c.state, data)].tobytes()
    return written[:-4] + written[-4:].rstrip(b"\0")


def open_stream(c: Coder, data: bytes) -> np.ndarray:
    """A reader's buffer for `data`, with its first bytes taken in.

    Bytes beyond the end of a stream count as zeros.
    """
    array = np.frombuffer(bytearray(data), np.uint8)
    _start(c.state, array)
    return array


def check_end(c: Coder, data: np.ndarray) -> None:
    """Raise CorruptError unless a reader has taken its whole stream, and hardly more.

    A reader may be up to four bytes beyond the end, as `stream` drops so many zeros.
    """
    if not c.state[_POSITION] - 4 <= len(data) <= c.state[_POSITION]:
        raise CorruptError("a bitstream does not end where it should")


def reserve(state: np.ndarray, data: np.ndarray, integers: int) -> np.ndarray:
    """`data` itself, or a larger copy of it, with room for `integers` more integers."""
    needed = int(state[_POSITION] + state[_PENDING]) + _MAX_BYTES * integers + 16
    if needed <= data.size:
        return data
    larger = np.empty(2 * needed, np.uint8)
    larger[: state[_POSITION]] = data[: state[_POSITION]]
    return larger


def _runs(items: int, integers: int) -> Iterator[tuple[int, int]]:
    """(first, last) of consecutive runs of items, of some `_INTEGERS_PER_CALL` integers each.

    Each call of a kernel codes one run, so that the writer's buffer can grow between calls. `integers`: how many an
    item has.
    """
    per_call = max(1, _INTEGERS_PER_CALL // max(1, integers))
    for first in range(0, items, per_call):
        yield first, min(first + per_call, items)


@inner()
def _next_byte(state: np.ndarray, data: np.ndarray) -> int:
    """The next byte of a stream; 0 beyond its end."""
    position = state[_POSITION]
    state[_POSITION] = position + 1
    return data[position] if position < data.size else 0


@inner()
def _shift_out(state: np.ndarray, data: np.ndarray) -> None:
    """Move the top byte of the low end to the output.

    Bytes of 0xFF are only counted as pending, since a carry may still reach through them.
    """
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


@inner(forceinline=True)  # a call would take longer than the function itself
def bit(c: Coder, data: np.ndarray, node: int, weights: int, value: int, writing: bool) -> int:
    """Code one decision under the contexts in `c.context`.

    Parameters
    ----------
    c : Coder
        Its counters and weights learn the decision.
    data : numpy.ndarray
        uint8 buffer to write to, or the stream to read.
    node : int
        Which decision of an integer this is, see `NODES`.
    weights : int
        Row of `c.weight` to mix with.
    value : int
        The decision to write; ignored when reading.
    writing : bool
        Whether to write or to read.

    Returns
    -------
    int
        The decision, 0 or 1.
    """
    mixed, node_index, weight_row = 0, np.uint64(node), np.uint64(weights)
    for i in range(_INPUT_COUNT):
        logit = int(c.stretch[np.uint64(c.counter[i, node_index, c.context[i]] >> 15)])
        c.logit[i] = logit
        mixed += c.weight[weight_row, i] * logit
    p: Any = np.int64(c.squash[np.uint64(max(-_LOGIT, min(_LOGIT, mixed >> 16)) + _LOGIT)])
    value = _code_bit(c.state, data, p, value, writing)
    error = ((value << 16) - p) * 10
    for i in range(_INPUT_COUNT):
        c.weight[weight_row, i] += (c.logit[i] * error + (1 << 19)) >> 20
        c.counter[i, node_index, c.context[i]] = _updated(c, int(c.counter[i, node_index, c.context[i]]), value)
    return value


@inner()
def rare(c: Coder, data: np.ndarray, context: int, value: int, writing: bool) -> int:
    """Code one decision with a single counter, and return it.

    This is for decisions that are hardly ever 1, for which mixing several counters does not pay. Arguments are those of
    `bit`; `context` is an index of `c.rare`.
    """
    counter = int(c.rare[context])
    p: Any = np.int64(max(1, min(65535, counter >> 15)))
    value = _code_bit(c.state, data, p, value, writing)
    c.rare[context] = _updated(c, counter, value)
    return value


@inner(forceinline=True)
def _updated(c: Coder, counter: int, value: int) -> int:
    """The counter after a decision: it has moved 1 / (n + 1.6) of the way towards it."""
    seen, probability = counter & 1023, counter >> 10
    probability += ((value << 21) - probability) * c.reciprocal[np.uint64(seen)] >> 16
    return probability << 10 | min(seen + 1, COUNT_LIMIT)


@inner(forceinline=True)  # a call would take longer than the function itself
def _code_bit(state: np.ndarray, data: np.ndarray, p: int, value: int, writing: bool) -> int:
    """Code one decision that is 1 with probability p / 65536, and return it.

    The less likely decision takes the upper part of the range, whose size is rounded down.
    """
    size = state[_RANGE]
    likely = 1 if p >= 32768 else 0
    upper = (size >> 16) * (65536 - p if likely else p)
    size -= upper
    if writing:
        unlikely = value != likely
        if unlikely:
            state[_LOW] += size
    else:
        unlikely = state[_CODE] >= size
        if unlikely:
            state[_CODE] -= size
    size = upper if unlikely else size
    while size < 1 << 24:
        size <<= 8
        if writing:
            _shift_out(state, data)
        else:
            state[_CODE] = state[_CODE] << 8 | _next_byte(state, data)
    state[_RANGE] = size
    return 1 - likely if unlikely else likely


@inner()
def _raw(state: np.ndarray, data: np.ndarray, value: int, width: int, writing: bool) -> int:
    """Code the lowest `width` bits of `value`, the highest bit first, each at even odds."""
    bits = 0
    for k in range(width - 1, -1, -1):
        bits = bits << 1 | _code_bit(state, data, _EVEN_ODDS, (value >> k) & 1, writing)
    return bits


@inner()
def integer(c: Coder, data: np.ndarray, value: int, first: int, shift: int, weights: int, writing: bool) -> int:
    """Code one integer under the contexts in `c.context`.

    The magnitude without its lowest `shift` bits is coded in unary, and from 20 on continued by an Elias gamma code.
    The lowest bits follow raw, then the sign.

    Parameters
    ----------
    c, data, writing
        As those of `bit`.
    value : int
        The integer to write, below `LIMIT` in magnitude; ignored when reading.
    first : int
        1 where the magnitude is known not to be 0 (`shift` is 0 then), else 0.
    shift : int
        How many of the lowest bits are raw.
    weights : int
        Set of mixing weights, below `SETS`.

    Returns
    -------
    int
        The integer.
    """
    magnitude = abs(value)
    high = magnitude >> shift
    prefix = first
    while prefix < _UNARY_LIMIT and bit(c, data, prefix, weights + SETS * prefix, 1 if high > prefix else 0, writing):
        prefix += 1
    if prefix == _UNARY_LIMIT:
        excess, length = high - prefix + 1, 0
        if writing:
            while excess >> (length + 1):
                length += 1
        length = _gamma_length(c.state, data, length, writing)
        prefix += (1 << length | _raw(c.state, data, excess & ((1 << length) - 1), length, writing)) - 1
    magnitude = prefix << shift | _raw(c.state, data, magnitude & ((1 << shift) - 1), shift, writing)
    if magnitude and bit(c, data, _SIGN, weights + SETS * _SIGN, 1 if value < 0 else 0, writing):
        return -magnitude
    return magnitude


@inner()
def _gamma_length(state: np.ndarray, data: np.ndarray, length: int, writing: bool) -> int:
    """Code the length of an Elias gamma code in unary, as raw bits.

    It is never above 50, whatever a damaged stream says.
    """
    count = 0
    while count < 50 and _code_bit(state, data, _EVEN_ODDS, 1 if count < length else 0, writing):
        count += 1
    return count


# --- planes

_LEVELS = 4  # lattice levels that have weights and contexts of their own; coarser ones share the last
_KINDS = 2 * _LEVELS  # kinds of points: cell centres and edge midpoints of each level; the first point is one more kind
CONTEXTS = 4096
"""Contexts of integers in `adaptive`, and of single decisions in `adaptive` and `plain`."""
PLAIN_CONTEXTS = 1120
"""Contexts of integers in `plain`: fewer, so that a coder is made sooner."""
_FORGET_AFTER = {False: 4096, True: 512}
"""Points after which a least-squares problem halves the weight of what it has seen, by `brief`."""
_MAX_CONTEXT_CODE = 4095  # codes are clipped to this magnitude where they serve as contexts

# Neighbours of a cell centre, then of an edge midpoint, as (row, column) in units of the lattice's stride. Far ones are
# pairs (row, column, row, column) whose values are added; where both are the same, only one counts.
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
_NEIGHBOURS = 8  # of a scattered point
_SPATIAL_FEATURES = 16
_FEATURES = _SPATIAL_FEATURES + 4
_SCALE_TABLE = np.searchsorted(
    [1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 28, 37, 50, 67, 90, 120, 160, 220, 300, 400, 600, 900], np.arange(1024), "right"
).astype(np.int64)


@inner(forceinline=True)
def _scale(value: int) -> int:
    """A magnitude on a roughly logarithmic scale, from 0 to 29, for use in contexts."""
    if value < 1024:
        return int(_SCALE_TABLE[value])
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
    a: np.ndarray, b: np.ndarray, ridge: float, weights: np.ndarray, n: int, factor: np.ndarray, right: np.ndarray
) -> None:
    """Solve (a + ridge I) weights = b for the first n weights, by Cholesky decomposition.

    Only the lower triangle of `a` ``[F, F]`` is used. Each column's products are subtracted from the rest as soon as
    the column is known. Every entry sees the same operations in the same order as docs/format.md has them, and the
    compiler can vectorise the loops. `factor` (transposed Cholesky factor) and `right` (right-hand side) are scratch.
    """
    for j in range(n):
        right[j] = b[j]
        for i in range(j, n):
            factor[j, i] = a[i, j]
        factor[j, j] += ridge
    for k in range(n):
        if not factor[k, k] > 0.0:
            return  # rounding has made the matrix singular: the weights stay as they are
        factor[k, k] = math.sqrt(factor[k, k])
        for i in range(k + 1, n):
            factor[k, i] /= factor[k, k]
        right[k] /= factor[k, k]
        for j in range(k + 1, n):
            right[j] -= factor[k, j] * right[k]
            for i in range(j, n):
                factor[j, i] -= factor[k, i] * factor[k, j]
    for i in range(n - 1, -1, -1):
        rest = right[i]
        for k in range(i + 1, n):
            rest -= factor[i, k] * weights[k]
        weights[i] = rest / factor[i, i]


class _Plane(NamedTuple):
    """One plane ``[H, W]`` under construction, with the planes that predict it, each flattened to ``[H * W]``.

    Planes and codes that do not exist are zeros.

    Attributes
    ----------
    now : numpy.ndarray
        Reconstructed values of this plane.
    code : numpy.ndarray
        int16: codes of this plane.
    earlier : numpy.ndarray
        Values of the same level at the time before.
    mean : numpy.ndarray
        Mean over all earlier times of the same level.
    below : numpy.ndarray
        Values of the level below at the same time.
    before_below : numpy.ndarray
        Values of the level below at the time before.
    code_earlier, code_below : numpy.ndarray
        Codes of `earlier` and `below`.
    activity : numpy.ndarray
        int64: how large the codes at a point have been, see `_remember_codes`.
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
    """The least-squares problems whose solutions are the prediction weights, one for each kind of point.

    F is the number of features (`_FEATURES`).

    Attributes
    ----------
    normal : numpy.ndarray
        ``[kinds, F, F]``: normal matrices, of which the lower triangles count.
    target : numpy.ndarray
        ``[kinds, F]``: right-hand sides.
    solution : numpy.ndarray
        ``[kinds, F]``: the current weights.
    seen, due : numpy.ndarray
        int64 ``[kinds]``: number of points so far, and the number at which the problem is solved next.
    features : numpy.ndarray
        ``[F]``: features of the current point, filled by `_gather`.
    offset : numpy.ndarray
        int64 ``[3, 8, 2]``: positions of its neighbours, filled by `_fill_offsets`.
    factor : numpy.ndarray
        ``[F, F]``: scratch of `_solve`.
    right : numpy.ndarray
        ``[F]``: scratch of `_solve`.
    forget : numpy.ndarray
        int64 ``[1]``: of `_FORGET_AFTER`.
    """

    normal: np.ndarray
    target: np.ndarray
    solution: np.ndarray
    seen: np.ndarray
    due: np.ndarray
    features: np.ndarray
    offset: np.ndarray
    factor: np.ndarray
    right: np.ndarray
    forget: np.ndarray


class _Planes(NamedTuple):
    """What `adaptive` remembers from one plane to the next; each row holds the H * W points of one level.

    Attributes
    ----------
    mean : numpy.ndarray
        ``[C, H * W]``: mean of the values of all times so far.
    activity : numpy.ndarray
        int64 ``[C, H * W]``: see `_remember_codes`.
    code : numpy.ndarray
        int16 ``[2, C, H * W]``: codes of this time and of the time before, which alternate.
    no_values, no_codes : numpy.ndarray
        Zeros ``[H * W]``, for planes that do not exist.
    """

    mean: np.ndarray
    activity: np.ndarray
    code: np.ndarray
    no_values: np.ndarray
    no_codes: np.ndarray


def _planes(
    values: np.ndarray, recon: np.ndarray, valid: np.ndarray
) -> tuple[_Planes, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Empty memory for planes; and values, reconstruction and mask as ``[T * C, size]``, the mask also ``[1, 1]``."""
    (times, levels), size = recon.shape[:2], math.prod(recon.shape[2:])
    memory = _Planes(
        np.zeros((levels, size)), np.zeros((levels, size), np.int64), np.zeros((2, levels, size), np.int16),
        np.zeros(size), np.zeros(size, np.int16),
    )  # fmt: skip
    shape = (times * levels, size)
    return memory, values.reshape(shape), recon.reshape(shape), valid.reshape(shape if valid.size > 1 else (1, 1))


def _in_runs(
    c: Coder, data: np.ndarray, count: int, size: int, writing: bool, code: Callable[[np.ndarray, int, int], bool],
    room: int = 1,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Code planes run by run with `code`, which gets the buffer and the planes' numbers; results as of `adaptive`.

    A writer's buffer gets room for `room` integers a point.
    """
    for first, last in _runs(count, size):
        if writing:
            data = reserve(c.state, data, (last - first) * room * size)
        if not code(data, first, last):
            return data, False
    return data, True


def adaptive(
    c: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, sizes: np.ndarray,
    temporal: bool, brief: bool, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Code planes with the adaptive predictor (see `vcinr.coding.residual`).

    Parameters
    ----------
    c : Coder
        From `coder`, with `CONTEXTS` of both kinds.
    data : numpy.ndarray
        uint8 buffer to write to, or the stream to read.
    values : numpy.ndarray
        float64 ``[T, C, H, W]``; not looked at when reading.
    recon : numpy.ndarray
        Is filled with the reconstruction, of the same shape.
    valid : numpy.ndarray
        bool: of the same shape, or a single True. Other points are not coded, but filled with their prediction.
    sizes : numpy.ndarray
        Step of each lattice level, the finest first.
    temporal : bool
        Whether planes of earlier times are used.
    brief : bool
        Whether weights forget soon, see `_FORGET_AFTER`.
    writing : bool
        Whether to write or to read.

    Returns
    -------
    data : numpy.ndarray
        The buffer, which may be a larger one.
    fits : bool
        False where a value is too large for its step; what has been written is then of no use.
    """
    height, width = recon.shape[2:]
    size = height * width
    weights = _Weights(
        np.zeros((_KINDS, _FEATURES, _FEATURES)), np.zeros((_KINDS, _FEATURES)), np.zeros((_KINDS, _FEATURES)),
        np.zeros(_KINDS, np.int64), np.full(_KINDS, 64, np.int64), np.zeros(_FEATURES),
        np.zeros((3, 8, 2), np.int64), np.zeros((_FEATURES, _FEATURES)), np.zeros(_FEATURES),
        np.array([_FORGET_AFTER[brief]]),
    )  # fmt: skip
    memory, given, out, mask = _planes(values, recon, valid)

    def code(data: np.ndarray, first: int, last: int) -> bool:
        return _adaptive_planes(
            c, data, given, out, mask, width, weights, memory, sizes, first, last, temporal, writing
        )  # fmt: skip

    return _in_runs(c, data, len(given), size, writing, code)


@outer
def _adaptive_planes(
    c: Coder, data: np.ndarray, given: np.ndarray, out: np.ndarray, valid: np.ndarray, width: int, weights: _Weights,
    memory: _Planes, sizes: np.ndarray, begin: int, end: int, temporal: bool, writing: bool,
) -> bool:  # fmt: skip
    """Code planes ``[begin, end)`` of `given` and `out` ``[T * C, H * W]``; returns whether all values fit."""
    levels, points = memory.mean.shape
    for p in range(begin, end):
        t, level = p // levels, p % levels
        has_earlier, has_below = temporal and t > 0, level > 0
        plane = _Plane(
            out[p], memory.code[t & 1, level],
            out[p - levels] if has_earlier else memory.no_values,
            memory.mean[level] if has_earlier else memory.no_values,
            out[p - 1] if has_below else memory.no_values,
            out[p - levels - 1] if has_earlier and has_below else memory.no_values,
            memory.code[1 - (t & 1), level] if has_earlier else memory.no_codes,
            memory.code[t & 1, level - 1] if has_below else memory.no_codes, memory.activity[level],
        )  # fmt: skip
        used = _SPATIAL_FEATURES + (4 if has_below else (2 if has_earlier else 0))
        mean = memory.mean[level]
        first = mean[0] if has_earlier else plane.below[0]
        mask = valid[p if valid.size > 1 else 0]
        if not _refine(c, data, given[p], plane, mask, points // width, width, weights, sizes, used, first, writing):
            return False
        for index in range(points):
            mean[index] += (plane.now[index] - mean[index]) / (t + 1)
        _remember_codes(memory.activity[level], plane.code, t)
    return True


@inner()
def _remember_codes(activity: np.ndarray, code: np.ndarray, t: int) -> None:
    """Update a fading mean of 64 |code| at every point of a plane."""
    for index in range(activity.size):
        size = 64 * abs(int(code[index]))
        activity[index] = size if t == 0 else activity[index] + ((size - activity[index]) >> (3 if t > 7 else 2))


@inner(inline="always")
def _refine(
    c: Coder, data: np.ndarray, values: np.ndarray, plane: _Plane, valid: np.ndarray, height: int, width: int,
    weights: _Weights, sizes: np.ndarray, used: int, first: float, writing: bool,
) -> bool:  # fmt: skip
    """Code one plane from coarse to fine; returns whether all values fit.

    The first point is predicted as `first`. Each lattice adds the centres of the cells of the one before (phase 0),
    then the midpoints of their edges (phase 1). `used`: how many of the features are used.
    """
    top = 0
    while 1 << top < max(height, width):
        top += 1
    for lattice in range(top, -1, -1):
        stride, size = 1 << lattice, sizes[lattice]
        for phase in range(1 if lattice == top else 2):  # centres, then midpoints
            kind = _KINDS if lattice == top else 2 * min(lattice, _LEVELS - 1) + phase
            start = stride if phase == 0 and lattice < top else 0
            _fill_offsets(weights.offset, phase, stride, width)
            for i in range(start, height, stride if phase else 2 * stride):
                for j in range(
                    0 if phase and (i >> lattice) & 1 else (start if phase == 0 else stride), width, 2 * stride
                ):
                    index = i * width + j
                    is_valid, code, base, near, before = valid[index if valid.size > 1 else 0], 0, 0.0, 0, 0
                    prediction = first
                    if kind < _KINDS:
                        inside = 3 * stride <= i < height - 3 * stride and 3 * stride <= j < width - 3 * stride
                        if inside:
                            base, near, before = _gather_inside(plane, weights.features, weights.offset, phase, index)
                        else:
                            base, near, before = _gather(plane, weights.features, phase, stride, i, j, height, width)
                        prediction = base
                        if (
                            is_valid
                        ):  # no code corrects a masked point: the weights could make its value grow without end
                            for k in range(used):
                                prediction += weights.solution[kind, k] * weights.features[k]
                    if is_valid:
                        if writing:
                            scaled = (values[index] - prediction) / size
                            if not abs(scaled) < LIMIT - 1:
                                return False
                            code = math.floor(scaled + 0.5)
                        west = _sign(int(plane.code[index - 2 * stride])) if j >= 2 * stride else 1
                        north = _sign(int(plane.code[index - 2 * stride * width])) if i >= 2 * stride else 1
                        code = _code_point(c, data, plane, index, code, kind, near, before, west, north, writing)
                    plane.now[index] = prediction + code * size
                    plane.code[index] = max(-_MAX_CONTEXT_CODE, min(_MAX_CONTEXT_CODE, code))
                    if is_valid and kind < _KINDS:
                        _learn_weights(weights, kind, used, plane.now[index] - base, 2 * before + near, sizes[0])
    return True


@inner()
def _fill_offsets(offset: np.ndarray, phase: int, stride: int, width: int) -> None:
    """Fill in how far each neighbour is from a point of the flattened plane.

    Rows of `offset` are the near neighbours, those before and the far ones; only the far ones may be pairs.
    """
    for k in range(4):
        offset[0, k, 0] = (_NEAR[phase, k, 0] * width + _NEAR[phase, k, 1]) * stride
        offset[1, k, 0] = (_BEFORE[phase, k, 0] * width + _BEFORE[phase, k, 1]) * stride
    for k in range(8):
        offset[2, k, 0] = (_FAR[phase, k, 0] * width + _FAR[phase, k, 1]) * stride
        offset[2, k, 1] = (_FAR[phase, k, 2] * width + _FAR[phase, k, 3]) * stride


@inner(inline="always")
def _gather_inside(
    plane: _Plane, features: np.ndarray, offset: np.ndarray, phase: int, index: int
) -> tuple[float, int, int]:
    """`_gather` for a point whose neighbours are all inside the plane, without their checks."""
    base, near, before = 0.0, 0, 0
    earlier, mean, below, before_below = 0.0, 0.0, 0.0, 0.0
    for k in range(4):
        neighbour = index + offset[0, k, 0]
        base += plane.now[neighbour]
        near += abs(int(plane.code[neighbour]))
        earlier += plane.earlier[neighbour]
        mean += plane.mean[neighbour]
        below += plane.below[neighbour]
        before_below += plane.before_below[neighbour]
        before += abs(int(plane.code[index + offset[1, k, 0]]))
    base /= 4
    for k in range(4):
        features[k] = plane.now[index + offset[0, k, 0]] - base
        features[4 + k] = plane.now[index + offset[1, k, 0]] - base
    for k in range(8):
        features[8 + k] = plane.now[index + offset[2, k, 0]] - base
    if phase:
        for k in range(4, 8):
            features[8 + k] += plane.now[index + offset[2, k, 1]] - base
    features[16] = plane.earlier[index] - earlier / 4
    features[17] = plane.mean[index] - mean / 4
    features[18] = plane.below[index] - below / 4
    features[19] = plane.before_below[index] - before_below / 4
    return base, near, before


@inner()
def _gather(
    plane: _Plane, features: np.ndarray, phase: int, stride: int, i: int, j: int, height: int, width: int
) -> tuple[float, int, int]:
    """Fill in the features of the point (i, j).

    Returns
    -------
    base : float
        Mean of the values of the near neighbours.
    near : int
        Sum of |code| at them; where some are outside the plane, scaled up to four.
    before : int
        Sum of |code| at the neighbours before.
    """
    index = i * width + j
    base, near, before, inside = 0.0, 0, 0, 0
    earlier, mean, below, before_below = 0.0, 0.0, 0.0, 0.0
    for k in range(4):
        y, x = i + _NEAR[phase, k, 0] * stride, j + _NEAR[phase, k, 1] * stride
        features[k] = math.inf
        if 0 <= y < height and 0 <= x < width:
            neighbour = y * width + x
            features[k] = plane.now[neighbour]
            base += features[k]
            near += abs(int(plane.code[neighbour]))
            earlier += plane.earlier[neighbour]
            mean += plane.mean[neighbour]
            below += plane.below[neighbour]
            before_below += plane.before_below[neighbour]
            inside += 1
    base /= inside
    near = 4 * near // inside
    for k in range(4):
        features[k] = features[k] - base if features[k] != math.inf else 0.0
    for k in range(4):
        y, x = i + _BEFORE[phase, k, 0] * stride, j + _BEFORE[phase, k, 1] * stride
        features[4 + k] = 0.0
        if y >= 0 and 0 <= x < width:
            features[4 + k] = plane.now[y * width + x] - base
            before += abs(int(plane.code[y * width + x]))
        else:
            before += near >> 2
    for k in range(8):
        y, x = i + _FAR[phase, k, 0] * stride, j + _FAR[phase, k, 1] * stride
        total = 0.0
        if 0 <= y < height and 0 <= x < width:
            total = plane.now[y * width + x] - base
        if phase == 1 and k >= 4:
            y, x = i + _FAR[phase, k, 2] * stride, j + _FAR[phase, k, 3] * stride
            if 0 <= y < height and 0 <= x < width:
                total += plane.now[y * width + x] - base
        features[8 + k] = total
    features[16] = plane.earlier[index] - earlier / inside
    features[17] = plane.mean[index] - mean / inside
    features[18] = plane.below[index] - below / inside
    features[19] = plane.before_below[index] - before_below / inside
    return base, near, before


@inner(inline="always")
def _code_point(
    c: Coder, data: np.ndarray, plane: _Plane, index: int, code: int, kind: int, near: int, before: int, west: int,
    north: int, writing: bool,
) -> int:  # fmt: skip
    """Code the integer of one point of `adaptive`, and return it.

    `near` and `before` are sums of |code| from `_gather`; `west` and `north` are the signs of the codes there.
    """
    then, under = abs(int(plane.code_earlier[index])), abs(int(plane.code_below[index]))
    active = _scale(plane.activity[index] >> 2)
    local = 2 * before + near
    first = 0
    if local + then + under == 0:
        first = rare(c, data, ((kind * 30 + active) * 3 + west) * 3 + north, 1 if code != 0 else 0, writing)
        if not first:
            return 0
    before_scale = _scale(before)
    c.context[0] = (kind * 20 + min(_scale(near), 19)) * 22 + min(before_scale, 21)
    c.context[1] = kind * 30 + _scale(local + 4 * then + 4 * under)
    c.context[2] = (kind * 30 + active) * 4 + min(before, 3)
    c.context[3] = ((kind * 6 + min(then, 5)) * 6 + min(under, 5)) * 6 + min(before_scale, 5)
    c.context[4] = (kind * 30 + _scale(16 * then + 16 * under)) * 4 + min(before_scale >> 1, 3)
    c.context[5] = ((kind * 3 + west) * 3 + north) * 30 + _scale(near + before)
    return integer(c, data, code, first, _shift_of(local), kind, writing)


@inner(forceinline=True)
def _shift_of(local: int) -> int:
    """Number of raw bits of a code whose neighbours have the total size `local`.

    What remains of the code is then about 6 in size.
    """
    shift = 0
    while local >> (3 + shift) > 6:
        shift += 1
    return shift


@inner(inline="always")
def _learn_weights(weights: _Weights, kind: int, used: int, value: float, local: int, step: float) -> None:
    """Add the equation "weights times features equals value" to a problem, and solve it when it is due.

    Equations count less where the codes nearby are large (`local`). Features that are not used are zero, so whole rows
    can be added, which the compiler vectorises.
    """
    trust = 1.0 / (1.0 + 0.04 * local * local)
    for p in range(_FEATURES):
        scaled = weights.features[p] * trust
        weights.target[kind, p] += scaled * value
        row = weights.normal[kind, p]
        for q in range(row.size):
            row[q] += scaled * weights.features[q]
    weights.seen[kind] += 1
    if weights.seen[kind] >= weights.due[kind]:
        _solve_weights(weights, kind, used, step)


@inner()
def _solve_weights(weights: _Weights, kind: int, count: int, step: float) -> None:
    """Solve a problem with its first `count` features; then, where it has many points, halve their weight."""
    trace = 0.0
    for p in range(count):
        trace += weights.normal[kind, p, p]
    ridge = 0.1 * step * step + 1e-5 * trace / count
    _solve(
        weights.normal[kind], weights.target[kind], ridge, weights.solution[kind], count, weights.factor, weights.right
    )
    if weights.seen[kind] > weights.forget[0]:
        for p in range(count):
            weights.target[kind, p] *= 0.5
            for q in range(p + 1):
                weights.normal[kind, p, q] *= 0.5
        weights.seen[kind] >>= 1
    weights.due[kind] = min(2 * weights.seen[kind], weights.seen[kind] + 64)


# --- scattered points


class _Scattered(NamedTuple):
    """The N points of a plane, as in `vcinr.coding.neighbours.Neighbours`.

    Attributes
    ----------
    order : numpy.ndarray
        int32 ``[N]``: their indices in the order in which they are coded.
    near : numpy.ndarray
        int32 ``[N, 8]``: the neighbours of each in this order.
    weight : numpy.ndarray
        ``[N, 8]``: the weights of these.
    kind : numpy.ndarray
        uint8 ``[N]``: the kind of each, from 0 to 8.
    squared : numpy.ndarray
        ``[N]``: its squared distance from the nearest neighbour.
    bend : numpy.ndarray
        ``[N]``, by index: how far a value is from the plane through its neighbours, divided by `squared`; filled as
        points are coded.
    """

    order: np.ndarray
    near: np.ndarray
    weight: np.ndarray
    kind: np.ndarray
    squared: np.ndarray
    bend: np.ndarray


Points = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""The arrays of `vcinr.coding.neighbours.Neighbours`, in their order."""


def nearest(
    c: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, points: Points,
    sizes: np.ndarray, temporal: bool, brief: bool, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Code planes of scattered points (see `vcinr.coding.residual.nearest`).

    Parameters
    ----------
    c, data, temporal, brief, writing
        As those of `adaptive`.
    values : numpy.ndarray
        float64 ``[T, C, N]``; not looked at when reading.
    recon : numpy.ndarray
        Is filled with the reconstruction, of the same shape.
    valid : numpy.ndarray
        bool: of the same shape, or a single True.
    points : Points
        `order`, `near`, `weight`, `kind` and `squared` of `vcinr.coding.neighbours.Neighbours`.
    sizes : numpy.ndarray
        Step of each kind of points.

    Returns
    -------
    data : numpy.ndarray
        The buffer, which may be a larger one.
    fits : bool
        As of `adaptive`.
    """
    weights = _Weights(
        np.zeros((_KINDS + 1, _FEATURES, _FEATURES)), np.zeros((_KINDS + 1, _FEATURES)),
        np.zeros((_KINDS + 1, _FEATURES)), np.zeros(_KINDS + 1, np.int64), np.full(_KINDS + 1, 64, np.int64),
        np.zeros(_FEATURES), np.zeros((0, 0, 0), np.int64), np.zeros((_FEATURES, _FEATURES)), np.zeros(_FEATURES),
        np.array([_FORGET_AFTER[brief]]),
    )  # fmt: skip
    memory, given, out, mask = _planes(values, recon, valid)
    scattered = _Scattered(*points, np.zeros(recon.shape[-1]))

    def code(data: np.ndarray, first: int, last: int) -> bool:
        return _nearest_planes(
            c, data, given, out, mask, scattered, weights, memory, sizes, first, last, temporal, writing
        )  # fmt: skip

    return _in_runs(c, data, len(given), recon.shape[-1], writing, code)


@outer
def _nearest_planes(
    c: Coder, data: np.ndarray, given: np.ndarray, out: np.ndarray, valid: np.ndarray, points: _Scattered,
    weights: _Weights, memory: _Planes, sizes: np.ndarray, begin: int, end: int, temporal: bool, writing: bool,
) -> bool:  # fmt: skip
    """Code planes ``[begin, end)`` of `given` and `out` ``[T * C, N]``; returns whether all values fit."""
    levels = memory.mean.shape[0]
    for p in range(begin, end):
        t, level = p // levels, p % levels
        has_earlier, has_below = temporal and t > 0, level > 0
        plane = _Plane(
            out[p], memory.code[t & 1, level],
            out[p - levels] if has_earlier else memory.no_values,
            memory.mean[level] if has_earlier else memory.no_values,
            out[p - 1] if has_below else memory.no_values,
            out[p - levels - 1] if has_earlier and has_below else memory.no_values,
            memory.code[1 - (t & 1), level] if has_earlier else memory.no_codes,
            memory.code[t & 1, level - 1] if has_below else memory.no_codes, memory.activity[level],
        )  # fmt: skip
        used = _SPATIAL_FEATURES + (4 if has_below else (2 if has_earlier else 0))
        mean = memory.mean[level]
        mask = valid[p if valid.size > 1 else 0]
        start = points.order[0]
        first = mean[start] if has_earlier else plane.below[start]
        if not _code_scattered(c, data, given[p], plane, mask, points, weights, sizes, used, first, writing):
            return False
        for index in range(mean.size):
            mean[index] += (plane.now[index] - mean[index]) / (t + 1)
        _remember_codes(memory.activity[level], plane.code, t)
    return True


@inner(inline="always")
def _code_scattered(
    c: Coder, data: np.ndarray, values: np.ndarray, plane: _Plane, valid: np.ndarray, points: _Scattered,
    weights: _Weights, sizes: np.ndarray, used: int, first: float, writing: bool,
) -> bool:  # fmt: skip
    """Code one plane of scattered points; returns whether all values fit.

    The first point is predicted as `first`. `used`: how many of the features are used.
    """
    for rank in range(points.order.size):
        index, kind = points.order[rank], int(points.kind[rank])
        size, is_valid, code = sizes[kind], valid[index if valid.size > 1 else 0], 0
        prediction, base, near, far, one, two = first, 0.0, 0, 0, 1, 1
        if rank > 0:
            base, near, far = _gather_scattered(plane, points, weights.features, rank, index)
            one = _sign(int(plane.code[points.near[rank, 0]]))
            two = _sign(int(plane.code[points.near[rank, 1]]))
            prediction = base
            if is_valid:
                for k in range(used):
                    prediction += weights.solution[kind, k] * weights.features[k]
            else:  # no code corrects a masked point: a mean cannot make its value grow without end, as a plane could
                prediction = 0.0
                for k in range(_NEIGHBOURS):
                    prediction += plane.now[points.near[rank, k]]
                prediction /= _NEIGHBOURS
        if is_valid:
            if writing:
                scaled = (values[index] - prediction) / size
                if not abs(scaled) < LIMIT - 1:
                    return False
                code = math.floor(scaled + 0.5)
            code = _code_point(c, data, plane, index, code, kind, near, far, one, two, writing)
        plane.now[index] = prediction + code * size
        plane.code[index] = max(-_MAX_CONTEXT_CODE, min(_MAX_CONTEXT_CODE, code))
        points.bend[index] = 0.0
        if is_valid and points.squared[rank] > 0.0:
            points.bend[index] = (plane.now[index] - base) / points.squared[rank]
        if is_valid and rank > 0:
            _learn_weights(weights, kind, used, plane.now[index] - base, 2 * far + near, sizes[0])
    return True


@inner(inline="always")
def _gather_scattered(
    plane: _Plane, points: _Scattered, features: np.ndarray, rank: int, index: int
) -> tuple[float, int, int]:
    """Fill in the features of a point that has neighbours.

    Returns
    -------
    base : float
        The value of the plane through its neighbours.
    near, far : int
        Sum of |code| at the nearer and at the farther half of them.
    """
    base, near, far, bend = 0.0, 0, 0, 0.0
    earlier, mean, below, before_below = 0.0, 0.0, 0.0, 0.0
    for k in range(_NEIGHBOURS):
        weight, neighbour = points.weight[rank, k], points.near[rank, k]
        base += weight * plane.now[neighbour]
        bend += weight * points.bend[neighbour]
        earlier += weight * plane.earlier[neighbour]
        mean += weight * plane.mean[neighbour]
        below += weight * plane.below[neighbour]
        before_below += weight * plane.before_below[neighbour]
        size = abs(int(plane.code[neighbour]))
        near += size if k < _NEIGHBOURS // 2 else 0
        far += size if k >= _NEIGHBOURS // 2 else 0
    for k in range(_NEIGHBOURS):
        features[k] = plane.now[points.near[rank, k]] - base
    features[_NEIGHBOURS] = bend * points.squared[rank]
    features[16] = plane.earlier[index] - earlier
    features[17] = plane.mean[index] - mean
    features[18] = plane.below[index] - below
    features[19] = plane.before_below[index] - before_below
    return base, near, far


class _Rasters(NamedTuple):
    """What `plain` remembers from one plane to the next.

    Planes have a border of zeros, two rows above and two columns on each side, so that neighbours need no checks.

    Attributes
    ----------
    code : numpy.ndarray
        int16 ``[2, C, H + 2, W + 4]``: codes of this time and of the time before, which alternate.
    no_codes : numpy.ndarray
        Zeros ``[H + 2, W + 4]``, for planes that do not exist.
    activity : numpy.ndarray
        int64 ``[C, H + 2, W + 4]``: see `_remember_codes`.
    row_size : numpy.ndarray
        int64 ``[2, C, H + 1]``: size of each row, see `_code_raster`; the first is that of the border.
    no_sizes : numpy.ndarray
        Zeros ``[H + 1]``.
    row_codes : numpy.ndarray
        int64 ``[W]``: scratch.
    """

    code: np.ndarray
    no_codes: np.ndarray
    activity: np.ndarray
    row_size: np.ndarray
    no_sizes: np.ndarray
    row_codes: np.ndarray


def plain(
    c: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, size: float,
    temporal: bool, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Code planes without prediction.

    Arguments and result are those of `adaptive`, except that there is one step, `size`, for all points, and that
    `recon` must be zeros at first: points outside `valid`, and rows whose codes are all zero, are left as they are.
    """
    times, levels, height, width = recon.shape
    count = times * levels
    bordered = (height + 2, width + 4)
    memory = _Rasters(
        np.zeros((2, levels, *bordered), np.int16), np.zeros(bordered, np.int16),
        np.zeros((levels, *bordered), np.int64), np.zeros((2, levels, height + 1), np.int64),
        np.zeros(height + 1, np.int64), np.zeros(width, np.int64),
    )  # fmt: skip
    shape = (count, height, width)
    given, out, mask = (
        values.reshape(shape),
        recon.reshape(shape),
        valid.reshape(shape if valid.size > 1 else (1, 1, 1)),
    )

    def code(data: np.ndarray, first: int, last: int) -> bool:
        return _plain_planes(c, data, given, out, mask, memory, size, first, last, temporal, writing)

    # Twice as much room as there are points: rows have decisions of their own.
    return _in_runs(c, data, count, height * width, writing, code, room=2)


@outer
def _plain_planes(
    c: Coder, data: np.ndarray, given: np.ndarray, out: np.ndarray, valid: np.ndarray, memory: _Rasters, size: float,
    begin: int, end: int, temporal: bool, writing: bool,
) -> bool:  # fmt: skip
    """Code planes ``[begin, end)`` of `given` and `out` ``[T * C, H, W]``; returns whether all values fit."""
    levels = memory.activity.shape[0]
    for p in range(begin, end):
        t, level = p // levels, p % levels
        has_earlier = temporal and t > 0
        code, row_size = memory.code[t & 1, level], memory.row_size[t & 1, level]
        for i in range(code.shape[0]):
            for j in range(code.shape[1]):
                code[i, j] = 0
        code_earlier = memory.code[1 - (t & 1), level] if has_earlier else memory.no_codes
        row_size_earlier = memory.row_size[1 - (t & 1), level] if has_earlier else memory.no_sizes
        code_below = memory.code[t & 1, level - 1] if level > 0 else memory.no_codes
        row_size_below = memory.row_size[t & 1, level - 1] if level > 0 else memory.no_sizes
        mask = valid[p if valid.size > 1 else 0]
        if not _code_raster(
            c, data, given[p], out[p], mask, code, code_earlier, code_below, memory.activity[level],
            row_size, row_size_earlier, row_size_below, memory.row_codes, size, writing,
        ):  # fmt: skip
            return False
        for i in range(code.shape[0]):
            _remember_codes(memory.activity[level, i], code[i], t)
    return True


@inner(inline="always")
def _code_raster(
    c: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, code: np.ndarray,
    code_earlier: np.ndarray, code_below: np.ndarray, activity: np.ndarray, row_size: np.ndarray,
    row_size_earlier: np.ndarray, row_size_below: np.ndarray, row_codes: np.ndarray, size: float, writing: bool,
) -> bool:  # fmt: skip
    """Code one plane ``[H, W]`` row by row; returns whether all values fit.

    The planes of codes and of activity have borders. `row_size`, `row_size_earlier` and `row_size_below` ``[H + 1]``
    hold the sum of min(|code|, 2) over the row *before* each row, for this plane and those it is compared with;
    `row_size` is filled. `row_codes` ``[W]`` is scratch.
    """
    height, width = recon.shape
    masked = valid.size > 1 or not valid[0, 0]
    for i in range(height):
        around, any_code = row_size[i] + row_size_earlier[i + 1] + row_size_below[i + 1], 0
        row_size[i + 1] = 0
        if writing:
            for j in range(width):
                row_codes[j] = 0
                if not masked or valid[i, j]:
                    scaled = values[i, j] / size
                    if not abs(scaled) < LIMIT - 1:
                        return False
                    row_codes[j] = math.floor(scaled + 0.5)
                    any_code |= row_codes[j]
        # Rows have the last contexts of single decisions, points the first: they never meet.
        if not rare(c, data, CONTEXTS - 1 - _scale(around), 1 if any_code else 0, writing):
            continue  # all codes of the row are 0
        for j in range(width):
            if not masked or valid[i, j]:
                active = _scale(activity[i + 2, j + 2] >> 2)
                decoded = _code_raster_point(
                    c, data, code, code_earlier, code_below, row_codes[j], i + 2, j + 2, active, writing
                )
                recon[i, j] = decoded * size
                code[i + 2, j + 2] = max(-_MAX_CONTEXT_CODE, min(_MAX_CONTEXT_CODE, decoded))
                row_size[i + 1] += min(abs(decoded), 2)
    return True


@inner(inline="always")
def _code_raster_point(
    c: Coder, data: np.ndarray, code: np.ndarray, code_earlier: np.ndarray, code_below: np.ndarray, value: int,
    y: int, x: int, active: int, writing: bool,
) -> int:  # fmt: skip
    """Code one integer of a plane in raster order, and return it; (y, x) counts the border."""
    west, north = int(code[y, x - 1]), int(code[y - 1, x])
    near = abs(west) + abs(north)
    side = (
        abs(int(code[y - 1, x - 1]))
        + abs(int(code[y - 1, x + 1]))
        + abs(int(code[y, x - 2]))
        + abs(int(code[y - 2, x]))
    )
    then, under = abs(int(code_earlier[y, x])), abs(int(code_below[y, x]))
    about = abs(int(code_earlier[y, x - 1])) + abs(int(code_earlier[y, x + 1])) + abs(int(code_earlier[y - 1, x]))
    local = 2 * near + side
    first = 0
    if local + then + under == 0:
        first = rare(c, data, active * 10 + min(_scale(about), 9), 1 if value != 0 else 0, writing)
        if not first:
            return 0
    c.context[0] = _scale(near) * 30 + _scale(side)
    c.context[1] = _scale(local + 3 * then + 3 * under) * 3 + min(abs(west), 2)
    c.context[2] = active * 30 + _scale(local)
    c.context[3] = (_scale(then) * 6 + min(under, 5)) * 6 + min(_scale(near), 5)
    c.context[4] = _scale(about + then) * 30 + _scale(near)
    largest = _scale(max(abs(west), abs(north)))
    c.context[5] = ((_sign(west) * 3 + _sign(north)) * 30 + largest) * 3 + min(under, 2)
    return integer(c, data, value, first, _shift_of(local), min(_scale(local) // 3, _KINDS), writing)


# --- latents

PRIMED = 3
"""Inputs whose contexts contain the dimension: their counters can start from its table."""
_TABLE_DECISIONS = 12  # a static table counts as much as this many decisions seen


@inner()
def _usual_shift(usual: int) -> int:
    """Number of raw bits of codes of the usual size `usual` (in 1/16), so that about 5 remains at most."""
    shift = 0
    while usual >> (4 + shift) > 5:
        shift += 1
    return shift


def prime(counter: np.ndarray, usual: np.ndarray, offset: np.ndarray, frequency: np.ndarray) -> None:
    """Set counters to what static tables of the latents expect.

    The first entry of a table (its escape) and the zeros that pad it do not count.

    Parameters
    ----------
    counter : numpy.ndarray
        `Coder.counter`; the first `PRIMED` inputs are filled.
    usual : numpy.ndarray
        int64 ``[d]``: is filled with the usual size of each latent's code, in 1/16.
    offset : numpy.ndarray
        int64 ``[d]``: the value of entry 1 of each table.
    frequency : numpy.ndarray
        int64 ``[d, S]``: the tables.
    """
    _prime(counter, usual, offset, frequency, np.zeros(_UNARY_LIMIT + 2, np.int64))


@outer
def _prime(
    counter: np.ndarray, usual: np.ndarray, offset: np.ndarray, frequency: np.ndarray, at_least: np.ndarray
) -> None:
    """`prime`; `at_least` is scratch: how frequent each magnitude, without its raw bits, or a larger one is."""
    for k in range(offset.size):
        total, weighted, nonzero, negative = 1, 0, 0, 0
        for s in range(1, frequency.shape[1]):
            value, count = offset[k] + s - 1, frequency[k, s]
            total += count
            weighted += count * abs(value)
            nonzero += count if value != 0 else 0
            negative += count if value < 0 else 0
        usual[k] = 16 * (weighted // total)
        shift = _usual_shift(usual[k])
        for node in range(at_least.size):
            at_least[node] = 0
        for s in range(1, frequency.shape[1]):
            at_least[min(abs(offset[k] + s - 1) >> shift, _UNARY_LIMIT)] += frequency[k, s]
        for node in range(_UNARY_LIMIT, -1, -1):
            at_least[node] += at_least[node + 1]
        for node in range(NODES):
            all_count = nonzero if node == _SIGN else at_least[node]
            ones = negative if node == _SIGN else at_least[node + 1]
            p = ((2 * ones + 1) << 21) // (2 * all_count + 2)
            p = max(32, min((1 << 21) - 32, p))
            counter[0, node, k] = p << 10 | _TABLE_DECISIONS
            for context in range(3):
                counter[1, node, 3 * k + context] = p << 10 | _TABLE_DECISIONS
                counter[2, node, 3 * k + context] = p << 10 | _TABLE_DECISIONS


def latent_codes(c: Coder, data: np.ndarray, z: np.ndarray, first: np.ndarray, writing: bool) -> np.ndarray:
    """Code latents.

    Parameters
    ----------
    c : Coder
        Its counters were set by `prime`.
    data : numpy.ndarray
        uint8 buffer to write to, or the stream to read.
    z : numpy.ndarray
        int64 ``[T, C, d]``; is filled when reading.
    first : numpy.ndarray
        int64 ``[d]``: usual sizes to begin with, from `prime`.
    writing : bool
        Whether to write or to read.

    Returns
    -------
    numpy.ndarray
        The buffer, which may be a larger one.
    """
    times, levels, d = z.shape
    past = np.zeros((levels, 7, d), np.int64)
    past[:, 3] = first
    signals = z.reshape(times * levels, d)
    for begin, end in _runs(times * levels, d):
        if writing:
            data = reserve(c.state, data, (end - begin) * d)
        _latent_signals(c, data, signals, past, begin, end, writing)
    return data


@outer
def _latent_signals(
    c: Coder, data: np.ndarray, signals: np.ndarray, past: np.ndarray, begin: int, end: int, writing: bool
) -> None:
    """Code signals ``[begin, end)`` of ``[T * C, d]``."""
    levels = past.shape[0]
    for p in range(begin, end):
        _latent_signal(c, data, signals[p], past[p % levels], p // levels, writing)


@inner(inline="always")
def _latent_signal(c: Coder, data: np.ndarray, z: np.ndarray, past: np.ndarray, t: int, writing: bool) -> None:
    """Code the latents z ``[d]`` of one signal.

    `past` ``[7, d]`` is what is remembered of the same level's signals: 0 the last value; 1 a running mean in 1/256; 2
    the last difference; 3 the usual size of differences in 1/16; and 4 to 6 the recent errors of the three guesses,
    which are zero, the last value and the mean.
    """
    nonzero, one, two = 0, 0, 0  # differences of this signal that are not 0; sizes of the last two
    for k in range(z.size):
        before, mean, last, usual = past[0, k], past[1, k], abs(past[2, k]), past[3, k]
        rounded_mean, guess = (mean + 128) >> 8, 0
        nearest = past[4, k] * 3 >> 2  # another guess must be clearly better than zero
        if past[5, k] < nearest:
            guess, nearest = before, past[5, k]
        if past[6, k] < nearest:
            guess = rounded_mean
        c.context[0] = k
        c.context[1] = 3 * k + min(last, 2)
        c.context[2] = 3 * k + min(one + two, 2)
        c.context[3] = min(usual >> 2, 60)
        c.context[4] = min(usual >> 4, 15) * 16 + min(nonzero, 15)
        c.context[5] = min(one + two, 7) * 8 + min(last, 7)
        difference = z[k] - guess
        difference = integer(c, data, difference, _ZERO, _usual_shift(usual), min(one + two, 2), writing)
        value = max(-LIMIT, min(LIMIT, difference + guess))  # whatever a damaged stream says
        difference = value - guess
        z[k] = value
        one, two = abs(difference), one
        nonzero += 1 if difference != 0 else 0
        past[4, k] += 16 * abs(value) - (past[4, k] >> 4)
        past[5, k] += 16 * abs(value - before) - (past[5, k] >> 4)
        past[6, k] += 16 * abs(value - rounded_mean) - (past[6, k] >> 4)
        past[0, k], past[2, k] = value, difference
        past[1, k] += ((value << 8) - mean) // min(t + 1, 16)
        past[3, k] += (16 * abs(difference) - usual) >> 2
