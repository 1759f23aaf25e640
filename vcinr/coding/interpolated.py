"""Residual coder for speed: planes interpolated level by level, static tables chosen by context, interleaved rANS.

A plane is refined from a single point by doubling its lattice, as in SZ3 (Zhao et al. 2021, "Optimizing error-bounded
lossy compression for scientific data by dynamic spline interpolation"), on reconstructed values. Of each cell of four
points one is known; its neighbour in the row is predicted along the row, its neighbour in the column along the column,
and the one between these from both (as in HPEZ, Liu et al. 2023). The four kinds lie apart in memory, so that all
loops run over consecutive numbers. What a fading mean of the planes of earlier times says is subtracted beforehand.

Codes, integer multiples of a step, are coded in blocks of 16: first whether all are zero, else one by one, by range
variants of asymmetric numeral systems (Duda 2013) in four interleaved states (Giesen 2014, "Interleaved entropy
coders"). A block's table is chosen by the sizes of the blocks beside it; a table is two-sided geometric but for its
zero, and the chunk says its parameters. What is decoded depends on integers alone, what is reconstructed on float64
additions and multiplications one by one in a fixed order.

Compiled by Numba, all in one file for the reason given in `kernels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from vcinr.compiled import inner, outer
from vcinr.errors import CorruptError

LIMIT = 1 << 30
"""Magnitudes from here on cannot be coded."""
BLOCK = 16
_BITS = 12  # of a frequency
_TOTAL = 1 << _BITS
_MASK = _TOTAL - 1
_LOW = 1 << 16  # states are in [_LOW, _LOW << 16), words have 16 bits
_SINGLES = 126  # symbols of a code, at most: 0 the escape, then codes from -_reach to _reach
_MOST_ZEROS = _TOTAL - 256  # frequency of a code's zero, at most
_QUADS = 82  # symbols of four codes of size 1 at most: 0 the escape, then numbers of base 3, the first code lowest
_NO_QUAD = 41  # all zero
_CONTEXTS = 80
_ESCAPE_BITS: Any = np.int64(6)  # NumPy's integers, as Numba would compile a function anew for a literal
_FIRST: Any = np.int64(0)
_ZERO: Any = np.int64(0)
_ONE: Any = np.int64(1)
_PADDING = 8 * BLOCK  # words that a block may take, at least


@dataclass(frozen=True)
class Choices:
    """What the writer finds out from a sample and the reader is told, in one byte.

    prediction: index into `_PREDICTIONS`. memory: index into `_MEMORY`. tighten: on lattice level l (0 the finest) the
    step is divided by min((1 + tighten / 8)^l, 4). Without prediction only the step itself is there.
    """

    prediction: int = 2
    memory: int = 0
    tighten: int = 1

    def to_byte(self) -> int:
        """0 to 63."""
        return self.prediction | self.memory << 2 | self.tighten << 4

    @classmethod
    def from_byte(cls, byte: int) -> Choices:
        """Inverse of `to_byte`; raises CorruptError."""
        if byte >= 64 or byte & 3 >= len(_PREDICTIONS):
            raise CorruptError("interpolated stream is malformed")
        return cls(byte & 3, byte >> 2 & 3, byte >> 4)


def lattice_steps(step: float, tighten: int, count: int) -> np.ndarray:
    """Steps of so many lattice levels, the finest first: step / min((1 + tighten / 8)^level, 4), float64."""
    sizes, factor = [], 1.0
    for _ in range(count):
        sizes.append(step / factor)
        factor = min(factor * (1.0 + tighten / 8.0), 4.0)
    return np.array(sizes)


_PREDICTIONS = ("none", "linear", "cubic")
_MEMORY = ((0.0, 0.0), (0.5, 0.5), (0.75, 0.5), (1.0, 0.25))
"""Share of the mean that is subtracted, and how far the mean moves to each plane."""


# --- prediction


@inner(forceinline=True)
def _along(line: np.ndarray, out: np.ndarray, cubic: bool) -> None:
    """Predict what lies between the points of a line, and after the last if `out` is as long."""
    near, far = (0.5625, 0.0625) if cubic else (0.5, 0.0)
    m, n = line.size, out.size
    if n == 0:
        return
    for k in range(1, m - 2):
        out[k] = near * (line[k] + line[k + 1]) - far * (line[k - 1] + line[k + 2])
    if m > 1:
        out[0] = 0.5 * (line[0] + line[1])
        out[m - 2] = 0.5 * (line[m - 2] + line[m - 1])
    if n == m:
        out[n - 1] = line[n - 1]


@inner()
def _across(lines: np.ndarray, i: int, out: np.ndarray, cubic: bool) -> None:
    """Predict the line between lines i and i + 1, each as long as `out`, or after the last."""
    n = out.size
    m = lines.size // n if n else 0
    b = lines[i * n : (i + 1) * n]
    if i + 1 >= m:
        for k in range(n):
            out[k] = b[k]
        return
    c = lines[(i + 1) * n : (i + 2) * n]
    if not cubic or i == 0 or i + 2 == m:
        for k in range(n):
            out[k] = 0.5 * (b[k] + c[k])
        return
    a, d = lines[(i - 1) * n : i * n], lines[(i + 2) * n : (i + 3) * n]
    for k in range(n):
        out[k] = 0.5625 * (b[k] + c[k]) - 0.0625 * (a[k] + d[k])


@inner()
def _quantise(
    target: np.ndarray, there: np.ndarray, start: int, stride: int, guess: np.ndarray, code: np.ndarray, size: float
) -> int:
    """Codes of the targets from `start` on, `stride` apart, as many as there are guesses; how many are too large.

    there: which of the targets count; of one value where all do.
    """
    wrong, masked = 0, there.size > 1
    for j in range(guess.size):
        o = start + j * stride
        scaled = (target[o] - guess[j]) / size
        counts = not masked or there[o]
        fits = abs(scaled) < LIMIT - 1
        wrong += 0 if fits or not counts else 1
        code[j] = int(np.floor(scaled + 0.5)) if fits and counts else 0
    return wrong


@inner(forceinline=True)
def _add(guess: np.ndarray, code: np.ndarray, size: float) -> None:
    for j in range(guess.size):
        guess[j] += size * code[j]


@inner(forceinline=True)
def _interleave(even: np.ndarray, odd: np.ndarray, out: np.ndarray) -> None:
    n = odd.size
    for j in range(n):
        out[2 * j] = even[j]
        out[2 * j + 1] = odd[j]
    if even.size > n:
        out[2 * n] = even[n]


@inner()
def _refine(
    coarse: np.ndarray, fine: np.ndarray, high: int, wide: int, lines: _Lines, codes: np.ndarray, target: np.ndarray,
    there: np.ndarray, width: int, stride: int, cubic: bool, size: float, writing: bool,
) -> int:  # fmt: skip
    """Double a lattice; how many codes are too large.

    coarse ``[h * w]``, fine ``[high * wide]``: its points, row after row; fine is filled. codes: those of the points
    between two known ones of a row, of a column, and of the others, one after the other. target, there ``[H * W]``, a
    plane of rows of `width` points of which the lattice has every `stride`-th: looked at when writing.
    """
    h, w, low, left = (high + 1) // 2, (wide + 1) // 2, high // 2, wide // 2
    column, both, other = lines.column[:w], lines.both[:left], lines.other[:left]
    rows = lines.rows[: h * left]
    down, wrong = stride * width, 0
    for i in range(h + 2):  # lines go on while what has been made of those before is still near
        if i < h:
            guess, code = rows[i * left : (i + 1) * left], codes[i * left : (i + 1) * left]
            _along(coarse[i * w : (i + 1) * w], guess, cubic)
            if writing:
                wrong += _quantise(target, there, 2 * i * down + stride, 2 * stride, guess, code, size)
            _add(guess, code, size)
        k = i - 2
        if k >= 0:
            _interleave(
                coarse[k * w : (k + 1) * w], rows[k * left : (k + 1) * left], fine[2 * k * wide : (2 * k + 1) * wide]
            )
        if 0 <= k < low:
            o = h * left + k * w
            code = codes[o : o + w]
            _across(coarse, k, column, cubic)
            if writing:
                wrong += _quantise(target, there, (2 * k + 1) * down, 2 * stride, column, code, size)
            _add(column, code, size)
            o = h * left + low * w + k * left
            code = codes[o : o + left]
            _along(column, both, cubic)
            _across(rows, k, other, cubic)
            for j in range(left):
                both[j] = 0.5 * (both[j] + other[j])
            if writing:
                wrong += _quantise(target, there, (2 * k + 1) * down + stride, 2 * stride, both, code, size)
            _add(both, code, size)
            _interleave(column, both, fine[(2 * k + 1) * wide : (2 * k + 2) * wide])
    return wrong


def _levels(height: int, width: int) -> int:
    """Lattice levels of a plane: how often it is halved until one point is left."""
    return max(height - 1, width - 1, 0).bit_length()


class _Lines(NamedTuple):
    """Scratch of `_refine`, for a plane ``[H, W]``.

    rows: of a lattice, the points between two known ones of a row; column, both, other: lines. even, odd: lattices, of
    even and of odd levels.
    """

    rows: np.ndarray
    column: np.ndarray
    both: np.ndarray
    other: np.ndarray
    even: np.ndarray
    odd: np.ndarray


def _planes(
    codes: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, sizes: np.ndarray, cubic: bool,
    share: float, pace: float, writing: bool,
) -> bool:  # fmt: skip
    """Codes to values ``[T, C, H, W]``; when writing, values to codes first. Whether all fit.

    codes int32: of each plane in turn the first point's, then those of each level. valid: of one value if all are.
    """
    times, levels, height, width = recon.shape
    planes, points = times * levels, height * width
    quarter, half = ((height + 1) // 2) * ((width + 1) // 2), (width + 1) // 2
    lines = _Lines(*(np.empty(n) for n in (quarter, half, half, half, quarter, quarter)))
    mean = np.zeros((levels, points if share > 0.0 else 0))
    target = np.zeros(points if writing else 1)
    there = valid.reshape(planes, points) if valid.size > 1 else valid.reshape(1, 1)
    flat, given = recon.reshape(planes, points), values.reshape(planes, points)
    top = _levels(height, width)
    fit: bool = _plane_by_plane(
        codes, given, flat, there, sizes, mean, target, lines, width, top, cubic, share, pace, writing
    )
    return fit


@outer
def _plane_by_plane(
    codes: np.ndarray, given: np.ndarray, flat: np.ndarray, valid: np.ndarray, sizes: np.ndarray, mean: np.ndarray,
    target: np.ndarray, lines: _Lines, width: int, top: int, cubic: bool, share: float, pace: float, writing: bool,
) -> bool:  # fmt: skip
    """`_planes` for `given` and `flat` ``[T * C, H * W]``; mean ``[C, H * W]`` and target ``[H * W]``: scratch."""
    levels, height = mean.shape[0], flat.shape[1] // width
    o, wrong = 0, 0
    first = lines.other[:1]
    for p in range(flat.shape[0]):
        there = valid[p if valid.size > 1 else 0]
        out, known, now = flat[p], mean[p % levels], given[p]
        if writing:
            for k in range(out.size):
                target[k] = now[k] - share * known[k] if share > 0.0 else now[k]
            first[0] = 0.0
            wrong += _quantise(target, there, _FIRST, _ONE, first, codes[o : o + 1], sizes[top])
        lattice = out if top == 0 else (lines.odd if top & 1 else lines.even)
        lattice[0] = codes[o] * sizes[top]
        o += 1
        for level in range(top - 1, -1, -1):
            high, wide = (height - 1 >> level) + 1, (width - 1 >> level) + 1
            h, w = (high + 1) // 2, (wide + 1) // 2
            count = high * wide - h * w
            coarse = lattice[: h * w]
            lattice = out if level == 0 else (lines.odd if level & 1 else lines.even)
            wrong += _refine(
                coarse, lattice, high, wide, lines, codes[o : o + count], target, there, width, 1 << level, cubic,
                sizes[level], writing,
            )  # fmt: skip
            o += count
        if share > 0.0:
            move = pace if p >= levels else 1.0
            for k in range(out.size):
                out[k] += share * known[k]
                known[k] += move * (out[k] - known[k])
    return wrong == 0


@outer
def _rounded(
    codes: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, size: float, writing: bool
) -> bool:
    """As `_planes`, where nothing is predicted; all arrays flat."""
    wrong = 0
    if writing:
        for k in range(recon.size):
            scaled = values[k] / size
            there = valid.size == 1 or valid[k]
            fits = abs(scaled) < LIMIT - 1
            wrong += 1 if there and not fits else 0
            codes[k] = int(np.floor(scaled + 0.5)) if there and fits else 0
    for k in range(recon.size):
        recon[k] = codes[k] * size
    return wrong == 0


# --- entropy coding


def _parts(shape: tuple[int, int, int, int], choices: Choices) -> np.ndarray:
    """Parts of the codes of a plane: end, length of a row, length of the part before: int64 ``[parts, 3]``."""
    height, width = shape[2:]
    if _PREDICTIONS[choices.prediction] == "none":
        return np.array([[height * width, width, 2 * width]], np.int64)
    parts, end, before = [(1, 1, 1)], 1, 1
    for level in range(_levels(height, width) - 1, -1, -1):
        high, wide = (height - 1 >> level) + 1, (width - 1 >> level) + 1
        h, w, low, left = (high + 1) // 2, (wide + 1) // 2, high // 2, wide // 2
        for rows, length in ((h, left), (low, w), (low, left)):
            if rows * length:
                end += rows * length
                parts.append((end, length, before))
                before = rows * length
    return np.array(parts, np.int64)


def _context_table() -> np.ndarray:
    """Context of sums below 256: twice their bits, and their second highest one."""
    bits = [n.bit_length() for n in range(256)]
    return np.array([2 * b + (n >> (b - 2) & 1 if b > 1 else 0) for n, b in enumerate(bits)], np.int64)


def _quad_table() -> np.ndarray:
    """The four codes of each symbol of a quad; int32 ``[82, 4]``."""
    return np.array([[0] * 4, *([s // 3**k % 3 - 1 for k in range(4)] for s in range(_QUADS - 1))], np.int32)


_SUM_CONTEXT = _context_table()
_QUAD_CODES = _quad_table()
_QUAD_SIZE = np.abs(_QUAD_CODES).sum(1)
_SHIFT = np.maximum((np.arange(_CONTEXTS) >> 1) - 10, 0)
"""Raw bits of each code of a block, by its context, so that what is left is about 8 in size."""
_REACH = (16 << np.clip((np.arange(_CONTEXTS) >> 1) - 8, 0, 2)) - 2
"""Largest magnitude, without raw bits, that has a symbol, by context: 14, 30 or 62."""


@inner(forceinline=True)
def _size_at(size: np.ndarray, position: int) -> int:
    """Sum of |codes| of 16 codes from a position on, as far as the sizes of its two blocks tell."""
    if position < 0:
        return 0
    b, r = position >> 4, position & 15
    return ((BLOCK - r) * size[b] + r * size[b + 1]) >> 4


@inner(forceinline=True)
def _context(size: np.ndarray, b: int, row: int, before: int, past: int) -> int:
    """Context of block b. size: of the blocks, 0 from b on; size[-1] is 0."""
    p = b << 4
    around = size[b - 1] + _size_at(size, p - row) + _size_at(size, p - before) + _size_at(size, p - past)
    if around < 256:
        return _SUM_CONTEXT[around]
    bits = 9
    while around >> bits:
        bits += 1
    return 2 * bits + (around >> (bits - 2) & 1)


class _Survey(NamedTuple):
    """Context of every block, and counts by context.

    context: uint8 ``[blocks]``. block ``[contexts, 2]``: zero and other blocks. Of the latter: single ``[contexts,
    symbols]``, symbols of single codes; rest, those of codes in quads that escape; quad ``[contexts, 6]``, quads by how
    many of their codes are not 0, last those that escape.
    """

    context: np.ndarray
    block: np.ndarray
    single: np.ndarray
    rest: np.ndarray
    quad: np.ndarray


def _survey(codes: np.ndarray, parts: np.ndarray, past: int) -> _Survey:
    """Contexts and counts of whole blocks of codes."""
    blocks = codes.size // BLOCK
    survey = _Survey(
        np.zeros(blocks, np.uint8), *(np.zeros((_CONTEXTS, n), np.int64) for n in (2, _SINGLES, _SINGLES, 6))
    )
    _count(codes, parts, past, np.zeros(blocks + 1, np.int64), *survey)
    return survey


@outer
def _count(
    codes: np.ndarray, parts: np.ndarray, past: int, size: np.ndarray, context: np.ndarray, block: np.ndarray,
    single: np.ndarray, rest: np.ndarray, quad: np.ndarray,
) -> None:  # fmt: skip
    """Fill a `_Survey`; size: of the blocks, zeros at first."""
    blocks = context.size
    plane, part = 0, 0
    length = parts[parts.shape[0] - 1, 0]
    for b in range(blocks):
        p = b * BLOCK
        while p - plane >= parts[part, 0]:
            part += 1
            if part == parts.shape[0]:
                part = 0
                plane += length
        k = _context(size, b, parts[part, 1], parts[part, 2], past)
        total = 0
        for q in range(p, p + BLOCK):
            total += abs(int(codes[q]))
        size[b] = total
        context[b] = k
        block[k, 1 if total else 0] += 1
        if total == 0:
            continue
        h = _SHIFT[k]
        half, reach = (1 << h) >> 1, _REACH[k]
        for g in range(p, p + BLOCK, 4):
            some, large = 0, False
            for q in range(g, g + 4):
                some += 1 if codes[q] != 0 else 0
                large |= abs(codes[q]) > 1
            quad[k, 5 if large else some] += 1
            for q in range(g, g + 4):
                symbol = (codes[q] + half) >> h
                symbol = symbol + reach + 1 if abs(symbol) <= reach else 0
                single[k, symbol] += 1
                if large:
                    rest[k, symbol] += 1


@inner()
def _single_frequencies(zero: int, decay: int, reach: int, out: np.ndarray) -> None:
    """Frequencies of a code's symbols: two-sided geometric, but for zero, which takes what is left over too."""
    weight, total = 1 << 24, 0
    for k in range(1, reach + 1):
        out[reach + 1 + k] = weight
        total += 2 * weight
        weight = weight * decay >> 7
    out[0] = 2 * weight * 128 // (128 - decay)
    total += out[0]
    rest, used = _TOTAL - zero - (2 * reach + 1), 0
    for k in range(1, reach + 1):
        often = 1 + out[reach + 1 + k] * rest // total
        out[reach + 1 + k] = often
        out[reach + 1 - k] = often
        used += 2 * often
    out[0] = 1 + out[0] * rest // total
    out[reach + 1] = _TOTAL - used - out[0]


@inner()
def _quad_frequencies(zero: int, escape: int, out: np.ndarray) -> None:
    """Frequencies of a quad's symbols: independent codes, 0 with probability zero / 2^12; zeros take what is left."""
    out[0] = 8 * escape + 1
    rest, used = _TOTAL - out[0] - (_QUADS - 1), out[0]
    other = (_TOTAL - zero) >> 1
    for s in range(1, _QUADS):
        weight = rest
        for k in range(4):
            weight = weight * (zero if _QUAD_CODES[s, k] == 0 else other)
        out[s] = 1 + (weight >> 48)
        used += out[s]
    out[_NO_QUAD] += _TOTAL - used


def _frequencies(record: np.ndarray) -> np.ndarray:
    """Frequencies ``[contexts, symbols]`` of records ``[contexts, 4]``."""
    frequency = np.zeros((record.shape[0], _SINGLES), np.int64)
    _fill_frequencies(record, frequency)
    return frequency


@outer
def _fill_frequencies(record: np.ndarray, frequency: np.ndarray) -> None:
    for k in range(record.shape[0]):
        reach = _REACH[k] if k + 1 < record.shape[0] else _REACH[0]
        if record[k, 0] > 0 and record[k, 2]:
            _quad_frequencies(record[k, 1], record[k, 3], frequency[k])
        elif record[k, 0] > 0:
            _single_frequencies(record[k, 1], record[k, 3], reach, frequency[k])


def _slots(frequency: np.ndarray) -> np.ndarray:
    """By context and slot: symbol in 7 bits, its frequency - 1 in 12, the slot's place in it in 12."""
    table = np.zeros(len(frequency) << _BITS, np.uint32)
    _fill_slots(frequency, table)
    return table


@outer
def _fill_slots(frequency: np.ndarray, table: np.ndarray) -> None:
    for k in range(frequency.shape[0]):
        o = k << _BITS
        for s in range(_SINGLES):
            entry = s | (frequency[k, s] - 1) << 7
            for place in range(frequency[k, s]):
                table[o + place] = entry | place << 19
            o += frequency[k, s]


@inner()
def _push(x: np.ndarray, k: int, words: np.ndarray, o: int, start: int, often: int) -> int:
    """Code a symbol of this interval on state k; returns where the last word is."""
    state = x[k]
    if state >= often << (32 - _BITS):
        o -= 1
        words[o] = state & 0xFFFF
        state >>= 16
    x[k] = (state // often << _BITS) + state % often + start
    return o


@inner()
def _push_raw(x: np.ndarray, words: np.ndarray, o: int, value: int, bits: int) -> int:
    """Code raw bits, 16 at most, on the first state; returns where the last word is."""
    state = x[0]
    if state >= 1 << (32 - bits):
        o -= 1
        words[o] = state & 0xFFFF
        state >>= 16
    x[0] = (state << bits) + value
    return o


@inner()
def _push_singles(
    x: np.ndarray, words: np.ndarray, o: int, codes: np.ndarray, context: int, start: np.ndarray, often: np.ndarray
) -> int:
    """Code 4 or 16 codes one by one, each without its lowest bits, then escapes and these bits."""
    h, reach = _SHIFT[context], _REACH[context]
    half, mask = (1 << h) >> 1, (1 << h) - 1
    for q in range(codes.size - 1, -1, -1):
        code = int(codes[q]) + half
        symbol = code >> h
        if h > 16:
            o = _push_raw(x, words, o, (code & mask) >> 16, h - 16)
        if h > 0:
            o = _push_raw(x, words, o, code & mask & 0xFFFF, min(h, 16))
        if abs(symbol) > reach:
            more, n = abs(symbol) - reach, 0
            while more >> (n + 1):
                n += 1
            more -= 1 << n
            if n > 16:
                o = _push_raw(x, words, o, more >> 16, n - 16)
            if n > 0:
                o = _push_raw(x, words, o, more & 0xFFFF, min(n, 16))
            o = _push_raw(x, words, o, 2 * n + (1 if symbol < 0 else 0), _ESCAPE_BITS)
    for q in range(codes.size - 1, -1, -1):
        symbol = (int(codes[q]) + half) >> h
        s = symbol + reach + 1 if abs(symbol) <= reach else 0
        o = _push(x, q & 3, words, o, start[s], often[s])
    return o


def _write(codes: np.ndarray, context: np.ndarray, record: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """The words of all blocks, the last one first: what is coded last is decoded first."""
    words = np.empty(8 + _PADDING * context.size, np.uint16)
    start = np.cumsum(frequency, 1) - frequency
    x, symbols = np.full(4, _LOW, np.int64), np.zeros(4, np.int64)
    return words[_fill_words(codes, context, record, frequency, start, x, symbols, words) :].copy()


@outer
def _fill_words(
    codes: np.ndarray, context: np.ndarray, record: np.ndarray, frequency: np.ndarray, start: np.ndarray,
    x: np.ndarray, symbols: np.ndarray, words: np.ndarray,
) -> int:  # fmt: skip
    """Write the words from the end of `words` on; returns where they begin.

    start: sum of the frequencies before. x ``[4]``: the states at first; symbols ``[4]``: scratch.
    """
    blocks, rest = context.size, record.shape[0] - 1
    o = words.size
    for b in range(blocks - 1, -1, -1):
        k, code = int(context[b]), codes[b * BLOCK : (b + 1) * BLOCK]
        zero, some = record[k, 0], 0
        for q in range(BLOCK):
            some |= code[q]
        if some == 0:
            o = _push(x, _FIRST, words, o, _ZERO, zero)
            continue
        if record[k, 2]:
            for g in range(3, -1, -1):
                large, symbol = False, 1
                for q in range(3, -1, -1):
                    large |= abs(code[4 * g + q]) > 1
                    symbol += 3**q * (code[4 * g + q] + 1)
                symbols[g] = 0 if large else symbol
                if large:
                    o = _push_singles(x, words, o, code[4 * g : 4 * g + 4], _ZERO, start[rest], frequency[rest])
            for g in range(3, -1, -1):
                o = _push(x, g, words, o, start[k, symbols[g]], frequency[k, symbols[g]])
        else:
            o = _push_singles(x, words, o, code, k, start[k], frequency[k])
        o = _push(x, _FIRST, words, o, zero, _TOTAL - zero)
    for k in range(3, -1, -1):
        words[o - 1], words[o - 2] = x[k] >> 16, x[k] & 0xFFFF
        o -= 2
    return o


@inner(forceinline=True)
def _step(state: int, entry: int) -> int:
    """A state without the symbol that a table's entry tells; below `_LOW`, it needs a word."""
    return ((entry >> 7 & _MASK) + 1) * (state >> _BITS) + (entry >> 19)


@inner(forceinline=True)
def _refill(state: int, words: np.ndarray, o: int) -> tuple[int, int]:
    """A state with a word if it needs one, without a branch; and where the next word is."""
    word = int(words[o])
    need = state < _LOW
    return (state << 16 | word if need else state), o + (1 if need else 0)


@inner()
def _pull(x: np.ndarray, words: np.ndarray, o: int, bits: int) -> tuple[int, int]:
    """Raw bits, 16 at most, of the first state; and where the next word is."""
    low = x[0] & ((1 << bits) - 1)
    x[0] >>= bits
    if x[0] < _LOW:
        x[0] = x[0] << 16 | int(words[min(o, words.size - 1)])
        o += 1
    return low, o


@inner()
def _pull_rest(x: np.ndarray, words: np.ndarray, o: int, code: np.ndarray, context: int) -> int:
    """What the symbols of single codes leave open: escapes, and the lowest bits; returns where the next word is."""
    h, reach = _SHIFT[context], _REACH[context]
    half = (1 << h) >> 1
    for q in range(code.size):
        symbol, low, high = int(code[q]), 0, 0
        if symbol == -reach - 1:
            head, o = _pull(x, words, o, _ESCAPE_BITS)
            n = head >> 1
            if n > 0:
                low, o = _pull(x, words, o, min(n, 16))
            if n > 16:
                high, o = _pull(x, words, o, n - 16)
            symbol = reach + (1 << n | high << 16 | low)
            if head & 1:
                symbol = -symbol
        low, high = 0, 0
        if h > 0:
            low, o = _pull(x, words, o, min(h, 16))
        if h > 16:
            high, o = _pull(x, words, o, h - 16)
        code[q] = max(-LIMIT, min(LIMIT, (symbol << h | high << 16 | low) - half))
    return o


@inner()
def _pull_singles(x: np.ndarray, words: np.ndarray, o: int, code: np.ndarray, context: int, table: np.ndarray) -> int:
    """Inverse of `_push_singles`; returns where the next word is."""
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    escaped, zero = False, _REACH[context] + 1
    for q in range(0, code.size, 4):
        e0, e1 = int(table[x0 & _MASK]), int(table[x1 & _MASK])
        e2, e3 = int(table[x2 & _MASK]), int(table[x3 & _MASK])
        x0, x1, x2, x3 = _step(x0, e0), _step(x1, e1), _step(x2, e2), _step(x3, e3)
        s0, s1, s2, s3 = e0 & 127, e1 & 127, e2 & 127, e3 & 127
        code[q], code[q + 1], code[q + 2], code[q + 3] = s0 - zero, s1 - zero, s2 - zero, s3 - zero
        escaped |= s0 == 0 or s1 == 0 or s2 == 0 or s3 == 0
        x0, o = _refill(x0, words, o)
        x1, o = _refill(x1, words, o)
        x2, o = _refill(x2, words, o)
        x3, o = _refill(x3, words, o)
    x[0], x[1], x[2], x[3] = x0, x1, x2, x3
    if escaped or _SHIFT[context] > 0:
        o = _pull_rest(x, words, o, code, context)
    return o


@inner(forceinline=True)
def _quad(code: np.ndarray, s: int) -> int:
    """Write the codes of a symbol; returns the sum of their sizes."""
    code[0], code[1], code[2], code[3] = _QUAD_CODES[s, 0], _QUAD_CODES[s, 1], _QUAD_CODES[s, 2], _QUAD_CODES[s, 3]
    return _QUAD_SIZE[s]


@inner()
def _sum(code: np.ndarray) -> int:
    total = 0
    for q in range(code.size):
        total += abs(int(code[q]))
    return total


@outer
def _read(
    codes: np.ndarray, words: np.ndarray, count: int, parts: np.ndarray, past: int, record: np.ndarray,
    table: np.ndarray, size: np.ndarray, x: np.ndarray,
) -> bool:  # fmt: skip
    """Fill codes, int32, zeros at first, from so many words, which zeros follow; whether they end where they should.

    size ``[blocks + 1]``: zeros; x ``[4]``: scratch.
    """
    blocks, contexts = codes.size // BLOCK, record.shape[0] - 1
    for k in range(4):
        x[k] = int(words[2 * k]) | int(words[2 * k + 1]) << 16
        if x[k] < _LOW:
            return False
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    o, b, plane = 8, 0, 0
    rest = table[contexts << _BITS :]
    while b < blocks:
        for part in range(parts.shape[0]):
            end, row, before = plane + parts[part, 0], parts[part, 1], parts[part, 2]
            while b << 4 < end and b < blocks:
                k = _context(size, b, row, before, past)
                if k >= contexts or record[k, 0] == 0 or o > count:
                    return False
                zero, slot, more = record[k, 0], x0 & _MASK, x0 >> _BITS
                if slot < zero:
                    x0, o = _refill(zero * more + slot, words, o)
                    b += 1
                    continue
                x0, o = _refill((_TOTAL - zero) * more + slot - zero, words, o)
                code, slots = codes[b << 4 : (b + 1) << 4], table[k << _BITS : (k + 1) << _BITS]
                if record[k, 2]:
                    e0, e1, e2, e3 = (
                        int(slots[x0 & _MASK]),
                        int(slots[x1 & _MASK]),
                        int(slots[x2 & _MASK]),
                        int(slots[x3 & _MASK]),
                    )
                    x0, x1, x2, x3 = _step(x0, e0), _step(x1, e1), _step(x2, e2), _step(x3, e3)
                    x0, o = _refill(x0, words, o)
                    x1, o = _refill(x1, words, o)
                    x2, o = _refill(x2, words, o)
                    x3, o = _refill(x3, words, o)
                    s0, s1, s2, s3 = e0 & 127, e1 & 127, e2 & 127, e3 & 127
                    size[b] = _quad(code, s0) + _quad(code[4:], s1) + _quad(code[8:], s2) + _quad(code[12:], s3)
                    if s0 == 0 or s1 == 0 or s2 == 0 or s3 == 0:
                        x[0], x[1], x[2], x[3] = x0, x1, x2, x3
                        escaped = (s0 == 0) | (s1 == 0) << 1 | (s2 == 0) << 2 | (s3 == 0) << 3
                        for q in range(4):
                            if escaped >> q & 1:
                                o = _pull_singles(x, words, o, code[4 * q : 4 * q + 4], _ZERO, rest)
                        x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
                        size[b] = _sum(code)
                else:
                    x[0], x[1], x[2], x[3] = x0, x1, x2, x3
                    o = _pull_singles(x, words, o, code, k, slots)
                    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
                    size[b] = _sum(code)
                b += 1
        plane = end
    return o == count and x0 == _LOW and x1 == _LOW and x2 == _LOW and x3 == _LOW


def _records(survey: _Survey) -> np.ndarray:
    """Tables that suit the counts: int64 ``[contexts, 4]``, one more than are used; see `_pack`."""
    _, block, single, rest, quad = survey
    used = int(np.flatnonzero(block.sum(1)).max()) + 1
    record = np.zeros((used + 1, 4), np.int64)
    escaped = np.zeros(_SINGLES, np.int64)
    for k in range(used):
        if not block[k].any():
            continue
        record[k, 0] = _frequency(block[k, 0], block[k].sum(), _TOTAL - 1)
        if 8 * quad[k, 5] <= quad[k].sum() and _REACH[k] == _REACH[0]:
            count, some = 4 * int(quad[k, :5].sum()), int(quad[k, :5] @ np.arange(5))
            escape = round(_TOTAL / 8 * quad[k, 5] / max(1, quad[k].sum()))
            record[k, 1:] = _frequency(count - some, count, _TOTAL - 1), 1, min(escape, 127)
            escaped += rest[k]
        else:
            record[k, 1:] = _single(single[k], _REACH[k])
    record[used] = 1, *_single(escaped, _REACH[0])
    return record


def _frequency(count: int, total: int, most: int) -> int:
    return max(1, min(most, round(_TOTAL * int(count) / max(1, int(total)))))


def _single(count: np.ndarray, reach: int) -> tuple[int, int, int]:
    """A table of single codes for counts of their symbols."""
    total, zeros = int(count.sum()), int(count[reach + 1])
    distance = np.abs(np.arange(_SINGLES) - reach - 1)
    distance[0] = reach + 4
    mean = float(count @ distance) / max(1, total - zeros)
    return _frequency(zeros, total, _MOST_ZEROS), 0, max(1, min(126, round(128 * (1 - 1 / max(mean, 1.0)))))


def _pack(record: np.ndarray) -> bytes:
    """Records as u32: frequency of zero blocks (0: unused) in 12 bits, zero in 12, quads or not in 1, the last in 7."""
    return (record << np.array([0, 12, 24, 25])).sum(1).astype("<u4").tobytes()


def _unpack(data: bytes) -> np.ndarray:
    packed = np.frombuffer(data, "<u4").astype(np.int64)[:, None]
    record = packed >> np.array([0, 12, 24, 25]) & np.array([4095, 4095, 1, 127])
    used = record[:, 0] > 0
    bad = (record[:, 1] == 0) | (record[:, 2] == 0) & ((record[:, 1] > _MOST_ZEROS) | (record[:, 3] > 126))
    if (used & bad).any() or record[-1, 0] == 0 or record[-1, 2]:
        raise CorruptError("tables of an interpolated stream are malformed")
    return record


# --- streams


def encode(
    values: np.ndarray, step: float, valid: np.ndarray | None = None, choices: Choices | None = None
) -> tuple[bytes, np.ndarray]:
    """Code float64 `values` ``[T, C, H, W]`` so that each is within step / 2 of its reconstruction.

    Returns the bitstream and the reconstruction. Points outside `valid` (bool, same shape) have code 0 and are
    reconstructed as predicted. choices: those to take instead of the best of `choose`. Raises OverflowError for codes
    from `LIMIT` on.
    """
    if values.size == 0:
        return b"", np.zeros(values.shape)
    values = np.require(values, np.float64, ["C"])
    there = np.ones((1, 1, 1, 1), bool) if valid is None else np.require(valid, bool, ["C"])
    choices = choices or choose(values, step, there)[0]
    codes, recon = _quantised(values, step, choices, there)
    survey = _survey(codes, _parts(values.shape, choices), _past(values.shape))
    record = _records(survey)
    words = _write(codes, survey.context, record, _frequencies(record))
    return bytes([choices.to_byte(), len(record)]) + _pack(record) + words.astype("<u2").tobytes(), recon


def decode(data: bytes, shape: tuple[int, int, int, int], step: float) -> np.ndarray:
    """Exact inverse of `encode`: the reconstruction, float64. Raises CorruptError."""
    recon = np.empty(shape)
    if recon.size == 0 and not data:
        return recon
    count = data[1] if len(data) > 1 else 0
    start = 2 + 4 * count
    if recon.size == 0 or not 2 <= count <= _CONTEXTS + 1 or len(data) < start + 16:
        raise CorruptError("interpolated stream is malformed")
    choices, record = Choices.from_byte(data[0]), _unpack(data[2:start])
    words = np.frombuffer(data[start:] + bytes(2 * _PADDING + len(data) % 2), "<u2").astype(np.uint16)
    blocks = -(-recon.size // BLOCK)
    codes, size, states = np.zeros(blocks * BLOCK, np.int32), np.zeros(blocks + 1, np.int64), np.empty(4, np.int64)
    table, parts = _slots(_frequencies(record)), _parts(shape, choices)
    whole = _read(codes, words, words.size - _PADDING, parts, _past(shape), record, table, size, states)
    if len(data) % 2 or not whole:
        raise CorruptError("a bitstream does not end where it should")
    _run(codes, recon, recon, step, choices, np.ones((1, 1, 1, 1), bool), False)
    return recon


def _run(
    codes: np.ndarray, values: np.ndarray, recon: np.ndarray, step: float, choices: Choices, valid: np.ndarray,
    writing: bool,
) -> bool:  # fmt: skip
    """Codes to values, when writing values to codes first; whether all fit."""
    if _PREDICTIONS[choices.prediction] == "none":
        return _rounded(codes, values.reshape(-1), recon.reshape(-1), valid.reshape(-1), step, writing)
    sizes, (share, pace) = lattice_steps(step, choices.tighten, _levels(*recon.shape[2:]) + 1), _MEMORY[choices.memory]
    cubic = _PREDICTIONS[choices.prediction] == "cubic"
    return _planes(codes, values, recon, valid, sizes, cubic, share, pace, writing)


def _past(shape: tuple[int, int, int, int]) -> int:
    """How many codes earlier the same point of the time before has its own."""
    return shape[1] * shape[2] * shape[3]


def _quantised(values: np.ndarray, step: float, choices: Choices, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes, padded with zeros to whole blocks, and what they reconstruct; raises OverflowError."""
    codes, recon = np.zeros(-(-values.size // BLOCK) * BLOCK, np.int32), np.empty(values.shape)
    if not _run(codes, values, recon, step, choices, valid, True):
        raise OverflowError("residual too large for its step")
    return codes, recon


def choose(values: np.ndarray, step: float, valid: np.ndarray) -> tuple[Choices, float]:
    """The choices that need the fewest bits on a part of the values, one improved after the other; bits for all."""
    total, levels, height, width = values.shape
    times = min(total, _SAMPLE_TIMES)
    some = np.unique(np.linspace(0, levels - 1, _SAMPLE_LEVELS).round().astype(int))
    side = max(8, math.isqrt(_SAMPLE // (times * len(some))))
    t, y, x = (total - times) // 2, max(0, height - side) // 2, max(0, width - side) // 2

    def window(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[t : t + times, :, y : y + side, x : x + side][:, some])

    part, there = window(values), window(valid) if valid.size > 1 else valid

    @cache
    def bits(choices: Choices) -> float:
        codes, _ = _quantised(part, step, choices, there)
        survey = _survey(codes, _parts(part.shape, choices), _past(part.shape))
        raw = 16 * int(survey.single[:, 0].sum()) + BLOCK * int(survey.block[:, 1] @ _SHIFT)
        return _entropy(survey.block) + _entropy(survey.single) + raw

    best = Choices(prediction=1)
    changes: list[tuple[dict[str, int], ...]] = [
        tuple({"memory": m} for m in range(1, 4 if times > 1 else 1)),
        ({"prediction": 0, "memory": 0, "tighten": 0}, {"prediction": 2}),
        ({"tighten": 0}, {"tighten": 2}),
    ]
    for ways in changes:
        if best.prediction > 0:
            best = min([best, *(replace(best, **way) for way in ways)], key=bits)
    return best, bits(best) * values.size / part.size


_SAMPLE, _SAMPLE_TIMES, _SAMPLE_LEVELS = 1 << 15, 8, 4  # values, times and levels of them, that choices are made by


def _entropy(counts: np.ndarray) -> float:
    """Bits of symbols with the best table for each row of counts."""
    totals, there = counts.sum(1, keepdims=True), counts > 0
    share = (counts / np.maximum(1, totals))[there]
    return -float((counts[there] * np.log2(share)).sum())
