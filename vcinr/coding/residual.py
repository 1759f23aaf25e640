"""Residual coder: adaptive prediction with error feedback, context-mixed binary coding, one pass.

An array ``[T, C, H, W]`` (times, levels, a plane) is coded plane by plane. Two predictors:

*adaptive*: a plane is refined from a single point by halving its lattice, first the centres of the cells, then the
midpoints of their edges. A point's prediction is the mean of its four nearest known points plus a linear
combination of how others, in this plane and in those before (earlier time, running mean, level below), differ from
such means; the weights solve a least-squares problem over what has been coded, weighted by the local scale, as
in lossless image coding (Wu, Barthel & Zhang 1998), but on *reconstructed* values at any quantisation.
*plain*: nothing is predicted, what is coded are the rounded values in raster order, a row of zeros as one decision.
Right for what a model has predicted already, and for sparse fields.

The code, an integer multiple of a step, goes to `binary.integer` under contexts made of the codes around it. All
that prediction and contexts use is decoded integers and float64 arithmetic (add, multiply, divide, square root, in a
fixed order, never fused), which IEEE 754 makes the same on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit

from vcinr.coding import binary
from vcinr.coding.binary import Coder
from vcinr.errors import CorruptError

Predictor = Literal["plain", "adaptive"]
_PREDICTORS: tuple[Predictor, ...] = ("plain", "adaptive")


@dataclass(frozen=True)
class Plan:
    """Choices of the writer that the reader is told, in two bytes.

    predictor: see above. temporal: whether planes of earlier times are looked at. tighten: on lattice level l (0 the finest)
    the step is divided by min((1 + tighten / 8)^l, 4). sparsity: a code is taken to be non-zero with
    probability 2^-(1 + sparsity) at first.
    """

    predictor: Predictor = "adaptive"
    temporal: bool = True
    tighten: int = 0
    sparsity: int = 1

    def to_bytes(self) -> bytes:
        """Two bytes."""
        return bytes([_PREDICTORS.index(self.predictor) | self.temporal << 1, self.tighten | self.sparsity << 4])

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Inverse of `to_bytes`; raises CorruptError."""
        if len(data) != 2 or data[0] > 3:
            raise CorruptError("residual plan is malformed")
        return cls(_PREDICTORS[data[0] & 1], bool(data[0] >> 1), data[1] & 15, data[1] >> 4)


_LEVELS = 4  # lattice levels that have weights and contexts of their own; coarser ones share the last
_KINDS = 2 * _LEVELS  # classes of points: level and cell centre or edge midpoint; one more for the first point
_CONTEXTS = 4096
_FORGET = 8192  # points after which a least-squares problem halves its memory
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


def planes(index: tuple[int, ...], grid: tuple[int, ...]) -> tuple[int, int, int, int]:
    """An array's index and signal axes as times, levels and a plane.

    The last two axes of the grid are the plane; what comes right before them are levels, all else times.
    """
    *leading, height, width = (1, 1, 1, 1, *index, *grid)
    times, levels = math.prod(leading[:-1]), leading[-1]
    return (levels, 1, height, width) if times == 1 else (times, levels, height, width)


def encode(
    values: np.ndarray, step: float, plan: Plan, valid: np.ndarray | None = None
) -> tuple[bytes, np.ndarray]:  # fmt: skip
    """Code float64 `values` ``[T, C, H, W]`` so that each is within step / 2 of its reconstruction.

    Returns the bitstream and the reconstruction. Points outside `valid` (bool, same shape) cost nothing and are
    reconstructed as predicted. Raises OverflowError when a value is too large for the step (the caller stores
    the chunk losslessly).
    """
    coder = binary.coder(_CONTEXTS, plan.sparsity)
    recon = np.zeros(values.shape)
    data, fits = _run(coder, np.empty(0, np.uint8), np.require(values, np.float64, "CW"), recon, step, plan, valid, True)
    if not fits:
        raise OverflowError("residual too large for its step")
    end = binary.finish(coder.state, data)
    return data[1:end].tobytes(), recon


def decode(
    data: bytes, shape: tuple[int, int, int, int], step: float, plan: Plan, valid: np.ndarray | None = None
) -> np.ndarray:
    """Exact inverse of `encode`: the reconstruction, float64."""
    coder, recon, stream = binary.coder(_CONTEXTS, plan.sparsity), np.zeros(shape), np.frombuffer(bytearray(data), np.uint8)
    binary.start_reading(coder.state, stream)
    _run(coder, stream, recon, recon, step, plan, valid, False)
    return recon


def _run(
    coder: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, step: float, plan: Plan,
    valid: np.ndarray | None, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    if recon.size == 0:
        return (binary.reserve(coder.state, data, 0) if writing else data), True
    there = np.ones((1, 1, 1, 1), bool) if valid is None else np.require(valid, bool, "CW")
    if plan.predictor == "plain":
        return _plain(coder, data, values, recon, there, step, plan.temporal, writing)
    sizes, factor = [], 1.0
    for _ in range(64):
        sizes.append(step / min(factor, 4.0))
        factor = min(factor * (1.0 + plan.tighten / 8.0), 4.0)
    return _adaptive(coder, data, values, recon, there, np.array(sizes), plan.temporal, writing)


@njit(cache=True, inline="always")
def _scale(value: int) -> int:
    """A magnitude on a roughly logarithmic scale, 0 to 29."""
    if value < 1024:
        return int(_SCALE[value])
    level = 23
    while value >= 2048 and level < 29:
        value >>= 1
        level += 1
    return level


@njit(cache=True, inline="always")
def _steps(difference: float, size: float) -> int:
    """Half steps in a difference, 0 to 65535 whatever it is (NaN in a damaged stream)."""
    ratio = difference / size * 2
    return int(ratio) if 0 <= ratio < 65535 else (0 if ratio < 0 else 65535)


@njit(cache=True, inline="always")
def _sign(value: int) -> int:
    """0 for negative, 1 for zero, 2 for positive."""
    return 1 if value == 0 else (2 if value > 0 else 0)


@njit(cache=True)
def _solve(a: np.ndarray, b: np.ndarray, ridge: float, weights: np.ndarray) -> None:
    """weights = (a + ridge I)^-1 b by Cholesky; `a` ``[n, n]`` has its lower triangle alone."""
    n = weights.size
    low, y = np.zeros((n, n)), np.zeros(n)
    for i in range(n):
        for j in range(i):
            total = a[i, j]
            for k in range(j):
                total -= low[i, k] * low[j, k]
            low[i, j] = total / low[j, j]
        total = a[i, i] + ridge
        for k in range(i):
            total -= low[i, k] * low[i, k]
        if not total > 0.0:
            return  # rounding has the better of it: the weights stay
        low[i, i] = math.sqrt(total)
    for i in range(n):
        total = b[i]
        for k in range(i):
            total -= low[i, k] * y[k]
        y[i] = total / low[i, i]
    for i in range(n - 1, -1, -1):
        total = y[i]
        for k in range(i + 1, n):
            total -= low[k, i] * weights[k]
        weights[i] = total / low[i, i]


@njit(cache=True)
def _adaptive(
    c: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, sizes: np.ndarray,
    temporal: bool, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    times, levels, height, width = recon.shape
    masked = valid.size > 1 or not valid[0, 0, 0, 0]
    top = 0
    while 1 << top < max(height, width):
        top += 1
    normal = np.zeros((_KINDS, _FEATURES, _FEATURES))
    target = np.zeros((_KINDS, _FEATURES))
    weights = np.zeros((_KINDS, _FEATURES))
    seen, due = np.zeros(_KINDS, np.int64), np.full(_KINDS, 64, np.int64)
    f, others = np.zeros(_FEATURES), np.zeros(4)
    mean = np.zeros((levels, height, width))
    activity = np.zeros((levels, height, width), np.int64)
    lowest = np.zeros(levels)
    codes = np.zeros((2, levels, height, width), np.int16)  # of this time and of the one before
    blank, none = np.zeros((height, width)), np.zeros((height, width), np.int16)
    for t in range(times):
        for level in range(levels):
            if writing:
                data = binary.reserve(c.state, data, height * width)
            now, code = recon[t, level], codes[t & 1, level]
            # Planes that are known: the time before, the mean of all before, the level below, that one's time before.
            earlier = temporal and t > 0
            ref_0 = recon[t - 1, level] if earlier else blank
            ref_1 = mean[level] if earlier else blank
            ref_2 = recon[t, level - 1] if level > 0 else blank
            ref_3 = recon[t - 1, level - 1] if earlier and level > 0 else blank
            code_0 = codes[1 - (t & 1), level] if earlier else none
            code_2 = codes[t & 1, level - 1] if level > 0 else none
            used = _SPATIAL + (4 if level > 0 else (2 if earlier else 0))
            for lattice in range(top, -1, -1):
                stride, size = 1 << lattice, sizes[lattice]
                for half in range(1 if lattice == top else 2):
                    kind = 2 * min(lattice, _LEVELS - 1) + half
                    if lattice == top:
                        kind = _KINDS
                    for i in range(stride if half == 0 and lattice < top else 0, height, 2 * stride if half == 0 else stride):
                        first = 0
                        if lattice < top and (half == 0 or (i >> lattice) % 2 == 0):
                            first = stride
                        for j in range(first, width, 2 * stride):
                            base, near, before, low, high = 0.0, 0, 0, 0.0, 0.0
                            prediction = 0.0
                            if kind == _KINDS:
                                if earlier:
                                    prediction = mean[level, i, j]
                                elif level > 0:
                                    prediction = ref_2[i, j]
                            else:
                                found = 0
                                others[:] = 0.0
                                for k in range(4):
                                    y, x = i + _NEAR[half, k, 0] * stride, j + _NEAR[half, k, 1] * stride
                                    f[k] = math.inf
                                    if 0 <= y < height and 0 <= x < width:
                                        v = now[y, x]
                                        f[k] = v
                                        base += v
                                        low = v if found == 0 else min(low, v)
                                        high = v if found == 0 else max(high, v)
                                        near += abs(code[y, x])
                                        others[0] += ref_0[y, x]
                                        others[1] += ref_1[y, x]
                                        others[2] += ref_2[y, x]
                                        others[3] += ref_3[y, x]
                                        found += 1
                                base /= found
                                near = near * 4 // found
                                for k in range(4):
                                    f[k] = f[k] - base if f[k] != math.inf else 0.0
                                for k in range(4):
                                    y, x = i + _BEFORE[half, k, 0] * stride, j + _BEFORE[half, k, 1] * stride
                                    f[4 + k] = 0.0
                                    if y >= 0 and 0 <= x < width:
                                        f[4 + k] = now[y, x] - base
                                        before += abs(code[y, x])
                                    else:
                                        before += near >> 2
                                for k in range(8):
                                    y, x = i + _FAR[half, k, 0] * stride, j + _FAR[half, k, 1] * stride
                                    total = 0.0
                                    if 0 <= y < height and 0 <= x < width:
                                        total = now[y, x] - base
                                    if half == 1 and k >= 4:
                                        y, x = i + _FAR[half, k, 2] * stride, j + _FAR[half, k, 3] * stride
                                        if 0 <= y < height and 0 <= x < width:
                                            total += now[y, x] - base
                                    f[8 + k] = total
                                f[16] = ref_0[i, j] - others[0] / found
                                f[17] = ref_1[i, j] - others[1] / found
                                f[18] = ref_2[i, j] - others[2] / found
                                f[19] = ref_3[i, j] - others[3] / found
                                prediction = base
                                for k in range(used):
                                    prediction += weights[kind, k] * f[k]
                            k = 0
                            there = not masked or valid[t, level, i, j]
                            if there:
                                if writing:
                                    scaled = (values[t, level, i, j] - prediction) / size
                                    if not abs(scaled) < binary.LIMIT - 1:
                                        return data, False
                                    k = int(math.floor(scaled + 0.5))
                                then, below = abs(code_0[i, j]), abs(code_2[i, j])
                                local = 2 * before + near
                                active = activity[level, i, j] >> 2
                                west = _sign(code[i, j - 2 * stride]) if j >= 2 * stride else 1
                                north = _sign(code[i - 2 * stride, j]) if i >= 2 * stride else 1
                                c.context[0] = (kind * 20 + min(_scale(near), 19)) * 22 + min(_scale(before), 21)
                                c.context[1] = kind * 30 + _scale(local + 4 * then + 4 * below)
                                c.context[2] = (kind * 30 + _scale(active)) * 4 + min(before, 3)
                                c.context[3] = ((kind * 6 + min(then, 5)) * 6 + min(below, 5)) * 6 + min(_scale(before), 5)
                                c.context[4] = (kind * 30 + _scale(_steps(high - low, size))) * 3 + min(before, 2)
                                c.context[5] = ((kind * 30 + _scale(_steps(prediction - lowest[level], size))) * 3 + west) * 3 + north
                                shift = 0
                                while local >> (3 + shift) > 6:
                                    shift += 1
                                k = binary.integer(c, data, k, shift, kind, writing)
                            v = prediction + k * size
                            now[i, j] = v
                            code[i, j] = max(-_MOST, min(_MOST, k))
                            if v < lowest[level]:
                                lowest[level] = v
                            if kind < _KINDS and there:
                                local = 2 * before + near
                                trust = 1.0 / (1.0 + 0.04 * local * local)
                                error = v - base
                                for p in range(used):
                                    g = f[p] * trust
                                    target[kind, p] += g * error
                                    for q in range(p + 1):
                                        normal[kind, p, q] += g * f[q]
                                seen[kind] += 1
                                if seen[kind] >= due[kind]:
                                    trace = 0.0
                                    for p in range(used):
                                        trace += normal[kind, p, p]
                                    ridge = 0.5 * sizes[0] * sizes[0] + 1e-5 * trace / used
                                    _solve(normal[kind], target[kind], ridge, weights[kind, :used])
                                    if seen[kind] > _FORGET:
                                        for p in range(used):
                                            target[kind, p] *= 0.5
                                            for q in range(p + 1):
                                                normal[kind, p, q] *= 0.5
                                        seen[kind] >>= 1
                                    due[kind] = min(2 * seen[kind], seen[kind] + 1024)
            for i in range(height):
                for j in range(width):
                    mean[level, i, j] += (now[i, j] - mean[level, i, j]) / (t + 1)
                    magnitude = 64 * abs(code[i, j])
                    if t == 0:
                        activity[level, i, j] = magnitude
                    else:
                        activity[level, i, j] += (magnitude - activity[level, i, j]) >> (3 if t > 7 else 2)
    return data, True


@njit(cache=True)
def _plain(
    c: Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, size: float,
    temporal: bool, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    times, levels, height, width = recon.shape
    masked = valid.size > 1 or not valid[0, 0, 0, 0]
    # A border of zeros stands for neighbours that are not there.
    codes = np.zeros((2, levels, height + 2, width + 4), np.int16)
    activity = np.zeros((levels, height, width), np.int64)
    none = np.zeros((height + 2, width + 4), np.int16)
    row = np.zeros(width, np.int64)
    for t in range(times):
        for level in range(levels):
            if writing:
                data = binary.reserve(c.state, data, 2 * height * width)
            code = codes[t & 1, level]
            code[:] = 0
            then = codes[1 - (t & 1), level] if temporal and t > 0 else none
            below = codes[t & 1, level - 1] if level > 0 else none
            for i in range(height):
                around, some = 0, 0
                for j in range(width):
                    x = j + 2
                    around += min(abs(code[i + 1, x]), 2) + min(abs(then[i + 2, x]), 2) + min(abs(below[i + 2, x]), 2)
                    row[j] = 0
                    if writing and (not masked or valid[t, level, i, j]):
                        scaled = values[t, level, i, j] / size
                        if not abs(scaled) < binary.LIMIT - 1:
                            return data, False
                        row[j] = int(math.floor(scaled + 0.5))
                        if row[j] != 0:
                            some = 1
                for k in range(binary.INPUTS):
                    c.context[k] = _CONTEXTS - 1 - min(_scale(around), 29) if k > 0 else _CONTEXTS - 1
                if not binary.bit(c, data, 0, _KINDS + 1, some, writing):
                    continue
                for j in range(width):
                    y, x = i + 2, j + 2
                    if masked and not valid[t, level, i, j]:
                        continue
                    west, north = int(code[y, x - 1]), int(code[y - 1, x])
                    side = abs(code[y - 1, x - 1]) + abs(code[y - 1, x + 1])
                    far = abs(code[y, x - 2]) + abs(code[y - 2, x])
                    near = abs(west) + abs(north)
                    was, under = abs(then[y, x]), abs(below[y, x])
                    about = abs(then[y, x - 1]) + abs(then[y, x + 1]) + abs(then[y - 1, x])
                    local = 2 * near + side + far
                    c.context[0] = _scale(near) * 30 + _scale(side + far)
                    c.context[1] = _scale(local + 3 * was + 3 * under) * 3 + min(abs(west), 2)
                    c.context[2] = _scale(activity[level, i, j] >> 2) * 30 + _scale(local)
                    c.context[3] = (_scale(was) * 6 + min(under, 5)) * 6 + min(_scale(near), 5)
                    c.context[4] = _scale(about + was) * 30 + _scale(near)
                    c.context[5] = ((_sign(west) * 3 + _sign(north)) * 30 + _scale(max(abs(west), abs(north)))) * 3 + min(under, 2)
                    shift = 0
                    while local >> (3 + shift) > 6:
                        shift += 1
                    k = binary.integer(c, data, row[j], shift, min(_scale(local) // 3, _KINDS), writing)
                    recon[t, level, i, j] = k * size
                    code[y, x] = max(-_MOST, min(_MOST, k))
            for i in range(height):
                for j in range(width):
                    magnitude = 64 * abs(code[i + 2, j + 2])
                    if t == 0:
                        activity[level, i, j] = magnitude
                    else:
                        activity[level, i, j] += (magnitude - activity[level, i, j]) >> (3 if t > 7 else 2)
    return data, True
