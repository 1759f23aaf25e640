"""Residual coder for speed: interpolation from coarse to fine, and interleaved rANS with static tables.

`encode` goes through these steps, `decode` through their inverses. docs/format.md specifies them under Interpolated
residual.

1. *Choices* (`choose`). A sample of the values decides how planes are predicted; the reader is told in one byte.
2. *Prediction and quantisation* (`_quantised`, `_predict_planes`, `_refine`). A plane starts from a single point, and
   its lattice of known points is doubled until it is complete, as in SZ3 (Zhao et al. 2021, "Optimizing error-bounded
   lossy compression for scientific data by dynamic spline interpolation"). New points are interpolated from known ones,
   as reconstructed: points between two known ones of a row along the row, those between two of a column along the
   column, and the rest as the mean of both directions (as in HPEZ, Liu et al. 2023). The difference in steps, rounded,
   is the point's *code*. A share of a fading mean of the planes of earlier times is subtracted beforehand. The known
   points and the three kinds of new ones are stored apart, so that all loops run over consecutive numbers.
3. *Contexts* (`_survey`, `_context`). Codes are grouped in blocks of 16. The sizes of the blocks nearby (the one
   before, and those at the same place one row, one array and one time earlier) select the block's context.
4. *Tables* (`_fitted_records`, `_frequencies`). Each context has a table, which follows from a few parameters in the
   stream, its *record*. A record says how likely a block of zeros is, and whether the symbols of other blocks are
   single codes or *quads* (four codes, each -1, 0 or 1). Single codes have a two-sided geometric distribution, with a
   frequency of its own for zero. A symbol called *escape* stands for all larger codes.
5. *Words* (`_write`, `_read`). Symbols are coded by the range variant of asymmetric numeral systems (rANS, Duda
   2013) in four interleaved states (Giesen 2014, "Interleaved entropy coders"). rANS is a stack, so the writer goes
   through the blocks from the last to the first, and the reader from the first to the last.

Parsing depends on integers alone. Reconstructed values use float64 additions and multiplications one by one in a fixed
order, so that every machine gets the same ones.

The kernels are compiled by Numba, and all are in one file for the reason given in `kernels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from vcinr.coding.residual.base import Plan, ResidualCoder, lattice_steps
from vcinr.compiled import inner, outer
from vcinr.errors import CorruptError

LIMIT = 1 << 30
"""Codes of this magnitude or more cannot be coded."""
BLOCK = 16
"""Codes in a block."""
_BITS = 12  # frequencies of a table sum to 2^12
_TOTAL = 1 << _BITS
_MASK = _TOTAL - 1
_LOWEST_STATE = 1 << 16  # words have 16 bits, and states are from here to below 2^16 times as much
_MAX_SYMBOLS = 126  # of a single code: 0 is the escape, then come the codes from -_REACH to _REACH
_MOST_ZEROS = _TOTAL - 256  # largest frequency of a single code's zero; what remains is enough for all other symbols
_QUAD_SYMBOLS = 82  # 0 is the escape, then come the 81 combinations of -1, 0 and 1, as numbers in base 3
_ZERO_QUAD = 41  # the symbol of four zeros
_CONTEXTS = 80
# Arguments of kernels are NumPy's integers, because Numba would compile a function anew for each literal.
_ESCAPE_BITS: Any = np.int64(6)  # a sign and the length of an Elias gamma code
_FIRST: Any = np.int64(0)
_ZERO: Any = np.int64(0)
_ONE: Any = np.int64(1)
_WORDS_PER_BLOCK = 8 * BLOCK  # room for a block: a code, with its escape and raw bits, takes fewer than 8 words


@dataclass(frozen=True)
class Choices:
    """How planes are predicted: chosen by the writer from a sample, and stored in one byte.

    Attributes
    ----------
    prediction : int
        Index into `_PREDICTIONS`.
    memory : int
        Index into `_MEMORY`: how much of the mean of earlier times is subtracted.
    tighten : int
        How much finer the steps of coarse levels are: on lattice level l (0 is the finest) the step is divided by
        min((1 + tighten / 8)^l, 4).

    Notes
    -----
    Without prediction there is one step, and `memory` and `tighten` have no effect.
    """

    prediction: int = 2
    memory: int = 0
    tighten: int = 1

    def to_byte(self) -> int:
        """The choices as one number, 0 to 63."""
        return self.prediction | self.memory << 2 | self.tighten << 4

    @classmethod
    def from_byte(cls, byte: int) -> Choices:
        """Inverse of `to_byte`; raises CorruptError for a byte that it cannot have made."""
        if byte >= 64 or byte & 3 >= len(_PREDICTIONS):
            raise CorruptError("interpolated stream is malformed")
        return cls(byte & 3, byte >> 2 & 3, byte >> 4)


_PREDICTIONS = ("none", "linear", "cubic")
_MEMORY = ((0.0, 0.0), (0.5, 0.5), (0.75, 0.5), (1.0, 0.25))
"""(share, pace): the share of the mean that is subtracted, and how far the mean moves towards each new plane."""


# --- prediction


@inner(forceinline=True)
def _predict_along(line: np.ndarray, out: np.ndarray, cubic: bool) -> None:
    """Interpolate halfway between successive points of a line.

    Where `out` is as long as `line`, its last entry lies beyond the last point, whose value it gets.
    """
    inner_weight, outer_weight = (0.5625, 0.0625) if cubic else (0.5, 0.0)
    m, n = line.size, out.size
    if n == 0:
        return
    for k in range(1, m - 2):
        out[k] = inner_weight * (line[k] + line[k + 1]) - outer_weight * (line[k - 1] + line[k + 2])
    if m > 1:
        out[0] = 0.5 * (line[0] + line[1])
        out[m - 2] = 0.5 * (line[m - 2] + line[m - 1])
    if n == m:
        out[n - 1] = line[n - 1]


@inner()
def _predict_across(lines: np.ndarray, i: int, out: np.ndarray, cubic: bool) -> None:
    """Interpolate the line halfway between lines i and i + 1; beyond the last line, repeat it.

    `lines` holds lines of the length of `out`, one after the other.
    """
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
    target: np.ndarray, valid: np.ndarray, start: int, stride: int, guess: np.ndarray, code: np.ndarray, size: float
) -> int:
    """Fill in the codes of a run of points; returns how many codes are too large.

    The points are ``target[start]``, ``target[start + stride]``, ..., as many as there are guesses. `valid` says which
    of them count; a single value stands for all.
    """
    too_large, masked = 0, valid.size > 1
    for j in range(guess.size):
        position = start + j * stride
        scaled = (target[position] - guess[j]) / size
        counts = not masked or valid[position]
        fits = abs(scaled) < LIMIT - 1
        too_large += 0 if fits or not counts else 1
        code[j] = int(np.floor(scaled + 0.5)) if fits and counts else 0
    return too_large


@inner(forceinline=True)
def _add(guess: np.ndarray, code: np.ndarray, size: float) -> None:
    """Turn predictions into reconstructed values."""
    for j in range(guess.size):
        guess[j] += size * code[j]


@inner(forceinline=True)
def _interleave(even: np.ndarray, odd: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with the numbers of `even` and `odd` in turn."""
    n = odd.size
    for j in range(n):
        out[2 * j] = even[j]
        out[2 * j + 1] = odd[j]
    if even.size > n:
        out[2 * n] = even[n]


@inner()
def _refine(
    coarse: np.ndarray, fine: np.ndarray, high: int, wide: int, lines: _Lines, codes: np.ndarray, target: np.ndarray,
    valid: np.ndarray, width: int, stride: int, cubic: bool, size: float, writing: bool,
) -> int:  # fmt: skip
    """Double a lattice; returns how many codes are too large.

    Parameters
    ----------
    coarse : numpy.ndarray
        ``[h * w]``: the known points, row after row.
    fine : numpy.ndarray
        ``[high * wide]``: is filled with the points of the finer lattice.
    high, wide : int
        Rows and columns of the finer lattice.
    lines : _Lines
        Scratch.
    codes : numpy.ndarray
        int32: the codes of the points between two known ones of a row, of a column, and of the others. They are filled
        when writing.
    target, valid : numpy.ndarray
        ``[H * W]``: the values to code and which of them count; looked at only when writing.
    width, stride : int
        Length W of a plane's rows, and distance of the finer lattice's points in it.
    cubic : bool
        Whether interpolation is cubic or linear.
    size : float
        Step of the finer lattice.
    writing : bool
        Whether to compute codes from values first.
    """
    h, w, half_high, half_wide = (high + 1) // 2, (wide + 1) // 2, high // 2, wide // 2
    column, both, other = lines.column[:w], lines.both[:half_wide], lines.other[:half_wide]
    rows = lines.rows[: h * half_wide]
    row_stride, too_large = stride * width, 0
    # One pass over all lines: what a line needs of those before it is still in the processor's cache.
    for i in range(h + 2):
        if i < h:
            guess, code = rows[i * half_wide : (i + 1) * half_wide], codes[i * half_wide : (i + 1) * half_wide]
            _predict_along(coarse[i * w : (i + 1) * w], guess, cubic)
            if writing:
                too_large += _quantise(target, valid, 2 * i * row_stride + stride, 2 * stride, guess, code, size)
            _add(guess, code, size)
        k = i - 2
        if k >= 0:
            _interleave(
                coarse[k * w : (k + 1) * w],
                rows[k * half_wide : (k + 1) * half_wide],
                fine[2 * k * wide : (2 * k + 1) * wide],
            )
        if 0 <= k < half_high:
            start = h * half_wide + k * w
            code = codes[start : start + w]
            _predict_across(coarse, k, column, cubic)
            if writing:
                too_large += _quantise(target, valid, (2 * k + 1) * row_stride, 2 * stride, column, code, size)
            _add(column, code, size)
            start = h * half_wide + half_high * w + k * half_wide
            code = codes[start : start + half_wide]
            _predict_along(column, both, cubic)
            _predict_across(rows, k, other, cubic)
            for j in range(half_wide):
                both[j] = 0.5 * (both[j] + other[j])
            if writing:
                too_large += _quantise(target, valid, (2 * k + 1) * row_stride + stride, 2 * stride, both, code, size)
            _add(both, code, size)
            _interleave(column, both, fine[(2 * k + 1) * wide : (2 * k + 2) * wide])
    return too_large


def _level_count(height: int, width: int) -> int:
    """Number of lattice levels of a plane: how often it can be halved until one point remains."""
    return max(height - 1, width - 1, 0).bit_length()


class _Lines(NamedTuple):
    """Scratch of `_refine`, for a plane ``[H, W]``.

    Attributes
    ----------
    rows : numpy.ndarray
        The points of a lattice between two known ones of a row.
    column, both, other : numpy.ndarray
        Single lines: points between two known ones of a column; points predicted in both directions; and their
        prediction in one of the two.
    even, odd : numpy.ndarray
        Lattices of even and of odd levels, which alternate.
    """

    rows: np.ndarray
    column: np.ndarray
    both: np.ndarray
    other: np.ndarray
    even: np.ndarray
    odd: np.ndarray


def _predict_planes(
    codes: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, sizes: np.ndarray, cubic: bool,
    share: float, pace: float, writing: bool,
) -> bool:  # fmt: skip
    """Turn codes into values ``[T, C, H, W]``; when writing, values into codes first.

    Parameters
    ----------
    codes : numpy.ndarray
        int32: for each plane in turn the code of its first point, then those of each level.
    values : numpy.ndarray
        The values to code; not looked at when reading.
    recon : numpy.ndarray
        Is filled with the reconstruction.
    valid : numpy.ndarray
        Which values count; a single value if all do.
    sizes : numpy.ndarray
        Step of each lattice level.
    cubic : bool
        Whether interpolation is cubic or linear.
    share, pace : float
        See `_MEMORY`.
    writing : bool
        Whether to compute codes first.

    Returns
    -------
    bool
        False where a code is too large.
    """
    times, levels, height, width = recon.shape
    planes, points = times * levels, height * width
    quarter, half_wide = ((height + 1) // 2) * ((width + 1) // 2), (width + 1) // 2
    lines = _Lines(*(np.empty(n) for n in (quarter, half_wide, half_wide, half_wide, quarter, quarter)))
    mean = np.zeros((levels, points if share > 0.0 else 0))
    target = np.zeros(points if writing else 1)
    mask = valid.reshape(planes, points) if valid.size > 1 else valid.reshape(1, 1)
    out, given = recon.reshape(planes, points), values.reshape(planes, points)
    top = _level_count(height, width)
    fit: bool = _plane_by_plane(
        codes, given, out, mask, sizes, mean, target, lines, width, top, cubic, share, pace, writing
    )
    return fit


@outer
def _plane_by_plane(
    codes: np.ndarray, given: np.ndarray, out: np.ndarray, valid: np.ndarray, sizes: np.ndarray, mean: np.ndarray,
    target: np.ndarray, lines: _Lines, width: int, top: int, cubic: bool, share: float, pace: float, writing: bool,
) -> bool:  # fmt: skip
    """`_predict_planes` on `given` and `out` ``[T * C, H * W]``.

    `mean` ``[C, H * W]`` is the fading mean, zeros at first; `target` ``[H * W]`` is scratch.
    """
    levels, height = mean.shape[0], out.shape[1] // width
    position, too_large = 0, 0
    first = lines.other[:1]
    for p in range(out.shape[0]):
        mask = valid[p if valid.size > 1 else 0]
        plane, plane_mean, plane_values = out[p], mean[p % levels], given[p]
        if writing:
            for k in range(plane.size):
                target[k] = plane_values[k] - share * plane_mean[k] if share > 0.0 else plane_values[k]
            first[0] = 0.0
            too_large += _quantise(target, mask, _FIRST, _ONE, first, codes[position : position + 1], sizes[top])
        lattice = plane if top == 0 else (lines.odd if top & 1 else lines.even)
        lattice[0] = codes[position] * sizes[top]
        position += 1
        for level in range(top - 1, -1, -1):
            high, wide = (height - 1 >> level) + 1, (width - 1 >> level) + 1
            h, w = (high + 1) // 2, (wide + 1) // 2
            count = high * wide - h * w
            coarse = lattice[: h * w]
            lattice = plane if level == 0 else (lines.odd if level & 1 else lines.even)
            too_large += _refine(
                coarse, lattice, high, wide, lines, codes[position : position + count], target, mask, width, 1 << level,
                cubic, sizes[level], writing,
            )  # fmt: skip
            position += count
        if share > 0.0:
            rate = pace if p >= levels else 1.0
            for k in range(plane.size):
                plane[k] += share * plane_mean[k]
                plane_mean[k] += rate * (plane[k] - plane_mean[k])
    return too_large == 0


@outer
def _rounded(
    codes: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, size: float, writing: bool
) -> bool:
    """`_predict_planes` without prediction; all arrays are flat."""
    too_large = 0
    if writing:
        for k in range(recon.size):
            scaled = values[k] / size
            is_valid = valid.size == 1 or valid[k]
            fits = abs(scaled) < LIMIT - 1
            too_large += 1 if is_valid and not fits else 0
            codes[k] = int(np.floor(scaled + 0.5)) if is_valid and fits else 0
    for k in range(recon.size):
        recon[k] = codes[k] * size
    return too_large == 0


# --- entropy coding


def _parts(shape: tuple[int, int, int, int], choices: Choices) -> np.ndarray:
    """The arrays of codes that a plane consists of, as contexts need them.

    Returns
    -------
    numpy.ndarray
        int64 ``[parts, 3]``: where each ends within the plane's codes, the length of its rows, and the number of codes
        of the array before it. Without prediction a plane is one array, and the third number is two rows.
    """
    height, width = shape[2:]
    if _PREDICTIONS[choices.prediction] == "none":
        return np.array([[height * width, width, 2 * width]], np.int64)
    parts, end, previous = [(1, 1, 1)], 1, 1
    for level in range(_level_count(height, width) - 1, -1, -1):
        high, wide = (height - 1 >> level) + 1, (width - 1 >> level) + 1
        h, w, half_high, half_wide = (high + 1) // 2, (wide + 1) // 2, high // 2, wide // 2
        for rows, length in ((h, half_wide), (half_high, w), (half_high, half_wide)):
            if rows * length:
                end += rows * length
                parts.append((end, length, previous))
                previous = rows * length
    return np.array(parts, np.int64)


def _context_table() -> np.ndarray:
    """Contexts of sums of sizes below 256: twice the bit length, plus the second highest bit."""
    bits = [n.bit_length() for n in range(256)]
    return np.array([2 * b + (n >> (b - 2) & 1 if b > 1 else 0) for n, b in enumerate(bits)], np.int64)


def _quad_table() -> np.ndarray:
    """The four codes of each symbol of a quad, int32 ``[82, 4]``."""
    return np.array([[0] * 4, *([s // 3**k % 3 - 1 for k in range(4)] for s in range(_QUAD_SYMBOLS - 1))], np.int32)


_SUM_CONTEXT = _context_table()
_QUAD_CODES = _quad_table()
_QUAD_SIZE = np.abs(_QUAD_CODES).sum(1)
_SHIFT = np.maximum((np.arange(_CONTEXTS) >> 1) - 10, 0)
"""Number of raw bits of each code, by context: what remains of a code is then about 8 in size."""
_REACH = (16 << np.clip((np.arange(_CONTEXTS) >> 1) - 8, 0, 2)) - 2
"""Largest magnitude, without raw bits, that has a symbol, by context: 14, 30 or 62."""


@inner(forceinline=True)
def _size_at(size: np.ndarray, position: int) -> int:
    """Sum of |code| over 16 codes from a position on, interpolated between the sizes of the two blocks there."""
    if position < 0:
        return 0
    b, r = position >> 4, position & 15
    return ((BLOCK - r) * size[b] + r * size[b + 1]) >> 4


@inner(forceinline=True)
def _context(size: np.ndarray, b: int, row: int, previous: int, per_time: int) -> int:
    """Context of block b.

    `size` holds the sizes of the blocks before b, and 0 from b on (``size[-1]`` too, which block 0 looks at). `row`,
    `previous` and `per_time` say how many codes back the same place is in the row before, in the array before, and
    at the time before.
    """
    position = b << 4
    around = (
        size[b - 1]
        + _size_at(size, position - row)
        + _size_at(size, position - previous)
        + _size_at(size, position - per_time)
    )
    if around < 256:
        return _SUM_CONTEXT[around]
    bits = 9
    while around >> bits:
        bits += 1
    return 2 * bits + (around >> (bits - 2) & 1)


class _Survey(NamedTuple):
    """The context of every block, and what is counted under each context to fit its table.

    Attributes
    ----------
    context : numpy.ndarray
        uint8 ``[blocks]``.
    block : numpy.ndarray
        ``[contexts, 2]``: number of blocks that are all zeros, and of others. All other counts are of the latter.
    single : numpy.ndarray
        ``[contexts, symbols]``: symbols, if codes are coded one by one.
    rest : numpy.ndarray
        ``[contexts, symbols]``: symbols of codes in quads that escape.
    quad : numpy.ndarray
        ``[contexts, 6]``: quads by how many of their codes are not 0; the last column counts those that escape.
    """

    context: np.ndarray
    block: np.ndarray
    single: np.ndarray
    rest: np.ndarray
    quad: np.ndarray


def _survey(codes: np.ndarray, parts: np.ndarray, per_time: int) -> _Survey:
    """Survey whole blocks of codes; `parts` and `per_time` are those of `_parts` and `_codes_per_time`."""
    blocks = codes.size // BLOCK
    survey = _Survey(
        np.zeros(blocks, np.uint8), *(np.zeros((_CONTEXTS, n), np.int64) for n in (2, _MAX_SYMBOLS, _MAX_SYMBOLS, 6))
    )
    _count_blocks(codes, parts, per_time, np.zeros(blocks + 1, np.int64), *survey)
    return survey


@outer
def _count_blocks(
    codes: np.ndarray, parts: np.ndarray, per_time: int, size: np.ndarray, contexts: np.ndarray, block: np.ndarray,
    single: np.ndarray, rest: np.ndarray, quad: np.ndarray,
) -> None:  # fmt: skip
    """Fill the arrays of a `_Survey`; `size` ``[blocks + 1]`` is scratch, zeros at first."""
    blocks = contexts.size
    plane, part = 0, 0
    length = parts[parts.shape[0] - 1, 0]
    for b in range(blocks):
        position = b * BLOCK
        while position - plane >= parts[part, 0]:
            part += 1
            if part == parts.shape[0]:
                part = 0
                plane += length
        context = _context(size, b, parts[part, 1], parts[part, 2], per_time)
        total = 0
        for q in range(position, position + BLOCK):
            total += abs(int(codes[q]))
        size[b] = total
        contexts[b] = context
        block[context, 1 if total else 0] += 1
        if total == 0:
            continue
        shift = _SHIFT[context]
        half, reach = (1 << shift) >> 1, _REACH[context]
        for start in range(position, position + BLOCK, 4):
            nonzero, large = 0, False
            for q in range(start, start + 4):
                nonzero += 1 if codes[q] != 0 else 0
                large |= abs(codes[q]) > 1
            quad[context, 5 if large else nonzero] += 1
            for q in range(start, start + 4):
                symbol = (codes[q] + half) >> shift
                symbol = symbol + reach + 1 if abs(symbol) <= reach else 0
                single[context, symbol] += 1
                if large:
                    rest[context, symbol] += 1


@inner()
def _single_frequencies(zero: int, decay: int, reach: int, out: np.ndarray) -> None:
    """Fill in frequencies of single codes.

    They are two-sided geometric except for zero, which also gets what rounding leaves over. `decay` / 128 is the ratio
    of successive weights.
    """
    weight, total = 1 << 24, 0
    for k in range(1, reach + 1):
        out[reach + 1 + k] = weight
        total += 2 * weight
        weight = weight * decay >> 7
    out[0] = 2 * weight * 128 // (128 - decay)
    total += out[0]
    spread, used = _TOTAL - zero - (2 * reach + 1), 0
    for k in range(1, reach + 1):
        frequency = 1 + out[reach + 1 + k] * spread // total
        out[reach + 1 + k] = frequency
        out[reach + 1 - k] = frequency
        used += 2 * frequency
    out[0] = 1 + out[0] * spread // total
    out[reach + 1] = _TOTAL - used - out[0]


@inner()
def _quad_frequencies(zero: int, escape: int, out: np.ndarray) -> None:
    """Fill in frequencies of quads.

    Their codes count as independent, each 0 with probability zero / 2^12. Four zeros also get what rounding leaves
    over.
    """
    out[0] = 8 * escape + 1
    spread, used = _TOTAL - out[0] - (_QUAD_SYMBOLS - 1), out[0]
    other = (_TOTAL - zero) >> 1
    for s in range(1, _QUAD_SYMBOLS):
        weight = spread
        for k in range(4):
            weight = weight * (zero if _QUAD_CODES[s, k] == 0 else other)
        out[s] = 1 + (weight >> 48)
        used += out[s]
    out[_ZERO_QUAD] += _TOTAL - used


def _frequencies(record: np.ndarray) -> np.ndarray:
    """Frequencies ``[contexts, symbols]`` of records ``[contexts, 4]``; those of a context sum to 2^12."""
    frequency = np.zeros((record.shape[0], _MAX_SYMBOLS), np.int64)
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
    """Lookup tables that decode a symbol at once.

    Returns
    -------
    numpy.ndarray
        uint32, 2^12 slots for each context. A slot holds its symbol (7 bits), the symbol's frequency less 1 (12 bits),
        and the slot's position within the symbol (12 bits).
    """
    table = np.zeros(len(frequency) << _BITS, np.uint32)
    _fill_slots(frequency, table)
    return table


@outer
def _fill_slots(frequency: np.ndarray, table: np.ndarray) -> None:
    for k in range(frequency.shape[0]):
        position = k << _BITS
        for s in range(_MAX_SYMBOLS):
            entry = s | (frequency[k, s] - 1) << 7
            for place in range(frequency[k, s]):
                table[position + place] = entry | place << 19
            position += frequency[k, s]


@inner()
def _push(x: np.ndarray, k: int, words: np.ndarray, position: int, start: int, frequency: int) -> int:
    """Code a symbol on state k; returns the position of the last word written.

    The symbol has the interval from `start` of the size `frequency`.
    """
    state = x[k]
    if state >= frequency << (32 - _BITS):
        position -= 1
        words[position] = state & 0xFFFF
        state >>= 16
    x[k] = (state // frequency << _BITS) + state % frequency + start
    return position


@inner()
def _push_raw(x: np.ndarray, words: np.ndarray, position: int, value: int, bits: int) -> int:
    """Code at most 16 raw bits on the first state; returns the position of the last word written."""
    state = x[0]
    if state >= 1 << (32 - bits):
        position -= 1
        words[position] = state & 0xFFFF
        state >>= 16
    x[0] = (state << bits) + value
    return position


@inner()
def _push_singles(
    x: np.ndarray,
    words: np.ndarray,
    position: int,
    codes: np.ndarray,
    context: int,
    start: np.ndarray,
    frequency: np.ndarray,
) -> int:
    """Code 4 or 16 codes one by one; returns the position of the last word written.

    The reader gets all symbols first, then for each code what its symbol leaves open: an escaped magnitude, and the
    lowest bits. The writer goes backwards.
    """
    shift, reach = _SHIFT[context], _REACH[context]
    half, mask = (1 << shift) >> 1, (1 << shift) - 1
    for q in range(codes.size - 1, -1, -1):
        code = int(codes[q]) + half
        symbol = code >> shift
        if shift > 16:
            position = _push_raw(x, words, position, (code & mask) >> 16, shift - 16)
        if shift > 0:
            position = _push_raw(x, words, position, code & mask & 0xFFFF, min(shift, 16))
        if abs(symbol) > reach:
            excess, n = abs(symbol) - reach, 0
            while excess >> (n + 1):
                n += 1
            excess -= 1 << n
            if n > 16:
                position = _push_raw(x, words, position, excess >> 16, n - 16)
            if n > 0:
                position = _push_raw(x, words, position, excess & 0xFFFF, min(n, 16))
            position = _push_raw(x, words, position, 2 * n + (1 if symbol < 0 else 0), _ESCAPE_BITS)
    for q in range(codes.size - 1, -1, -1):
        symbol = (int(codes[q]) + half) >> shift
        s = symbol + reach + 1 if abs(symbol) <= reach else 0
        position = _push(x, q & 3, words, position, start[s], frequency[s])
    return position


def _write(codes: np.ndarray, contexts: np.ndarray, record: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """The words of all blocks, coded from the last block to the first, so that the first is decoded first."""
    words = np.empty(8 + _WORDS_PER_BLOCK * contexts.size, np.uint16)
    start = np.cumsum(frequency, 1) - frequency
    x, symbols = np.full(4, _LOWEST_STATE, np.int64), np.zeros(4, np.int64)
    return words[_fill_words(codes, contexts, record, frequency, start, x, symbols, words) :].copy()


@outer
def _fill_words(
    codes: np.ndarray, contexts: np.ndarray, record: np.ndarray, frequency: np.ndarray, start: np.ndarray,
    x: np.ndarray, symbols: np.ndarray, words: np.ndarray,
) -> int:  # fmt: skip
    """Write words from the end of `words` towards its start; returns the position of the first one.

    `start` holds for each symbol the sum of the frequencies before it; `x` ``[4]`` the states at first; `symbols`
    ``[4]`` is scratch.
    """
    blocks, spare = contexts.size, record.shape[0] - 1
    position = words.size
    for b in range(blocks - 1, -1, -1):
        context, code = int(contexts[b]), codes[b * BLOCK : (b + 1) * BLOCK]
        zero, any_code = record[context, 0], 0
        for q in range(BLOCK):
            any_code |= code[q]
        if any_code == 0:
            position = _push(x, _FIRST, words, position, _ZERO, zero)
            continue
        if record[context, 2]:
            for quad in range(3, -1, -1):
                large, symbol = False, 1
                for q in range(3, -1, -1):
                    large |= abs(code[4 * quad + q]) > 1
                    symbol += 3**q * (code[4 * quad + q] + 1)
                symbols[quad] = 0 if large else symbol
                if large:
                    position = _push_singles(
                        x, words, position, code[4 * quad : 4 * quad + 4], _ZERO, start[spare], frequency[spare]
                    )
            for quad in range(3, -1, -1):
                position = _push(
                    x, quad, words, position, start[context, symbols[quad]], frequency[context, symbols[quad]]
                )
        else:
            position = _push_singles(x, words, position, code, context, start[context], frequency[context])
        position = _push(x, _FIRST, words, position, zero, _TOTAL - zero)
    for k in range(3, -1, -1):
        words[position - 1], words[position - 2] = x[k] >> 16, x[k] & 0xFFFF
        position -= 2
    return position


@inner(forceinline=True)
def _pop(state: int, entry: int) -> int:
    """A state after a symbol, known by its table's entry, has been removed; it may need a word (`_refill`)."""
    return ((entry >> 7 & _MASK) + 1) * (state >> _BITS) + (entry >> 19)


@inner(forceinline=True)
def _refill(state: int, words: np.ndarray, position: int) -> tuple[int, int]:
    """A state, with a word taken in where it needs one, and the position of the next word; without a branch."""
    word = int(words[position])
    need = state < _LOWEST_STATE
    return (state << 16 | word if need else state), position + (1 if need else 0)


@inner()
def _pull(x: np.ndarray, words: np.ndarray, position: int, bits: int) -> tuple[int, int]:
    """At most 16 raw bits of the first state, and the position of the next word."""
    low = x[0] & ((1 << bits) - 1)
    x[0] >>= bits
    if x[0] < _LOWEST_STATE:
        x[0] = x[0] << 16 | int(words[min(position, words.size - 1)])
        position += 1
    return low, position


@inner()
def _pull_rest(x: np.ndarray, words: np.ndarray, position: int, code: np.ndarray, context: int) -> int:
    """Replace symbols of single codes by the codes; returns the position of the next word.

    What a symbol leaves open is read: the magnitude of an escape, and the lowest bits of each code.
    """
    shift, reach = _SHIFT[context], _REACH[context]
    half = (1 << shift) >> 1
    for q in range(code.size):
        symbol, low, high = int(code[q]), 0, 0
        if symbol == -reach - 1:
            head, position = _pull(x, words, position, _ESCAPE_BITS)
            n = head >> 1
            if n > 0:
                low, position = _pull(x, words, position, min(n, 16))
            if n > 16:
                high, position = _pull(x, words, position, n - 16)
            symbol = reach + (1 << n | high << 16 | low)
            if head & 1:
                symbol = -symbol
        low, high = 0, 0
        if shift > 0:
            low, position = _pull(x, words, position, min(shift, 16))
        if shift > 16:
            high, position = _pull(x, words, position, shift - 16)
        code[q] = max(-LIMIT, min(LIMIT, (symbol << shift | high << 16 | low) - half))
    return position


@inner()
def _pull_singles(
    x: np.ndarray, words: np.ndarray, position: int, code: np.ndarray, context: int, table: np.ndarray
) -> int:
    """Inverse of `_push_singles`; returns the position of the next word."""
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    escaped, zero = False, _REACH[context] + 1
    for q in range(0, code.size, 4):
        e0, e1 = int(table[x0 & _MASK]), int(table[x1 & _MASK])
        e2, e3 = int(table[x2 & _MASK]), int(table[x3 & _MASK])
        x0, x1, x2, x3 = _pop(x0, e0), _pop(x1, e1), _pop(x2, e2), _pop(x3, e3)
        s0, s1, s2, s3 = e0 & 127, e1 & 127, e2 & 127, e3 & 127
        code[q], code[q + 1], code[q + 2], code[q + 3] = s0 - zero, s1 - zero, s2 - zero, s3 - zero
        escaped |= s0 == 0 or s1 == 0 or s2 == 0 or s3 == 0
        x0, position = _refill(x0, words, position)
        x1, position = _refill(x1, words, position)
        x2, position = _refill(x2, words, position)
        x3, position = _refill(x3, words, position)
    x[0], x[1], x[2], x[3] = x0, x1, x2, x3
    if escaped or _SHIFT[context] > 0:
        position = _pull_rest(x, words, position, code, context)
    return position


@inner(forceinline=True)
def _write_quad(code: np.ndarray, symbol: int) -> int:
    """Fill in the four codes of a quad's symbol; returns the sum of their magnitudes."""
    code[0], code[1], code[2], code[3] = (
        _QUAD_CODES[symbol, 0],
        _QUAD_CODES[symbol, 1],
        _QUAD_CODES[symbol, 2],
        _QUAD_CODES[symbol, 3],
    )
    return _QUAD_SIZE[symbol]


@inner()
def _total_size(code: np.ndarray) -> int:
    """Sum of the codes' magnitudes."""
    total = 0
    for q in range(code.size):
        total += abs(int(code[q]))
    return total


@outer
def _read(
    codes: np.ndarray, words: np.ndarray, count: int, parts: np.ndarray, per_time: int, record: np.ndarray,
    table: np.ndarray, size: np.ndarray, x: np.ndarray,
) -> bool:  # fmt: skip
    """Decode all codes; returns whether the words end where they should.

    `codes` int32 are zeros at first. The words are the first `count` of `words`; zeros follow them, so that damaged
    streams do not read beyond the end. `size` ``[blocks + 1]``, zeros at first, and `x` ``[4]`` are scratch.
    """
    blocks, contexts = codes.size // BLOCK, record.shape[0] - 1
    for k in range(4):
        x[k] = int(words[2 * k]) | int(words[2 * k + 1]) << 16
        if x[k] < _LOWEST_STATE:
            return False
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    position, b, plane = 8, 0, 0
    spare = table[contexts << _BITS :]
    while b < blocks:
        for part in range(parts.shape[0]):
            end, row, previous = plane + parts[part, 0], parts[part, 1], parts[part, 2]
            while b << 4 < end and b < blocks:
                context = _context(size, b, row, previous, per_time)
                if context >= contexts or record[context, 0] == 0 or position > count:
                    return False
                zero, slot, quotient = record[context, 0], x0 & _MASK, x0 >> _BITS
                if slot < zero:
                    x0, position = _refill(zero * quotient + slot, words, position)
                    b += 1
                    continue
                x0, position = _refill((_TOTAL - zero) * quotient + slot - zero, words, position)
                code, slots = codes[b << 4 : (b + 1) << 4], table[context << _BITS : (context + 1) << _BITS]
                if record[context, 2]:
                    e0, e1, e2, e3 = (
                        int(slots[x0 & _MASK]),
                        int(slots[x1 & _MASK]),
                        int(slots[x2 & _MASK]),
                        int(slots[x3 & _MASK]),
                    )
                    x0, x1, x2, x3 = _pop(x0, e0), _pop(x1, e1), _pop(x2, e2), _pop(x3, e3)
                    x0, position = _refill(x0, words, position)
                    x1, position = _refill(x1, words, position)
                    x2, position = _refill(x2, words, position)
                    x3, position = _refill(x3, words, position)
                    s0, s1, s2, s3 = e0 & 127, e1 & 127, e2 & 127, e3 & 127
                    size[b] = (
                        _write_quad(code, s0)
                        + _write_quad(code[4:], s1)
                        + _write_quad(code[8:], s2)
                        + _write_quad(code[12:], s3)
                    )
                    if s0 == 0 or s1 == 0 or s2 == 0 or s3 == 0:
                        x[0], x[1], x[2], x[3] = x0, x1, x2, x3
                        escaped = (s0 == 0) | (s1 == 0) << 1 | (s2 == 0) << 2 | (s3 == 0) << 3
                        for q in range(4):
                            if escaped >> q & 1:
                                position = _pull_singles(x, words, position, code[4 * q : 4 * q + 4], _ZERO, spare)
                        x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
                        size[b] = _total_size(code)
                else:
                    x[0], x[1], x[2], x[3] = x0, x1, x2, x3
                    position = _pull_singles(x, words, position, code, context, slots)
                    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
                    size[b] = _total_size(code)
                b += 1
        plane = end
    return (
        position == count
        and x0 == _LOWEST_STATE
        and x1 == _LOWEST_STATE
        and x2 == _LOWEST_STATE
        and x3 == _LOWEST_STATE
    )


def _fitted_records(survey: _Survey) -> np.ndarray:
    """Records of the tables that suit the counts of a survey.

    Returns
    -------
    numpy.ndarray
        int64 ``[contexts + 1, 4]``, see `_pack`: up to the last context in use, then the spare record, for codes of
        quads that escape.
    """
    _, block, single, escaped_codes, quad = survey
    used = int(np.flatnonzero(block.sum(1)).max()) + 1
    record = np.zeros((used + 1, 4), np.int64)
    escaped = np.zeros(_MAX_SYMBOLS, np.int64)
    for context in range(used):
        if not block[context].any():
            continue
        record[context, 0] = _frequency(block[context, 0], block[context].sum(), _TOTAL - 1)
        if 8 * quad[context, 5] <= quad[context].sum() and _REACH[context] == _REACH[0]:
            count, nonzero = 4 * int(quad[context, :5].sum()), int(quad[context, :5] @ np.arange(5))
            escape = round(_TOTAL / 8 * quad[context, 5] / max(1, quad[context].sum()))
            record[context, 1:] = _frequency(count - nonzero, count, _TOTAL - 1), 1, min(escape, 127)
            escaped += escaped_codes[context]
        else:
            record[context, 1:] = _fitted_single(single[context], _REACH[context])
    record[used] = 1, *_fitted_single(escaped, _REACH[0])
    return record


def _frequency(count: int, total: int, most: int) -> int:
    """count / total as a frequency, between 1 and `most`."""
    return max(1, min(most, round(_TOTAL * int(count) / max(1, int(total)))))


def _fitted_single(count: np.ndarray, reach: int) -> tuple[int, int, int]:
    """Zero, 0 for "no quads", and last (see `_pack`) of a table that suits counts of single codes.

    The decay follows from the mean magnitude of the codes that are not 0. An escape counts as a magnitude of reach + 4.
    """
    total, zeros = int(count.sum()), int(count[reach + 1])
    distance = np.abs(np.arange(_MAX_SYMBOLS) - reach - 1)
    distance[0] = reach + 4
    mean = float(count @ distance) / max(1, total - zeros)
    return _frequency(zeros, total, _MOST_ZEROS), 0, max(1, min(126, round(128 * (1 - 1 / max(mean, 1.0)))))


def _pack(record: np.ndarray) -> bytes:
    """Records as u32.

    From the lowest bit: the frequency of blocks of zeros (12 bits, 0 where no block has the context), the frequency of
    a zero code (12 bits), whether symbols are quads (1 bit), and the decay of single codes or the escape's frequency of
    quads (7 bits).
    """
    return (record << np.array([0, 12, 24, 25])).sum(1).astype("<u4").tobytes()


def _unpack(data: bytes) -> np.ndarray:
    """Inverse of `_pack`; raises CorruptError for records that no writer makes."""
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
    """Code values so that each is within step / 2 of its reconstruction.

    Parameters
    ----------
    values : numpy.ndarray
        float64 ``[T, C, H, W]`` (times, levels, a plane).
    step : float
        Step of the quantiser; finer on coarse levels, see `Choices`.
    valid : numpy.ndarray, optional
        bool, of the same shape. Other points have code 0 and are reconstructed as predicted.
    choices : Choices, optional
        How to predict. Default: what `choose` finds best.

    Returns
    -------
    data : bytes
        The bitstream.
    recon : numpy.ndarray
        The reconstruction.

    Raises
    ------
    OverflowError
        Where a code would be `LIMIT` or larger.
    """
    if values.size == 0:
        return b"", np.zeros(values.shape)
    values = np.require(values, np.float64, ["C"])
    mask = np.ones((1, 1, 1, 1), bool) if valid is None else np.require(valid, bool, ["C"])
    choices = choices or choose(values, step, mask)[0]
    codes, recon = _quantised(values, step, choices, mask)
    survey = _survey(codes, _parts(values.shape, choices), _codes_per_time(values.shape))
    record = _fitted_records(survey)
    words = _write(codes, survey.context, record, _frequencies(record))
    return bytes([choices.to_byte(), len(record)]) + _pack(record) + words.astype("<u2").tobytes(), recon


def decode(data: bytes, shape: tuple[int, int, int, int], step: float) -> np.ndarray:
    """Decode a bitstream.

    Parameters
    ----------
    data : bytes
        From `encode`.
    shape : tuple of int
        (T, C, H, W) of the values.
    step : float
        As in `encode`.

    Returns
    -------
    numpy.ndarray
        The reconstruction, float64, bit for bit that of `encode`.

    Raises
    ------
    CorruptError
        For bytes that no writer makes.
    """
    recon = np.empty(shape)
    if recon.size == 0 and not data:
        return recon
    count = data[1] if len(data) > 1 else 0
    start = 2 + 4 * count
    if recon.size == 0 or not 2 <= count <= _CONTEXTS + 1 or len(data) < start + 16:
        raise CorruptError("interpolated stream is malformed")
    choices, record = Choices.from_byte(data[0]), _unpack(data[2:start])
    words = np.frombuffer(data[start:] + bytes(2 * _WORDS_PER_BLOCK + len(data) % 2), "<u2").astype(np.uint16)
    blocks = -(-recon.size // BLOCK)
    codes, size, states = np.zeros(blocks * BLOCK, np.int32), np.zeros(blocks + 1, np.int64), np.empty(4, np.int64)
    table, parts = _slots(_frequencies(record)), _parts(shape, choices)
    whole = _read(
        codes, words, words.size - _WORDS_PER_BLOCK, parts, _codes_per_time(shape), record, table, size, states
    )
    if len(data) % 2 or not whole:
        raise CorruptError("a bitstream does not end where it should")
    _convert(codes, recon, recon, step, choices, np.ones((1, 1, 1, 1), bool), False)
    return recon


def _convert(
    codes: np.ndarray, values: np.ndarray, recon: np.ndarray, step: float, choices: Choices, valid: np.ndarray,
    writing: bool,
) -> bool:  # fmt: skip
    """Turn codes into values; when writing, values into codes first. Returns whether all codes are small enough."""
    if _PREDICTIONS[choices.prediction] == "none":
        return _rounded(codes, values.reshape(-1), recon.reshape(-1), valid.reshape(-1), step, writing)
    sizes, (share, pace) = (
        lattice_steps(step, choices.tighten, _level_count(*recon.shape[2:]) + 1),
        _MEMORY[choices.memory],
    )
    cubic = _PREDICTIONS[choices.prediction] == "cubic"
    return _predict_planes(codes, values, recon, valid, sizes, cubic, share, pace, writing)


def _codes_per_time(shape: tuple[int, int, int, int]) -> int:
    """Number of codes of one time: how far back a point's code of the time before is."""
    return shape[1] * shape[2] * shape[3]


def _quantised(values: np.ndarray, step: float, choices: Choices, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes, padded with zeros to whole blocks, and their reconstruction; raises OverflowError."""
    codes, recon = np.zeros(-(-values.size // BLOCK) * BLOCK, np.int32), np.empty(values.shape)
    if not _convert(codes, values, recon, step, choices, valid, True):
        raise OverflowError("residual too large for its step")
    return codes, recon


def choose(values: np.ndarray, step: float, valid: np.ndarray) -> tuple[Choices, float]:
    """The choices that need the fewest bits on a sample of the values.

    Prediction, memory and steps are improved one after the other. Arguments are those of `encode`, except that `valid`
    may be a single True.

    Returns
    -------
    choices : Choices
        The best ones.
    bits : float
        Estimate of the bits for all values.
    """
    total, levels, height, width = values.shape
    times = min(total, _SAMPLE_TIMES)
    chosen = np.unique(np.linspace(0, levels - 1, _SAMPLE_LEVELS).round().astype(int))
    side = max(8, math.isqrt(_SAMPLE // (times * len(chosen))))
    t, y, x = (total - times) // 2, max(0, height - side) // 2, max(0, width - side) // 2

    def window(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[t : t + times, :, y : y + side, x : x + side][:, chosen])

    part, mask = window(values), window(valid) if valid.size > 1 else valid

    @cache
    def bits(choices: Choices) -> float:
        codes, _ = _quantised(part, step, choices, mask)
        survey = _survey(codes, _parts(part.shape, choices), _codes_per_time(part.shape))
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


_SAMPLE, _SAMPLE_TIMES, _SAMPLE_LEVELS = 1 << 15, 8, 4  # values, times and levels of the sample of `choose`


def _entropy(counts: np.ndarray) -> float:
    """Bits of all symbols counted, if each row of counts had its best table."""
    totals, present = counts.sum(1, keepdims=True), counts > 0
    share = (counts / np.maximum(1, totals))[present]
    return -float((counts[present] * np.log2(share)).sum())


# --- the contract


def _encode(values: np.ndarray, step: float, plan: Plan, valid: np.ndarray | None) -> tuple[bytes, np.ndarray]:
    return encode(values, step, valid, plan.choices)


def _decode(
    data: bytes, shape: tuple[int, int, int, int], step: float, plan: Plan, valid: np.ndarray | None
) -> np.ndarray:
    return decode(data, shape, step)


def _estimate(values: np.ndarray, step: float, valid: np.ndarray | None) -> tuple[Plan, float]:
    mask = np.ones((1, 1, 1, 1), bool) if valid is None else valid
    choices, bits = choose(np.require(values, np.float64, ["C"]), step, mask)
    return Plan("interpolated", False, choices=choices), bits / 8


CODER = ResidualCoder(
    "interpolated", _encode, _decode, Plan("interpolated", False), states_plan=False, estimate=_estimate
)
