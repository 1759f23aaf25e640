"""Coding of patches of frames that follow motion, compiled by Numba: displacements, what is seen, and its coding.

docs/format.md specifies every number below (section Patches, Frames). What is not about motion is inlined from
`vcinr.patches.kernels`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from vcinr.coding.kernels import LIMIT, Coder, bit, integer
from vcinr.compiled import inner, outer
from vcinr.patches.kernels import (
    Patching,
    PatchMemory,
    code_expert,
    code_length,
    code_patch,
    gather,
    middle_of,
    nearby,
    predict,
    restore_patch,
    size_class,
    transform,
)  # fmt: skip

FINE = 4
"""Displacements are in parts of a point, so many to one."""
TAPS = np.array(
    [[0, 0, 0, 64, 0, 0, 0, 0], [-1, 4, -10, 58, 17, -5, 1, 0], [-1, 4, -11, 40, 40, -11, 4, -1],
     [0, 1, -5, 17, 58, -10, 4, -1]], np.float64,
) / 64  # fmt: skip
"""Interpolation at each part between two points, from the 8 points around: the filters of HEVC (ITU-T H.265)."""
_ZERO: Any = np.int64(0)
_TWO: Any = np.int64(2)
_USUAL: Any = np.int64(3)  # the set of weights of whether a patch is as usual
_SEARCHED = 2.0  # squared error in squared steps, below which nothing better than the usual is searched for
_PRICE = 0.2  # squared error, in squared steps, that one bit may save
_NEAR_SHIFT = 0.6  # sum of magnitudes of differences, in steps, that one bit of a displacement may save


class Moving(NamedTuple):
    """What a coder remembers of the displacements of a signal, and room to work in. R is the number of frames seen.

    Attributes
    ----------
    limits : numpy.ndarray
        int64 ``[2]``: the largest displacement in parts of a point, and how far around a displaced patch one looks.
    frames : numpy.ndarray
        int64 ``[3]``: the frame that is coded, and those that it looks at, the second -1 where there is one alone.
    moved : numpy.ndarray
        int64 ``[Z, 2, ny, nx, 2]``: the displacements of all frames coded so far, by which of the frames seen.
    looked : numpy.ndarray
        int64 ``[Z, 2]``: the frames that each frame has looked at, -1 for none.
    usual : numpy.ndarray
        int64 ``[ny + 1, nx + 2]``: whether patches of this frame are as usual; the first row and outer columns stay 0.
    shift, guess : numpy.ndarray
        int64 ``[2, 2]``: the displacements of a patch, by frame seen and axis, and those that are guessed.
    chosen : numpy.ndarray
        int64 ``[3]``: what a writer has chosen: whether a patch is as usual, its expert and the number of its codes.
    window : numpy.ndarray
        float64 ``[height, width, F]``: what is seen of a frame.
    rows : numpy.ndarray
        float64 ``[height + 7, width, F]``: the same, interpolated along rows.
    taps : numpy.ndarray
        `TAPS`.
    plain : numpy.ndarray
        float32 ``[Z, Y, X]``, for a writer: the sum of the features of what it writes.
    fine : numpy.ndarray
        float32 ``[2, FINE, FINE, Y, X]``, for a writer: the sum of the features of the frames seen, interpolated at all
        parts of a point.
    """

    limits: np.ndarray
    frames: np.ndarray
    moved: np.ndarray
    looked: np.ndarray
    usual: np.ndarray
    shift: np.ndarray
    guess: np.ndarray
    chosen: np.ndarray
    window: np.ndarray
    rows: np.ndarray
    taps: np.ndarray
    plain: np.ndarray
    fine: np.ndarray


def moving(size: np.ndarray, motion: int, margin: int, shape: tuple[int, ...], target: np.ndarray) -> Moving:
    """Empty memory for a signal of `shape`, ``[Z, Y, X, F]``, and for a writer of `target`."""
    frames, ny, nx = shape[0], shape[1] // int(size[1]), shape[2] // int(size[2])
    height, width = int(size[1]) + 2 * margin, int(size[2]) + 2 * margin
    return Moving(
        np.array([FINE * motion, margin], np.int64), np.zeros(3, np.int64), np.zeros((frames, 2, ny, nx, 2), np.int64),
        np.full((frames, 2), -1, np.int64), np.zeros((ny + 1, nx + 2), np.int64), np.zeros((2, 2), np.int64),
        np.zeros((2, 2), np.int64), np.zeros(3, np.int64), np.zeros((height, width, shape[3])),
        np.zeros((height + 7, width, shape[3])), TAPS,
        target.sum(-1, dtype=np.float32), np.zeros((2, FINE, FINE, *target.shape[1:3]), np.float32),
    )  # fmt: skip


@outer
def moving_row(
    codes: Coder, experts: Coder, lengths: Coder, data: np.ndarray, p: Patching, m: PatchMemory, v: Moving,
    target: np.ndarray, out: np.ndarray, y: int, step: float, writing: bool,
) -> None:  # fmt: skip
    """Code the row y of patches of the frame that `v.frames` names."""
    m.left[:] = 0
    z = v.frames[0]
    for x in range(m.above.shape[0]):
        expert, length = 0, 0
        _guess(m, v, y, x)
        if writing:
            _choose(experts, lengths, p, m, v, target, out, y, x, step)
            expert, length = v.chosen[1], v.chosen[2]
        usual = _code_usual(lengths, data, m, v, y, x, v.chosen[0], writing)
        if usual:
            _as_guessed(v)
        else:
            _code_shifts(experts, data, m, v, y, x, writing)
        _remember(v, z, y, x)
        v.usual[y + 1, x + 1] = usual
        if not usual:
            expert = code_expert(experts, data, p, m, y, x, expert, writing)
            length = code_length(lengths, data, m, y, x, expert, length, writing)
        code_patch(codes, data, m, y, x, expert, length, writing)
        _seen(p, m, v, out, y, x)
        predict(p, m, expert)
        restore_patch(p, m, out, z, y, x, expert, length, step)


@inner()
def _references(v: Moving) -> int:
    """How many frames a frame looks at."""
    return 1 if v.frames[2] < 0 else 2


@inner()
def _guess(m: PatchMemory, v: Moving, y: int, x: int) -> None:
    """Guess displacements.

    Of one frame, it is the median of those to the left, above and above right. Of two frames, between which there is a
    displacement already, the last is replaced by the part of this that time has covered.
    """
    z, before, after = v.frames[0], v.frames[1], v.frames[2]
    references, columns = _references(v), m.above.shape[0]
    for axis in range(2):
        path = 0  # from the later to the earlier frame
        if references == 2:
            if v.looked[after, 0] == before:
                path = v.moved[after, 0, y, x, axis]
            elif v.looked[before, 1] == after:
                path = -v.moved[before, 1, y, x, axis]
        for r in range(references):
            third = 0
            if references == 2:
                third = path * (z - before) // (after - before) - (path if r else 0)
            elif y > 0 and x + 1 < columns:
                third = v.moved[z, r, y - 1, x + 1, axis]
            none = third if references == 2 else 0
            left = v.moved[z, r, y, x - 1, axis] if x > 0 else none
            above = v.moved[z, r, y - 1, x, axis] if y > 0 else none
            v.guess[r, axis] = middle_of(left, above, third)


@inner()
def _as_guessed(v: Moving) -> None:
    """Set displacements to those that are guessed."""
    for r in range(2):
        v.shift[r, 0], v.shift[r, 1] = v.guess[r, 0], v.guess[r, 1]


@inner()
def _remember(v: Moving, z: int, y: int, x: int) -> None:
    """Keep the displacements of a patch."""
    for r in range(_references(v)):
        v.moved[z, r, y, x, 0], v.moved[z, r, y, x, 1] = v.shift[r, 0], v.shift[r, 1]


@inner()
def _spread(v: Moving, r: int, y: int, x: int, axis: int) -> int:
    """How much the displacements to the left and above differ from what is guessed, as a class."""
    z, total = v.frames[0], 0
    if x > 0:
        total += abs(v.moved[z, r, y, x - 1, axis] - v.guess[r, axis])
    if y > 0:
        total += abs(v.moved[z, r, y - 1, x, axis] - v.guess[r, axis])
    return size_class(total)


@inner()
def _usual_contexts(c: Coder, m: PatchMemory, v: Moving, y: int, x: int) -> None:
    """Set the contexts of whether a patch is as usual."""
    near = v.usual[y + 1, x] + 2 * v.usual[y, x + 1] + 4 * v.usual[y, x + 2]
    spread = size_class(_spread(v, 0, y, x, 0) + _spread(v, 0, y, x, 1))
    before = size_class(m.kept[1, y + 1, x + 1, 1])
    c.context[0] = 3400 + near
    c.context[1] = 3410 + 8 * before + near
    c.context[2] = 3500 + 8 * size_class(nearby(m, y, x, 0)) + near
    c.context[3] = 3600 + 8 * spread + near
    c.context[4] = 3700 + 9 * size_class(m.kept[0, y + 1, x, 1]) + size_class(m.kept[0, y, x + 1, 1])
    c.context[5] = 3800 + 8 * size_class(m.kept[1, y + 1, x + 1, 0]) + near


@inner()
def _code_usual(
    c: Coder, data: np.ndarray, m: PatchMemory, v: Moving, y: int, x: int, usual: int, writing: bool
) -> int:  # fmt: skip
    """Code whether a patch moves as guessed, has the first expert and no codes."""
    _usual_contexts(c, m, v, y, x)
    return bit(c, data, _ZERO, _USUAL, usual, writing)


@inner()
def _price(c: Coder, node: int, weights: int, value: int) -> float:
    """How many bits a decision would take under the contexts in `c.context`; for writers."""
    mixed = 0
    for i in range(6):
        mixed += c.weight[weights, i] * int(c.stretch[c.counter[i, node, c.context[i]] >> 15])
    most = c.squash.size // 2
    probability = c.squash[max(-most, min(most, mixed >> 16)) + most] / 65536.0
    return -math.log2(max(1e-5, probability if value else 1.0 - probability))


@inner()
def _code_shifts(
    c: Coder, data: np.ndarray, m: PatchMemory, v: Moving, y: int, x: int, writing: bool
) -> None:  # fmt: skip
    """Code a patch's displacements as their differences from those guessed.

    Where the first is not as guessed, the second is taken to differ in the opposite direction.
    """
    most, first = v.limits[0], 9
    both = v.usual[y + 1, x] + 2 * v.usual[y, x + 1]
    for r in range(_references(v)):
        for axis in range(2):
            guess = v.guess[r, axis]
            if r == 1:
                guess -= v.shift[0, axis] - v.guess[0, axis]
            place, spread = 2 * r + axis, _spread(v, r, y, x, axis)
            c.context[0] = 3400 + place
            c.context[1] = 3410 + 9 * place + spread
            c.context[2] = 3450 + 10 * spread + first
            c.context[3] = 3550 + 10 * place + first
            c.context[4] = 3600 + 9 * place + size_class(m.kept[0, y + 1, x, 1])
            c.context[5] = 3640 + 4 * place + both
            difference = integer(c, data, v.shift[r, axis] - guess, _ZERO, _ZERO, _TWO, writing)
            v.shift[r, axis] = max(-most, min(most, max(-LIMIT, min(LIMIT, difference)) + guess))
            first = size_class(abs(v.shift[r, axis] - guess))


@inner()
def _interpolate(v: Moving, frame: np.ndarray, top: int, left: int, height: int, width: int) -> None:
    """Fill `v.window` with `height` rows and `width` columns of a frame from (top, left) on, in parts of a point.

    Beyond the edge, the nearest value counts.
    """
    y0, x0 = top // FINE, left // FINE
    by_y, by_x = top - FINE * y0, left - FINE * x0
    last_y, last_x, features = frame.shape[0] - 1, frame.shape[1] - 1, frame.shape[2]
    first, rows = (3, height + 7) if by_y else (0, height)
    for i in range(rows):
        at_y = max(0, min(last_y, y0 + i - first))
        for j in range(width):
            if by_x == 0:
                at_x = max(0, min(last_x, x0 + j))
                for f in range(features):
                    v.rows[i, j, f] = frame[at_y, at_x, f]
            else:
                for f in range(features):
                    v.rows[i, j, f] = 0.0
                for k in range(8):
                    tap, at_x = v.taps[by_x, k], max(0, min(last_x, x0 + j + k - 3))
                    for f in range(features):
                        v.rows[i, j, f] += tap * frame[at_y, at_x, f]
    for i in range(height):
        for j in range(width):
            if by_y == 0:
                for f in range(features):
                    v.window[i, j, f] = v.rows[i, j, f]
            else:
                for f in range(features):
                    v.window[i, j, f] = 0.0
                for k in range(8):
                    tap = v.taps[by_y, k]
                    for f in range(features):
                        v.window[i, j, f] += tap * v.rows[i + k, j, f]


@inner()
def _seen(p: Patching, m: PatchMemory, v: Moving, out: np.ndarray, y: int, x: int) -> None:
    """Fill `m.around` and `m.mean`: the known values of the frame itself, then those of the frames it looks at."""
    features, margin = p.middle.size, v.limits[1]
    count, first = gather(p, m, out, v.frames[0], y, x), p.offsets.shape[0] * features
    at = first
    for r in range(_references(v)):
        top = FINE * (y * p.size[1] - margin) + v.shift[r, 0]
        left = FINE * (x * p.size[2] - margin) + v.shift[r, 1]
        _interpolate(v, out[v.frames[1 + r]], top, left, v.window.shape[0], v.window.shape[1])
        for i in range(v.window.shape[0]):
            for j in range(v.window.shape[1]):
                for f in range(features):
                    value = v.window[i, j, f]
                    m.around[at] = value
                    m.mean[f] += value
                    at += 1
    known = count > 0
    count += (at - first) // features
    for f in range(features):
        m.mean[f] /= count
    for j in range(at):
        m.around[j] = 0.0 if j < first and not known else m.around[j] - m.mean[j % features]


# --- A writer's choices


@outer
def look(v: Moving, out: np.ndarray, r: int) -> None:
    """Fill `v.fine[r]` from the frame `v.frames[1 + r]`, for `_search`."""
    fine = v.fine[r]
    height, width = fine.shape[2], fine.shape[3]
    frame = v.frames[1 + r]
    for i in range(height):
        for j in range(width):
            total = 0.0
            for f in range(out.shape[3]):
                total += out[frame, i, j, f]
            fine[0, 0, i, j] = total
    for by in range(1, FINE):
        for i in range(height):
            for j in range(width):
                total = 0.0
                for k in range(8):
                    total += v.taps[by, k] * fine[0, 0, i, max(0, min(width - 1, j + k - 3))]
                fine[0, by, i, j] = total
    for by in range(1, FINE):
        for other in range(FINE):
            for i in range(height):
                for j in range(width):
                    fine[by, other, i, j] = 0.0
                for k in range(8):
                    row = max(0, min(height - 1, i + k - 3))
                    for j in range(width):
                        fine[by, other, i, j] += v.taps[by, k] * fine[0, other, row, j]


@inner()
def _difference(
    p: Patching, v: Moving, r: int, y: int, x: int, dy: int, dx: int, step: float, least: float
) -> float:  # fmt: skip
    """Sum of the magnitudes of a patch's differences from a displaced one, with the price of the displacement.

    The sum ends where it exceeds `least`.
    """
    height, width, z = p.size[1], p.size[2], v.frames[0]
    total = _NEAR_SHIFT * step * (math.log2(1.0 + abs(dy - v.guess[r, 0])) + math.log2(1.0 + abs(dx - v.guess[r, 1])))
    plane = v.fine[r, dy % FINE, dx % FINE]
    last_y, last_x = plane.shape[0] - 1, plane.shape[1] - 1
    top, left = y * height + dy // FINE, x * width + dx // FINE
    for i in range(height):
        row = max(0, min(last_y, top + i))
        for j in range(width):
            total += abs(v.plain[z, y * height + i, x * width + j] - plane[row, max(0, min(last_x, left + j))])
        if total >= least:
            return total
    return total


@inner()
def _coarse(p: Patching, v: Moving, r: int, y: int, x: int) -> None:
    """Set `v.shift[r]` to the displacement under which a patch and its surroundings fit best, on every other point.

    The surroundings count so that it is the motion that is found, not a likeness by chance. It is looked for farther
    the more time there is between the frames.
    """
    z = v.frames[0]
    plane = v.fine[r, 0, 0]
    last_y, last_x = plane.shape[0] - 1, plane.shape[1] - 1
    y0, x0 = y * p.size[1] - 4, x * p.size[2] - 4
    reach = min(v.limits[0] // FINE, 4 + 4 * abs(z - v.frames[1 + r])) // 2 * 2
    least = math.inf
    for dy in range(-reach, reach + 1, 2):
        for dx in range(-reach, reach + 1, 2):
            total = 0.01 * (abs(dy) + abs(dx))
            for i in range(0, p.size[1] + 8, 2):
                row, other = max(0, min(last_y, y0 + i)), max(0, min(last_y, y0 + i + dy))
                for j in range(0, p.size[2] + 8, 2):
                    column = max(0, min(last_x, x0 + j))
                    total += abs(v.plain[z, row, column] - plane[other, max(0, min(last_x, x0 + j + dx))])
                if total >= least:
                    break
            if total < least:
                least = total
                v.shift[r, 0], v.shift[r, 1] = FINE * dy, FINE * dx


@inner()
def _search(p: Patching, v: Moving, r: int, y: int, x: int, step: float) -> None:
    """Set `v.shift[r]` to a displacement under which a patch resembles the frame that it looks at.

    The best of those guessed, of none, those of patches nearby and that of `_coarse` is refined in steps that halve.
    """
    z, most = v.frames[0], v.limits[0]
    _coarse(p, v, r, y, x)
    coarse_y, coarse_x = v.shift[r, 0], v.shift[r, 1]
    best_y, best_x = v.guess[r, 0], v.guess[r, 1]
    least = _difference(p, v, r, y, x, best_y, best_x, step, math.inf)
    for k in range(4):
        dy, dx = 0, 0
        if k == 1:
            dy, dx = coarse_y, coarse_x
        elif k == 2 and x > 0:
            dy, dx = v.moved[z, r, y, x - 1, 0], v.moved[z, r, y, x - 1, 1]
        elif k == 3 and y > 0:
            dy, dx = v.moved[z, r, y - 1, x, 0], v.moved[z, r, y - 1, x, 1]
        other = _difference(p, v, r, y, x, dy, dx, step, least)
        if other < least:
            least, best_y, best_x = other, dy, dx
    stride, tries = FINE, 0
    while stride > 0:
        from_y, from_x = best_y, best_x
        for i in range(-1, 2):
            for j in range(-1, 2):
                dy, dx = from_y + i * stride, from_x + j * stride
                if (i or j) and abs(dy) <= most and abs(dx) <= most:
                    other = _difference(p, v, r, y, x, dy, dx, step, least)
                    if other < least:
                        least, best_y, best_x = other, dy, dx
        tries += 1
        if stride < FINE or tries == 4 or (best_y == from_y and best_x == from_x):
            stride //= 2
    v.shift[r, 0], v.shift[r, 1] = best_y, best_x


@inner()
def _worth(codes: np.ndarray, scaled: np.ndarray) -> tuple[int, float]:
    """How many of the codes are worth their bits, and the cost; those after them are set to zero."""
    best, change, least, total = 0, 0.0, 0.0, 0.0
    for q in range(codes.size):
        code, size = abs(codes[q]), abs(scaled[q])
        total += size * size
        if code:
            change += (size - code) * (size - code) - size * size + _PRICE * (3.0 + 2.0 * math.log2(code))
        else:
            change += _PRICE * 0.15
        if change < least:
            best, least = q + 1, change
    for q in range(best, codes.size):
        codes[q] = 0
    return best, total + least


@inner()
def _choose(
    experts: Coder, lengths: Coder, p: Patching, m: PatchMemory, v: Moving, target: np.ndarray, out: np.ndarray,
    y: int, x: int, step: float,
) -> None:  # fmt: skip
    """Set `v.chosen`, `v.shift` and the codes of the expert to what costs the least squared error and bits."""
    _as_guessed(v)
    _seen(p, m, v, out, y, x)
    predict(p, m, 0)
    transform(p, m, target, v.frames[0], y, x, step, 0, p.middle.size)
    usual, coded = 0.0, False
    for q in range(m.scaled.size):
        usual += m.scaled[q] * m.scaled[q]
        coded = coded or m.codes[0, q] != 0
    _usual_contexts(lengths, m, v, y, x)
    least = usual + _PRICE * _price(lengths, 0, 3, 1)
    v.chosen[0], v.chosen[1], v.chosen[2] = 1, 0, 0
    if coded or usual > _SEARCHED:
        other = _PRICE * _price(lengths, 0, 3, 0)
        v.chosen[0] = 0
        for r in range(_references(v)):
            _search(p, v, r, y, x, step)
            for axis in range(2):
                guess = v.guess[r, axis]
                if r == 1:
                    guess -= v.shift[0, axis] - v.guess[0, axis]
                apart = abs(v.shift[r, axis] - guess)
                other += _PRICE * (0.3 if apart == 0 else 2.0 + 2.0 * math.log2(apart))
        same = True  # as guessed, for which the first expert has predicted already
        for r in range(_references(v)):
            for axis in range(2):
                same = same and v.shift[r, axis] == v.guess[r, axis]
        if not same:
            _seen(p, m, v, out, y, x)
        best, lowest = 0, math.inf
        for expert in range(p.basis.shape[0]):
            if expert or not same:
                predict(p, m, expert)
            transform(p, m, target, v.frames[0], y, x, step, expert, p.middle.size)
            length, cost = _worth(m.codes[expert], m.scaled)
            cost += _PRICE * (0.5 if expert + 1 == m.kept[0, y + 1, x, 2] else 2.0)
            cost += _PRICE * 2.0 * math.log2(1.0 + length)
            if cost < lowest:
                best, lowest = expert, cost
                v.chosen[2] = length
        v.chosen[1] = best
        if other + lowest >= least:
            v.chosen[0], v.chosen[1], v.chosen[2] = 1, 0, 0
            _as_guessed(v)
            for q in range(m.scaled.size):
                m.codes[0, q] = 0
    else:
        for q in range(m.scaled.size):
            m.codes[0, q] = 0


# --- Learning


@outer
def follow_row(
    p: Patching, m: PatchMemory, v: Moving, target: np.ndarray, out: np.ndarray, y: int, step: float,
    chosen: np.ndarray, around: np.ndarray, values: np.ndarray,
) -> None:  # fmt: skip
    """Follow the motion of the patches of a row, and see what is around those that are chosen.

    Parameters
    ----------
    p, m, v, target, out, y, step
        As of `moving_row`; `out` holds all frames.
    chosen : numpy.ndarray
        int64 ``[nx]``: the row of `around` for each patch, or -1.
    around, values : numpy.ndarray
        float32 ``[N, D]`` and ``[N, Q]``: are filled with what is seen around patches, less its mean, and what they
        hold, less the same.
    """
    features, z = p.middle.size, v.frames[0]
    for x in range(m.above.shape[0]):
        _guess(m, v, y, x)
        _as_guessed(v)
        for r in range(_references(v)):
            _search(p, v, r, y, x, step)
        _remember(v, z, y, x)
        if chosen[x] >= 0:
            _seen(p, m, v, out, y, x)
            for i in range(m.around.size):
                around[chosen[x], i] = m.around[i]
            i = 0
            for dy in range(p.size[1]):
                for dx in range(p.size[2]):
                    for f in range(features):
                        values[chosen[x], i] = target[z, y * p.size[1] + dy, x * p.size[2] + dx, f] - m.mean[f]
                        i += 1
