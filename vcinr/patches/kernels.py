"""Coding of patches, compiled by Numba: prediction from known values, choice of experts, codes in context.

docs/format.md specifies every number below (section Patches). The range coder, counters and integers are inlined from
`vcinr.coding.kernels`. Numba would not notice here that they have changed, but what has been written does not let them
change.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from vcinr.coding.kernels import LIMIT, Coder, integer, reserve
from vcinr.compiled import inner, outer

_ZERO: Any = np.int64(0)  # arguments of kernels are NumPy's integers, see vcinr.coding.kernels
CONTEXTS = 4096
"""Contexts of each input where codes of patches are coded (`patch_row`)."""
EXPERTS = 32
"""Largest number of experts."""
DEAD_ZONE = 0.15  # codes are rounded down from up to 0.5 + this, since small codes cost more than they gain
PRICE = 0.15  # squared error, in squared steps, that one bit may save: near the slope of a uniform quantiser
_ONE: Any = np.int64(1)
_TWO: Any = np.int64(2)
_LOWER: Any = np.int64(1)  # the set of weights of the lower bits of lengths
_KEPT_SIZES = 4  # numbers that are remembered of a patch: activity, number of codes, expert + 1, whether there is one


class Patching(NamedTuple):
    """How patches are predicted and transformed; Q is the number of values of a patch, d = Q that of its latents.

    Attributes
    ----------
    size : numpy.ndarray
        int64 ``[3]``: lengths of a patch along z, y and x.
    offsets : numpy.ndarray
        int64 ``[C, 3]``: where the points around a patch lie, from its first point.
    near : numpy.ndarray
        int64 ``[C, C]``: for each point around a patch all of them, the nearest first (the first is itself).
    middle : numpy.ndarray
        float64 ``[F]``: what each feature is predicted as where nothing is known.
    predict : numpy.ndarray
        float64 ``[K, C * F, Q]``: each expert's linear prediction.
    basis : numpy.ndarray
        float64 ``[K, d, Q]``: each expert's functions.
    analysis : numpy.ndarray
        float64 ``[K, Q, d]``: their inverse, for a writer.
    motion : numpy.ndarray
        int64 ``[1]``: how far along y and x the points before a patch along z may be displaced; 0 for none.
    """

    size: np.ndarray
    offsets: np.ndarray
    near: np.ndarray
    middle: np.ndarray
    predict: np.ndarray
    basis: np.ndarray
    analysis: np.ndarray
    motion: np.ndarray


class PatchMemory(NamedTuple):
    """What a coder remembers of the patches of a signal, and room to work in.

    Attributes
    ----------
    kept : numpy.ndarray
        int64 ``[2, ny + 1, nx + 2, 4]``: numbers of each patch of this plane of patches and of the plane before it
        (`_KEPT_SIZES`). The first row and the outer columns stay empty.
    before : numpy.ndarray
        int16 ``[ny, nx, d]``: magnitudes of the codes in the plane before, replaced one by one by those of this plane;
        ``[0, nx, d]`` where a signal has a single plane.
    above : numpy.ndarray
        int16 ``[nx, d]``: the same for the row above.
    left : numpy.ndarray
        int16 ``[d]``: the same for the patch to the left.
    codes : numpy.ndarray
        int64 ``[K, d]``.
    around : numpy.ndarray
        float64 ``[C * F]``: values around a patch, less their mean.
    mean : numpy.ndarray
        float64 ``[F]``: that mean.
    predicted : numpy.ndarray
        float64 ``[K, Q]``.
    scaled : numpy.ndarray
        float64 ``[d]``: latents in steps.
    values : numpy.ndarray
        float64 ``[Q]``.
    shift : numpy.ndarray
        int64 ``[2]``: the displacement, along y and x, of a patch.
    shifts : numpy.ndarray
        int64 ``[ny + 1, nx + 2, 2]``: those of the patches of this plane; the first row and the outer columns stay 0.
    """

    kept: np.ndarray
    before: np.ndarray
    above: np.ndarray
    left: np.ndarray
    codes: np.ndarray
    around: np.ndarray
    mean: np.ndarray
    predicted: np.ndarray
    scaled: np.ndarray
    values: np.ndarray
    shift: np.ndarray
    shifts: np.ndarray


def patch_memory(p: Patching, nz: int, ny: int, nx: int) -> PatchMemory:
    """Empty memory for a signal of so many patches along z, y and x."""
    experts, context, q = p.predict.shape
    return PatchMemory(
        np.zeros((2, ny + 1, nx + 2, _KEPT_SIZES), np.int64), np.zeros((ny if nz > 1 else 0, nx, q), np.int16),
        np.zeros((nx, q), np.int16), np.zeros(q, np.int16), np.zeros((experts, q), np.int64), np.zeros(context),
        np.zeros(len(p.middle)), np.zeros((experts, q)), np.zeros(q), np.zeros(q), np.zeros(2, np.int64),
        np.zeros((ny + 1, nx + 2, 2), np.int64),
    )  # fmt: skip


def patches(
    coders: tuple[Coder, Coder, Coder], data: np.ndarray, p: Patching, target: np.ndarray, likely: np.ndarray,
    out: np.ndarray, step: float, writing: bool,
) -> np.ndarray:  # fmt: skip
    """Code a signal patch by patch, each predicted from the patches before it.

    Parameters
    ----------
    coders : tuple of Coder
        For the latents' codes, the experts and the numbers of codes; they share one range coder (`sharing`).
    data : numpy.ndarray
        uint8 buffer to write to, or the stream to read.
    p : Patching
        How.
    target : numpy.ndarray
        float64 ``[Z, Y, X, F]``, whole patches: what to write; empty when reading.
    likely : numpy.ndarray
        int64 ``[nz, ny, nx, L]``: the experts to try for each patch; empty when reading.
    out : numpy.ndarray
        float64, of the signal's shape: is filled with the reconstruction.
    step : float
        The step of the latents.
    writing : bool
        Whether to write or to read.

    Returns
    -------
    numpy.ndarray
        The buffer, which may be a larger one.
    """
    counts = [int(n) // int(s) for n, s in zip(out.shape[:3], p.size, strict=True)]
    memory = patch_memory(p, counts[0], counts[1], counts[2])
    for z in range(counts[0]):
        memory.kept[1] = memory.kept[0]
        memory.kept[0] = 0
        memory.above[:] = 0
        memory.shifts[:] = 0
        for y in range(counts[1]):
            if writing:
                data = reserve(coders[0].state, data, counts[2] * (p.basis.shape[1] + 16))
            patch_row(*coders, data, p, memory, target, likely, out, z, y, step, writing)
    return data


def sharing(first: Coder, other: Coder) -> Coder:
    """The second coder, writing to or reading from the stream of the first."""
    return other._replace(state=first.state)


@outer
def patch_row(
    codes: Coder, experts: Coder, lengths: Coder, data: np.ndarray, p: Patching, m: PatchMemory, target: np.ndarray,
    likely: np.ndarray, out: np.ndarray, z: int, y: int, step: float, writing: bool,
) -> None:  # fmt: skip
    """Code the row y of plane z of a signal's patches."""
    m.left[:] = 0
    for x in range(m.above.shape[0]):
        expert, length = 0, 0
        m.shift[0], m.shift[1] = 0, 0
        moves = p.motion[0] > 0 and z > 0
        if writing and moves:
            _choose_shift(p, m, target, likely, out, z, y, x, step)
        if moves:
            _code_shift(experts, data, p, m, y, x, writing)
        _values_around(p, m, out, z, y, x)
        if writing:
            expert = _choose_expert(p, m, target, likely, z, y, x, step)
            length = _worthwhile(m.codes[expert], m.scaled)
        expert = code_expert(experts, data, p, m, y, x, expert, writing)
        length = code_length(lengths, data, m, y, x, expert, length, writing)
        code_patch(codes, data, m, y, x, expert, length, writing)
        if not writing:
            predict(p, m, expert)
        restore_patch(p, m, out, z, y, x, expert, length, step)


@inner()
def gather(p: Patching, m: PatchMemory, out: np.ndarray, z: int, y: int, x: int) -> int:
    """Fill `m.around` and, with their sums, `m.mean`: an unknown point has the value of the nearest known one.

    Returns how many values there are of a feature: all, or none.
    """
    features = p.middle.size
    z0, y0, x0 = z * p.size[0], y * p.size[1], x * p.size[2]
    for f in range(features):
        m.mean[f] = 0.0
    known = 0
    for j in range(p.offsets.shape[0]):
        for k in range(p.offsets.shape[0]):
            n = p.near[j, k]
            at_z, at_y, at_x = z0 + p.offsets[n, 0], y0 + p.offsets[n, 1], x0 + p.offsets[n, 2]
            if p.offsets[n, 0] < 0:
                at_y, at_x = at_y + m.shift[0], at_x + m.shift[1]
            if 0 <= at_z < out.shape[0] and 0 <= at_y < out.shape[1] and 0 <= at_x < out.shape[2]:
                for f in range(features):
                    value = out[at_z, at_y, at_x, f]
                    m.around[j * features + f] = value
                    m.mean[f] += value
                known += 1
                break
        if known == 0:
            break
    return known


@inner()
def _values_around(p: Patching, m: PatchMemory, out: np.ndarray, z: int, y: int, x: int) -> None:
    """Fill `m.around` and `m.mean`: the known values around a patch, less their mean."""
    features, known = p.middle.size, gather(p, m, out, z, y, x)
    if known == 0:
        for i in range(m.around.size):
            m.around[i] = 0.0
        for f in range(features):
            m.mean[f] = p.middle[f]
        return
    for f in range(features):
        m.mean[f] /= known
    for j in range(p.offsets.shape[0]):
        for f in range(features):
            m.around[j * features + f] -= m.mean[f]


@inner()
def predict(p: Patching, m: PatchMemory, expert: int) -> None:
    """Fill `m.predicted[expert]` with the expert's prediction, less the mean."""
    predicted = m.predicted[expert]
    for q in range(predicted.size):
        predicted[q] = 0.0
    for j in range(m.around.size):
        value = m.around[j]
        if value != 0.0:
            for q in range(predicted.size):
                predicted[q] += value * p.predict[expert, j, q]


@inner()
def middle_of(a: int, b: int, c: int) -> int:
    """The median of three numbers."""
    return max(min(a, b), min(max(a, b), c))


@inner()
def _code_shift(c: Coder, data: np.ndarray, p: Patching, m: PatchMemory, y: int, x: int, writing: bool) -> None:
    """Code a patch's displacement as its difference from the median of those to the left, above and above right."""
    most = p.motion[0]
    for axis in range(2):
        left, above, right = m.shifts[y + 1, x, axis], m.shifts[y, x + 1, axis], m.shifts[y, x + 2, axis]
        guess = middle_of(left, above, right)
        spread = size_class(abs(left - above) + abs(above - right))
        before = size_class(abs(m.shift[0] - m.shifts[y + 1, x, 0])) if axis else 9
        place = 3400 + 20 * axis
        c.context[0] = place
        c.context[1] = place + spread
        c.context[2] = 3440 + 9 * before + spread
        c.context[3] = 3540 + before
        c.context[4] = 3560 + 9 * axis + size_class(m.kept[0, y + 1, x, 1])
        c.context[5] = 3580 + 9 * axis + size_class(m.kept[1, y + 1, x + 1, 1])
        difference = integer(c, data, m.shift[axis] - guess, _ZERO, _ZERO, _TWO, writing)
        m.shift[axis] = max(-most, min(most, max(-LIMIT, min(LIMIT, difference)) + guess))
        m.shifts[y + 1, x + 1, axis] = m.shift[axis]


@inner()
def _difference(
    p: Patching, target: np.ndarray, out: np.ndarray, z: int, y: int, x: int, dy: int, dx: int, least: float
) -> float:  # fmt: skip
    """Sum of the magnitudes of a patch's differences from the displaced patch before it.

    Beyond the edge, the nearest value counts. The sum ends where it exceeds `least`.
    """
    total = 0.0
    z0, y0, x0 = z * p.size[0], y * p.size[1], x * p.size[2]
    for i in range(p.size[1]):
        at_y = max(0, min(out.shape[1] - 1, y0 + i + dy))
        for j in range(p.size[2]):
            at_x = max(0, min(out.shape[2] - 1, x0 + j + dx))
            for f in range(out.shape[3]):
                total += abs(target[z0, y0 + i, x0 + j, f] - out[z0 - 1, at_y, at_x, f])
        if total >= least:
            return total
    return total


@inner()
def _find_shift(p: Patching, m: PatchMemory, target: np.ndarray, out: np.ndarray, z: int, y: int, x: int) -> None:
    """Set `m.shift` to a displacement under which the patch before resembles this one.

    The search starts from the best of none and those of the patches nearby, and goes on in steps that halve.
    """
    most, best_y, best_x = p.motion[0], 0, 0
    least = _difference(p, target, out, z, y, x, 0, 0, math.inf)
    for k in range(3):
        dy, dx = m.shifts[y + 1, x, 0], m.shifts[y + 1, x, 1]
        if k == 1:
            dy, dx = m.shifts[y, x + 1, 0], m.shifts[y, x + 1, 1]
        elif k == 2:
            dy, dx = m.shifts[y, x + 2, 0], m.shifts[y, x + 2, 1]
        if dy != best_y or dx != best_x:
            other = _difference(p, target, out, z, y, x, dy, dx, least)
            if other < least:
                least, best_y, best_x = other, dy, dx
    stride = 1
    while 2 * stride <= most // 2:
        stride *= 2
    while stride > 0:
        from_y, from_x = best_y, best_x
        for i in range(-1, 2):
            for j in range(-1, 2):
                dy, dx = from_y + i * stride, from_x + j * stride
                if (i or j) and abs(dy) <= most and abs(dx) <= most:
                    other = _difference(p, target, out, z, y, x, dy, dx, least)
                    if other < least:
                        least, best_y, best_x = other, dy, dx
        if best_y == from_y and best_x == from_x:
            stride //= 2
    m.shift[0], m.shift[1] = best_y, best_x


@inner()
def _choose_shift(
    p: Patching, m: PatchMemory, target: np.ndarray, likely: np.ndarray, out: np.ndarray, z: int, y: int, x: int,
    step: float,
) -> None:  # fmt: skip
    """Set `m.shift` to the displacement of the least cost: the one that was found, the usual one nearby, or none."""
    _find_shift(p, m, target, out, z, y, x)
    found_y, found_x = m.shift[0], m.shift[1]
    usual_y = middle_of(m.shifts[y + 1, x, 0], m.shifts[y, x + 1, 0], m.shifts[y, x + 2, 0])
    usual_x = middle_of(m.shifts[y + 1, x, 1], m.shifts[y, x + 1, 1], m.shifts[y, x + 2, 1])
    best_y, best_x, least = 0, 0, math.inf
    for k in range(3):
        dy, dx = usual_y, usual_x
        if k == 1:
            dy, dx = 0, 0
        elif k == 2:
            dy, dx = found_y, found_x
        if (k == 1 and usual_y == 0 and usual_x == 0) or (
            k == 2 and ((found_y == 0 and found_x == 0) or (found_y == usual_y and found_x == usual_x))
        ):
            continue
        m.shift[0], m.shift[1] = dy, dx
        _values_around(p, m, out, z, y, x)
        away = abs(dy - usual_y) + abs(dx - usual_x)
        cost = PRICE * (2.0 * math.log2(1.0 + away) + (2.0 if away else 0.0))
        lowest = math.inf
        for i in range(likely.shape[3]):
            expert = likely[z, y, x, i]
            predict(p, m, expert)
            lowest = min(lowest, transform(p, m, target, z, y, x, step, expert, p.middle.size))
        if cost + lowest < least:
            best_y, best_x, least = dy, dx, cost + lowest
    m.shift[0], m.shift[1] = best_y, best_x


@outer
def _shifts_of(p: Patching, m: PatchMemory, target: np.ndarray, result: np.ndarray) -> None:
    """Fill `result` with the displacements of a signal's patches, found in the signal itself."""
    for z in range(1, result.shape[0]):
        for i in range(m.shifts.shape[0]):
            for j in range(m.shifts.shape[1]):
                m.shifts[i, j, 0], m.shifts[i, j, 1] = 0, 0
        for y in range(result.shape[1]):
            for x in range(result.shape[2]):
                _find_shift(p, m, target, target, z, y, x)
                for axis in range(2):
                    m.shifts[y + 1, x + 1, axis] = m.shift[axis]
                    result[z, y, x, axis] = m.shift[axis]


def shifts_of(size: np.ndarray, motion: int, signal: np.ndarray) -> np.ndarray:
    """Find the displacements of a signal's patches from the plane before them, which stands for a decoded one.

    Parameters
    ----------
    size : numpy.ndarray
        int64 ``[3]``: lengths of a patch, of which the first is 1.
    motion : int
        The largest displacement.
    signal : numpy.ndarray
        float64 ``[Z, Y, X, F]``, whole patches.

    Returns
    -------
    numpy.ndarray
        int64 ``[nz, ny, nx, 2]``, along y and x.
    """
    nz, ny, nx = (int(n) // int(s) for n, s in zip(signal.shape[:3], size, strict=True))
    none = np.zeros((1, 0, 0))
    indices = np.zeros((0, 0), np.int64)
    p = Patching(size, indices, indices, np.zeros(0), none, none, none, np.array([motion], np.int64))
    result = np.zeros((nz, ny, nx, 2), np.int64)
    _shifts_of(p, patch_memory(p, nz, ny, nx), signal, result)
    return result


@inner()
def _choose_expert(
    p: Patching, m: PatchMemory, target: np.ndarray, likely: np.ndarray, z: int, y: int, x: int, step: float
) -> int:  # fmt: skip
    """Choose the likely expert with the least squared error and bits, by a rough count.

    `m.codes[expert]` and `m.scaled` are then its own.
    """
    features, best, least = p.middle.size, 0, math.inf
    for k in range(likely.shape[3]):
        expert = likely[z, y, x, k]
        predict(p, m, expert)
        cost = transform(p, m, target, z, y, x, step, expert, features)
        if expert + 1 != m.kept[0, y + 1, x, 2]:
            cost += 2.0 * PRICE
        if cost < least:
            best, least = expert, cost
    transform(p, m, target, z, y, x, step, best, features)
    return best


@inner()
def transform(
    p: Patching, m: PatchMemory, target: np.ndarray, z: int, y: int, x: int, step: float, expert: int, features: int
) -> float:  # fmt: skip
    """Fill `m.scaled` and `m.codes[expert]` from the target and the prediction; returns the cost in squared steps."""
    q_count, codes = m.scaled.size, m.codes[expert]
    for q in range(q_count):
        m.scaled[q] = 0.0
    i = 0
    for dz in range(p.size[0]):
        for dy in range(p.size[1]):
            for dx in range(p.size[2]):
                for f in range(features):
                    value = target[z * p.size[0] + dz, y * p.size[1] + dy, x * p.size[2] + dx, f]
                    error = (value - m.mean[f] - m.predicted[expert, i]) / step
                    for q in range(q_count):
                        m.scaled[q] += error * p.analysis[expert, i, q]
                    i += 1
    cost, last = 0.0, -1
    for q in range(q_count):
        size = abs(m.scaled[q])
        code = np.int64(min(size + (0.5 - DEAD_ZONE), 1e9))
        codes[q] = code if m.scaled[q] >= 0 else -code
        cost += (size - code) * (size - code)
        if code:
            cost += PRICE * (2.5 + 2.0 * math.log2(code) + 0.5 * math.log2(q - last))
            last = q
    return cost


@inner()
def _worthwhile(codes: np.ndarray, scaled: np.ndarray) -> int:
    """How many of the codes are worth their bits; those after them are set to zero."""
    q_count, best, change, least = codes.size, 0, 0.0, 0.0
    for q in range(q_count):
        # Against a zero here, the code saves squared error and costs bits; a zero before a later code costs a little.
        code, size = abs(codes[q]), abs(scaled[q])
        if code:
            change += (size - code) * (size - code) - size * size + PRICE * (3.0 + 2.0 * math.log2(code))
        else:
            change += PRICE * 0.15
        if change < least:
            best, least = q + 1, change
    while best > 0 and codes[best - 1] == 0:
        best -= 1
    for q in range(best, q_count):
        codes[q] = 0
    return best


@inner()
def size_class(value: int) -> int:
    """0 to 8: small numbers are their own class, larger ones share one."""
    if value < 3:
        return value
    if value < 5:
        return 3
    if value < 8:
        return 4
    if value < 14:
        return 5
    if value < 24:
        return 6
    return 7 if value < 48 else 8


@inner()
def nearby(m: PatchMemory, y: int, x: int, what: int) -> int:
    """Twice the mean of a number over the patches to the left, above and before, as far as there are any."""
    left, above, before = m.kept[0, y + 1, x], m.kept[0, y, x + 1], m.kept[1, y + 1, x + 1]
    known = left[3] + above[3] + before[3]
    return (2 * (left[what] + above[what] + before[what]) + known // 2) // max(1, known)


@inner()
def code_expert(
    c: Coder, data: np.ndarray, p: Patching, m: PatchMemory, y: int, x: int, expert: int, writing: bool
) -> int:  # fmt: skip
    """Code which expert a patch has."""
    count = p.predict.shape[0]
    if count == 1:
        return 0
    left, above, before = m.kept[0, y + 1, x, 2], m.kept[0, y, x + 1, 2], m.kept[1, y + 1, x + 1, 2]
    activity = size_class(nearby(m, y, x, 0) // 4)
    c.context[0] = left
    c.context[1] = above
    c.context[2] = left * (EXPERTS + 1) + above
    c.context[3] = activity
    c.context[4] = before * 9 + activity
    c.context[5] = left * 9 + activity
    # In unary an expert costs as many decisions as its number: they come in order of how common they are.
    return min(abs(integer(c, data, expert, _ZERO, _ZERO, _ZERO, writing)), count - 1)


@inner()
def code_length(
    c: Coder, data: np.ndarray, m: PatchMemory, y: int, x: int, expert: int, length: int, writing: bool
) -> int:  # fmt: skip
    """Code how many latents of a patch have codes: the number of bits of this number, then its lower bits."""
    left, above, before = m.kept[0, y + 1, x, 1], m.kept[0, y, x + 1, 1], m.kept[1, y + 1, x + 1, 1]
    by_left, by_above, by_before = size_class(left), size_class(above), size_class(before)
    around = size_class(nearby(m, y, x, 1) // 2)
    activity = size_class(nearby(m, y, x, 0))
    bits = 0
    while writing and length >> bits:
        bits += 1
    c.context[0] = by_left * 9 + by_above
    c.context[1] = around * (EXPERTS + 1) + expert
    c.context[2] = activity * 9 + around
    c.context[3] = expert
    c.context[4] = by_before * 9 + around
    c.context[5] = size_class(m.kept[0, y, x, 1]) * 9 + size_class(m.kept[0, y, x + 2, 1])
    bits = min(abs(integer(c, data, bits, _ZERO, _ZERO, _ZERO, writing)), 15)
    value = 1 if bits else 0
    for k in range(bits - 2, -1, -1):
        place = bits * 16 + k
        c.context[0] = 1000 + place
        c.context[1] = 1000 + 256 * (1 + (value & 1)) + place
        c.context[2] = 1000 + place * 9 + around
        c.context[3] = 1000 + min(value, 1023)
        c.context[4] = 1000 + place * 9 + activity
        c.context[5] = 1000 + place * 9 + by_left
        lower = abs(integer(c, data, (length >> k) & 1, _ZERO, _ZERO, _LOWER, writing))
        value = value << 1 | min(lower, 1)
    return min(value, m.scaled.size)


@inner()
def code_patch(
    c: Coder, data: np.ndarray, m: PatchMemory, y: int, x: int, expert: int, length: int, writing: bool
) -> None:  # fmt: skip
    """Code the first `length` latents of a patch, of which the last is not zero, and remember them."""
    codes, planes = m.codes[expert], m.before.shape[0] > 0
    known = m.kept[0, y + 1, x, 3] + m.kept[0, y, x + 1, 3] + m.kept[1, y + 1, x + 1, 3]
    activity, total, one, two = size_class(nearby(m, y, x, 0)), 0, 0, 0
    around = 0  # of the latent before this one
    for q in range(length):
        here, after = int(m.left[q]) + int(m.above[x, q]), 0
        if planes:
            here += int(m.before[y, x, q])
        here = (2 * here + known // 2) // max(1, known)
        if q + 1 < length:
            after = int(m.left[q + 1]) + int(m.above[x, q + 1])
            if planes:
                after += int(m.before[y, x, q + 1])
            after = (2 * after + known // 2) // max(1, known)
        blurred = around + 2 * here + after
        low = min(q, 511)
        c.context[0] = 4 * min(q, 1023) + min(one, 3)
        c.context[1] = 512 * min(here, 7) + low
        c.context[2] = 128 * expert + min(q, 127)
        c.context[3] = 9 * min(one + two, 11) + size_class(blurred)
        c.context[4] = (9 * activity + min(size_class(length >> 2), 8)) * 3 + min(one, 2)
        c.context[5] = 100 * size_class(length - q) + 10 * min(blurred, 7) + min(one + two, 9)
        shift: Any = _ZERO
        while (here + one + two) >> (2 + shift) > 6:
            shift += 1
        certain: Any = _ONE if q == length - 1 and shift == 0 else _ZERO
        code = integer(c, data, codes[q], certain, shift, min(one + two, 4), writing)
        codes[q] = max(-LIMIT, min(LIMIT, code))
        two, one = one, abs(codes[q])
        total += min(one, 1 << 20)
        around = here
    for q in range(length, codes.size):
        codes[q] = 0
    for q in range(codes.size):
        size = np.int16(min(abs(codes[q]), 32767))
        m.left[q] = size
        m.above[x, q] = size
        if planes:
            m.before[y, x, q] = size
    kept = m.kept[0, y + 1, x + 1]
    kept[0], kept[1], kept[2], kept[3] = min(total, 1 << 30), length, expert + 1, 1


@inner()
def restore_patch(
    p: Patching, m: PatchMemory, out: np.ndarray, z: int, y: int, x: int, expert: int, length: int, step: float
) -> None:  # fmt: skip
    """Add the expert's functions, in order, to its prediction, and write the patch to `out`."""
    features = p.middle.size
    for i in range(m.values.size):
        m.values[i] = m.predicted[expert, i]
    for q in range(length):
        if m.codes[expert, q] != 0:
            latent = m.codes[expert, q] * step
            for i in range(m.values.size):
                m.values[i] += latent * p.basis[expert, q, i]
    i = 0
    for dz in range(p.size[0]):
        for dy in range(p.size[1]):
            for dx in range(p.size[2]):
                for f in range(features):
                    at = z * p.size[0] + dz, y * p.size[1] + dy, x * p.size[2] + dx
                    out[at[0], at[1], at[2], f] = m.values[i] + m.mean[f]
                    i += 1
