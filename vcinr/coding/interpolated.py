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
import struct
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numba import njit

from vcinr.errors import CorruptError

_inner = partial(njit, cache=True, nogil=True, error_model="numpy", _nrt=False)
_outer = partial(njit, cache=True, nogil=True, error_model="numpy")

LIMIT = 1 << 30
"""Magnitudes from here on cannot be coded."""
BLOCK = 16
_BITS = 12  # of a frequency
_TOTAL = 1 << _BITS
_LOW = 1 << 16  # states are in [_LOW, _LOW << 16), words have 16 bits
_CODED = 14  # larger magnitudes are escapes
_SYMBOLS = 2 * _CODED + 2  # 0 the escape, s the code s - 15
_CONTEXTS = 80
_PADDING = 3 * BLOCK  # words that a block may take without looking for the end
_WORST = 8 * BLOCK  # words that a block may take at all


@dataclass(frozen=True)
class Choices:
    """What the writer finds out from a sample and the reader is told, in one byte.

    memory: index into `_MEMORY`. cubic: whether predictions take four points or two. tighten: on lattice level l (0 the
    finest) the step is divided by min((1 + tighten / 8)^l, 4).
    """

    memory: int = 0
    cubic: bool = True
    tighten: int = 1

    def to_byte(self) -> int:
        """0 to 31."""
        return self.memory | self.cubic << 2 | self.tighten << 3

    @classmethod
    def from_byte(cls, byte: int) -> Choices:
        """Inverse of `to_byte`; raises CorruptError."""
        if byte >= 32:
            raise CorruptError("interpolated stream is malformed")
        return cls(byte & 3, bool(byte >> 2 & 1), byte >> 3)

    def sizes(self, step: float) -> np.ndarray:
        """Step of each lattice level."""
        sizes, factor = [], 1.0
        for _ in range(64):
            sizes.append(step / factor)
            factor = min(factor * (1.0 + self.tighten / 8.0), 4.0)
        return np.array(sizes)


_MEMORY = ((0.0, 0.0), (0.5, 0.5), (0.75, 0.5), (1.0, 0.25))
"""Share of the mean that is subtracted, and how far the mean moves to each plane."""


# --- prediction


@_inner()
def _along(line: np.ndarray, out: np.ndarray, near: float, far: float) -> None:
    """Predict what lies between the points of a line, and after the last if `out` is as long."""
    m, n = line.size, out.size
    if n == 0:
        return
    for k in range(1, m - 2):
        out[k] = near * (line[k] + line[k + 1]) - far * (line[k - 1] + line[k + 2])
    if m > 1:
        out[0] = 0.5 * (line[0] + line[1])
    if m > 2:
        out[m - 2] = 0.5 * (line[m - 2] + line[m - 1])
    if n == m:
        out[m - 1] = line[m - 1]


@_inner()
def _across(lines: np.ndarray, k: int, out: np.ndarray, near: float, far: float) -> None:
    """Predict the line between lines k and k + 1, or after the last."""
    m, n = lines.shape[0], out.size
    b = lines[k]
    if k + 1 == m:
        for j in range(n):
            out[j] = b[j]
        return
    c = lines[k + 1]
    if k == 0 or k + 2 == m:
        for j in range(n):
            out[j] = 0.5 * (b[j] + c[j])
        return
    a, d = lines[k - 1], lines[k + 2]
    for j in range(n):
        out[j] = near * (b[j] + c[j]) - far * (a[j] + d[j])


@_inner()
def _quantise(target: np.ndarray, there: np.ndarray, guess: np.ndarray, code: np.ndarray, size: float) -> int:
    """Codes of a line of targets; how many are too large."""
    wrong = 0
    for j in range(guess.size):
        scaled = (target[j] - guess[j]) / size
        fits = abs(scaled) < LIMIT - 1
        wrong += 0 if fits or not there[j] else 1
        code[j] = int(np.floor(scaled + 0.5)) if fits and there[j] else 0
    return wrong


@_inner()
def _add(guess: np.ndarray, code: np.ndarray, size: float) -> None:
    for j in range(guess.size):
        guess[j] += size * code[j]


@_inner()
def _interleave(even: np.ndarray, odd: np.ndarray, out: np.ndarray) -> None:
    n = odd.size
    for j in range(n):
        out[2 * j] = even[j]
        out[2 * j + 1] = odd[j]
    if even.size > n:
        out[2 * n] = even[n]


@_inner()
def _refine(
    coarse: np.ndarray, fine: np.ndarray, row: np.ndarray, column: np.ndarray, both: np.ndarray, line: np.ndarray,
    codes: np.ndarray, target: np.ndarray, there: np.ndarray, cubic: bool, size: float, writing: bool,
) -> int:  # fmt: skip
    """Double a lattice; how many codes are too large.

    coarse ``[h, w]``; fine ``[H, W]`` is filled; row, column, both: points beside a known one in its row, in its column,
    and in neither, are scratch, as is line. codes: row's, column's and both's one after the other. target, there
    ``[H, W]``: looked at when writing.
    """
    near, far = (0.5625, 0.0625) if cubic else (0.5, 0.0)
    wrong = 0
    (h, w), (low, left) = coarse.shape, both.shape
    o = 0
    for i in range(h):
        guess, code = row[i], codes[o : o + left]
        _along(coarse[i], guess, near, far)
        if writing:
            wrong += _quantise(target[2 * i, 1::2], there[2 * i, 1::2], guess, code, size)
        _add(guess, code, size)
        o += left
    for i in range(low):
        guess, code = column[i], codes[o : o + w]
        _across(coarse, i, guess, near, far)
        if writing:
            wrong += _quantise(target[2 * i + 1, ::2], there[2 * i + 1, ::2], guess, code, size)
        _add(guess, code, size)
        o += w
    other = line[:left]
    for i in range(low):
        guess, code = both[i], codes[o : o + left]
        _along(column[i], guess, near, far)
        _across(row, i, other, near, far)
        for j in range(left):
            guess[j] = 0.5 * (guess[j] + other[j])
        if writing:
            wrong += _quantise(target[2 * i + 1, 1::2], there[2 * i + 1, 1::2], guess, code, size)
        _add(guess, code, size)
        o += left
    for i in range(h):
        _interleave(coarse[i], row[i], fine[2 * i])
    for i in range(low):
        _interleave(column[i], both[i], fine[2 * i + 1])
    return wrong


@_outer()
def _planes(
    codes: np.ndarray, values: np.ndarray, recon: np.ndarray, valid: np.ndarray, sizes: np.ndarray, cubic: bool,
    share: float, pace: float, writing: bool,
) -> bool:  # fmt: skip
    """Codes to values ``[T, C, H, W]``; when writing, values to codes first. Whether all fit.

    codes int32: of each plane in turn the first point's, then those of each level. valid: of one value if all are.
    """
    times, levels, height, width = recon.shape
    masked = valid.size > 1
    everywhere = np.ones((height, width) if not masked else (1, 1), np.bool_)
    mean = np.zeros((levels, height, width))
    target = np.zeros((height, width) if writing else (1, 1))
    top = 0
    while (height - 1) >> top or (width - 1) >> top:
        top += 1
    lattices = (np.empty(height * width), np.empty(height * width))
    quarter = ((height + 1) // 2) * ((width + 1) // 2)
    parts, line = np.empty((3, quarter)), np.empty(width)
    o, wrong = 0, 0
    for t in range(times):
        for c in range(levels):
            there = valid[t, c] if masked else everywhere
            if writing:
                for i in range(height):
                    for j in range(width):
                        target[i, j] = values[t, c, i, j] - share * mean[c, i, j]
                wrong += _quantise(target[0, :1], there[0, :1], np.zeros(1), codes[o : o + 1], sizes[top])
            lattices[top & 1][0] = codes[o] * sizes[top]
            o += 1
            for level in range(top - 1, -1, -1):
                size, s = sizes[level], 1 << level
                high, wide = (height - 1 >> level) + 1, (width - 1 >> level) + 1
                h, w, low, left = (high + 1) // 2, (wide + 1) // 2, high // 2, wide // 2
                count = high * wide - h * w
                coarse = lattices[1 - (level & 1)][: h * w].reshape(h, w)
                fine = lattices[level & 1][: high * wide].reshape(high, wide)
                wrong += _refine(
                    coarse, fine, parts[0, : h * left].reshape(h, left), parts[1, : low * w].reshape(low, w),
                    parts[2, : low * left].reshape(low, left), line, codes[o : o + count], target[::s, ::s],
                    there[::s, ::s], cubic, size, writing,
                )  # fmt: skip
                o += count
            found = lattices[0].reshape(height, width)
            out, known = recon[t, c], mean[c]
            if share == 0.0:
                for i in range(height):
                    for j in range(width):
                        out[i, j] = found[i, j]
            else:
                move = pace if t > 0 else 1.0
                for i in range(height):
                    for j in range(width):
                        value = found[i, j] + share * known[i, j]
                        out[i, j] = value
                        known[i, j] += move * (value - known[i, j])
    return wrong == 0


# --- entropy coding


def _parts(shape: tuple[int, int, int, int]) -> np.ndarray:
    """Parts of the codes of a plane: end, length of a row, length of the part before: int64 ``[parts, 3]``."""
    height, width = shape[2:]
    top = max(height - 1, width - 1).bit_length()
    parts, end, before = [(1, 1, 1)], 1, 1
    for level in range(top - 1, -1, -1):
        high, wide = (height - 1 >> level) + 1, (width - 1 >> level) + 1
        h, w, low, left = (high + 1) // 2, (wide + 1) // 2, high // 2, wide // 2
        for rows, length in ((h, left), (low, w), (low, left)):
            if rows * length:
                end += rows * length
                parts.append((end, length, before))
                before = rows * length
    return np.array(parts, np.int64)


@_inner(inline="always")
def _size_at(size: np.ndarray, position: int) -> int:
    """Sum of |codes| of 16 codes from a position on, as far as the sizes of its two blocks tell."""
    if position < 0:
        return 0
    b, r = position // BLOCK, position % BLOCK
    return ((BLOCK - r) * size[b] + r * size[b + 1]) // BLOCK


@_inner(inline="always")
def _context(size: np.ndarray, b: int, row: int, before: int, past: int) -> int:
    """Context of block b: twice the bits of what is around it, and its second highest bit. size[b] is 0 yet."""
    p = b * BLOCK
    around = _size_at(size, p - row) + _size_at(size, p - before) + _size_at(size, p - past)
    if b > 0:
        around += size[b - 1]
    bits = 0
    while around >> bits:
        bits += 1
    return 2 * bits + (around >> (bits - 2) & 1 if bits > 1 else 0)


@_inner(inline="always")
def _shift(context: int) -> int:
    """Raw bits of each code of a block, so that what is left is about 2."""
    return max(0, (context >> 1) - 8)


@_outer()
def _survey(codes: np.ndarray, parts: np.ndarray, past: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Context of every block; by context, counts of zero and other blocks, and of the symbols of the latter."""
    blocks = codes.size // BLOCK
    context, size = np.zeros(blocks, np.uint8), np.zeros(blocks + 1, np.int64)
    block_count, symbol_count = np.zeros((_CONTEXTS, 2), np.int64), np.zeros((_CONTEXTS, _SYMBOLS), np.int64)
    plane, part = 0, 0
    length = parts[parts.shape[0] - 1, 0]
    for b in range(blocks):
        while b * BLOCK - plane >= parts[part, 0]:
            part += 1
            if part == parts.shape[0]:
                part = 0
                plane += length
        k = _context(size, b, parts[part, 1], parts[part, 2], past)
        total = 0
        for q in range(b * BLOCK, (b + 1) * BLOCK):
            total += abs(codes[q])
        size[b] = total
        context[b] = k
        block_count[k, 1 if total else 0] += 1
        if total:
            h = _shift(k)
            half = (1 << h) >> 1
            for q in range(b * BLOCK, (b + 1) * BLOCK):
                symbol = (codes[q] + half) >> h
                symbol_count[k, symbol + _CODED + 1 if abs(symbol) <= _CODED else 0] += 1
    return context, block_count, symbol_count


@_inner()
def _frequencies(zero: int, decay: int, out: np.ndarray) -> None:
    """Frequencies of the symbols: two-sided geometric, but for zero, which takes what is left over too."""
    weight, total = 1 << 24, 0
    for k in range(1, _CODED + 1):
        out[_CODED + 1 + k] = weight
        total += 2 * weight
        weight = weight * decay >> 8
    out[0] = 2 * weight * 256 // (256 - decay)
    total += out[0]
    rest, used = _TOTAL - zero - (_SYMBOLS - 1), 0
    for k in range(1, _CODED + 1):
        often = 1 + out[_CODED + 1 + k] * rest // total
        out[_CODED + 1 + k] = often
        out[_CODED + 1 - k] = often
        used += 2 * often
    out[0] = 1 + out[0] * rest // total
    out[_CODED + 1] = _TOTAL - used - out[0]


@_outer()
def _frequency_table(parameters: np.ndarray) -> np.ndarray:
    """Frequencies ``[contexts, symbols]`` of parameters ``[contexts, 3]``: zero blocks, zero, decay."""
    frequency = np.zeros((parameters.shape[0], _SYMBOLS), np.int64)
    for k in range(parameters.shape[0]):
        _frequencies(parameters[k, 1], parameters[k, 2], frequency[k])
    return frequency


@_outer()
def _slots(frequency: np.ndarray, used: np.ndarray) -> np.ndarray:
    """By context and slot: symbol in 5 bits, its frequency - 1 in 12, the slot's place in it in 12."""
    table = np.zeros(frequency.shape[0] << _BITS, np.uint32)
    for k in range(frequency.shape[0]):
        if not used[k]:
            continue
        o = k << _BITS
        for s in range(_SYMBOLS):
            entry = s | (frequency[k, s] - 1) << 5
            for place in range(frequency[k, s]):
                table[o + place] = entry | place << 17
            o += frequency[k, s]
    return table


@_inner()
def _push(x: np.ndarray, k: int, words: np.ndarray, o: int, start: int, often: int, bits: int) -> int:
    """Code, on state k, an interval of 2^bits; returns where the last word is."""
    state = x[k]
    if state >= often << (32 - bits):
        o -= 1
        words[o] = state & 0xFFFF
        state >>= 16
    x[k] = (state // often << bits) + state % often + start
    return o


@_outer()
def _write(
    codes: np.ndarray, context: np.ndarray, parameters: np.ndarray, frequency: np.ndarray
) -> np.ndarray:  # fmt: skip
    """The words of all blocks, the last one first: what is coded last is decoded first."""
    blocks = context.size
    words = np.empty(8 + _WORST * blocks, np.uint16)
    start = np.zeros(frequency.shape, np.int64)
    for k in range(frequency.shape[0]):
        for s in range(1, _SYMBOLS):
            start[k, s] = start[k, s - 1] + frequency[k, s - 1]
    x = np.full(4, _LOW, np.int64)
    symbols = np.zeros(BLOCK, np.int64)
    o = words.size
    for b in range(blocks - 1, -1, -1):
        k = int(context[b])
        zero, h = parameters[k, 0], _shift(k)
        half = (1 << h) >> 1
        total = 0
        for q in range(BLOCK):
            code = codes[b * BLOCK + q]
            total |= code
            symbols[q] = code
        if total == 0:
            o = _push(x, 0, words, o, 0, zero, _BITS)
            continue
        for q in range(BLOCK - 1, -1, -1):
            code = symbols[q] + half
            low, symbol = code & ((1 << h) - 1), code >> h
            symbols[q] = symbol
            if h > 16:
                o = _push(x, 0, words, o, low >> 16, 1, h - 16)
            if h > 0:
                o = _push(x, 0, words, o, low & 0xFFFF, 1, min(h, 16))
            if abs(symbol) > _CODED:
                more, n = abs(symbol) - _CODED, 0
                while more >> (n + 1):
                    n += 1
                more -= 1 << n
                if n > 16:
                    o = _push(x, 0, words, o, more >> 16, 1, n - 16)
                if n > 0:
                    o = _push(x, 0, words, o, more & 0xFFFF, 1, min(n, 16))
                o = _push(x, 0, words, o, 2 * n + (1 if symbol < 0 else 0), 1, 6)
                symbols[q] = -_CODED - 1
        for q in range(BLOCK - 1, -1, -1):
            s = symbols[q] + _CODED + 1
            o = _push(x, q & 3, words, o, start[k, s], frequency[k, s], _BITS)
        o = _push(x, 0, words, o, zero, _TOTAL - zero, _BITS)
    for k in range(3, -1, -1):
        words[o - 1], words[o - 2] = x[k] >> 16, x[k] & 0xFFFF
        o -= 2
    return words[o:].copy()


@_inner(inline="always")
def _pull(x: np.ndarray, words: np.ndarray, o: int, bits: int) -> tuple[int, int]:
    """Raw bits, 16 at most, of the first state; and where the next word is."""
    low = x[0] & ((1 << bits) - 1)
    x[0] >>= bits
    if x[0] < _LOW:
        x[0] = x[0] << 16 | int(words[min(o, words.size - 1)])
        o += 1
    return low, o


@_inner()
def _rest(x: np.ndarray, words: np.ndarray, o: int, code: np.ndarray, h: int) -> int:
    """What the symbols of a block leave open: escapes, and the lowest h bits; returns where the next word is."""
    half = (1 << h) >> 1
    for q in range(code.size):
        symbol, low, high = int(code[q]), 0, 0
        if symbol == -_CODED - 1:
            head, o = _pull(x, words, o, 6)
            n = head >> 1
            if n > 0:
                low, o = _pull(x, words, o, min(n, 16))
            if n > 16:
                high, o = _pull(x, words, o, n - 16)
            symbol = _CODED + (1 << n | high << 16 | low)
            if head & 1:
                symbol = -symbol
        low, high = 0, 0
        if h > 0:
            low, o = _pull(x, words, o, min(h, 16))
        if h > 16:
            high, o = _pull(x, words, o, h - 16)
        code[q] = max(-LIMIT, min(LIMIT, (symbol << h | high << 16 | low) - half))
    return o


@_outer()
def _read(
    codes: np.ndarray, words: np.ndarray, count: int, parts: np.ndarray, past: int, zeros: np.ndarray, table: np.ndarray,
) -> bool:  # fmt: skip
    """Fill codes, int32, from so many words, which zeros follow; whether they end where they should.

    zeros: frequency of zero blocks by context, 0 for contexts that no block has.
    """
    blocks = codes.size // BLOCK
    size = np.zeros(blocks + 1, np.int64)
    x = np.empty(4, np.int64)
    for k in range(4):
        x[k] = int(words[2 * k]) | int(words[2 * k + 1]) << 16
        if x[k] < _LOW:
            return False
    o = 8
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    plane, part = 0, 0
    length = parts[parts.shape[0] - 1, 0]
    for b in range(blocks):
        while b * BLOCK - plane >= parts[part, 0]:
            part += 1
            if part == parts.shape[0]:
                part = 0
                plane += length
        k = _context(size, b, parts[part, 1], parts[part, 2], past)
        if k >= zeros.size or zeros[k] == 0 or o > count:
            return False
        zero, slot = zeros[k], x0 & (_TOTAL - 1)
        some = slot >= zero
        x0 = (x0 >> _BITS) * (_TOTAL - zero if some else zero) + (slot - zero if some else slot)
        if x0 < _LOW:
            x0 = x0 << 16 | int(words[o])
            o += 1
        code = codes[b * BLOCK : (b + 1) * BLOCK]
        if not some:
            for q in range(BLOCK):
                code[q] = 0
            continue
        base, escaped = k << _BITS, False
        for q in range(0, BLOCK, 4):
            e = int(table[base + (x0 & (_TOTAL - 1))])
            x0 = ((e >> 5 & 4095) + 1) * (x0 >> _BITS) + (e >> 17)
            code[q] = (e & 31) - _CODED - 1
            escaped |= (e & 31) == 0
            need = x0 < _LOW
            x0 = x0 << 16 | int(words[o]) if need else x0
            o += need
            e = int(table[base + (x1 & (_TOTAL - 1))])
            x1 = ((e >> 5 & 4095) + 1) * (x1 >> _BITS) + (e >> 17)
            code[q + 1] = (e & 31) - _CODED - 1
            escaped |= (e & 31) == 0
            need = x1 < _LOW
            x1 = x1 << 16 | int(words[o]) if need else x1
            o += need
            e = int(table[base + (x2 & (_TOTAL - 1))])
            x2 = ((e >> 5 & 4095) + 1) * (x2 >> _BITS) + (e >> 17)
            code[q + 2] = (e & 31) - _CODED - 1
            escaped |= (e & 31) == 0
            need = x2 < _LOW
            x2 = x2 << 16 | int(words[o]) if need else x2
            o += need
            e = int(table[base + (x3 & (_TOTAL - 1))])
            x3 = ((e >> 5 & 4095) + 1) * (x3 >> _BITS) + (e >> 17)
            code[q + 3] = (e & 31) - _CODED - 1
            escaped |= (e & 31) == 0
            need = x3 < _LOW
            x3 = x3 << 16 | int(words[o]) if need else x3
            o += need
        h = _shift(k)
        if escaped or h > 0:
            x[0] = x0
            o = _rest(x, words, o, code, h)
            x0 = x[0]
            if o > count:
                return False
        total = 0
        for q in range(BLOCK):
            total += abs(int(code[q]))
        size[b] = total
    return o == count and x0 == _LOW and x1 == _LOW and x2 == _LOW and x3 == _LOW


def _fitted(block_count: np.ndarray, symbol_count: np.ndarray) -> np.ndarray:
    """Parameters ``[contexts, 3]`` of the tables: of zero blocks, of zero, and the decay; 0 where there is no block."""
    blocks, symbols = block_count.sum(1), symbol_count.sum(1)
    zero_blocks = np.rint(_TOTAL * block_count[:, 0] / np.maximum(1, blocks)).astype(np.int64)
    zero = np.rint(_TOTAL * symbol_count[:, _CODED + 1] / np.maximum(1, symbols)).astype(np.int64)
    others = symbols - symbol_count[:, _CODED + 1]
    distance = np.abs(np.arange(_SYMBOLS) - _CODED - 1)
    distance[0] = _CODED + 4
    mean = (symbol_count * distance).sum(1) / np.maximum(1, others)
    decay = np.rint(256 * (1 - 1 / np.maximum(mean, 1.0))).astype(np.int64)
    fitted = np.stack(
        [np.clip(zero_blocks, 1, _TOTAL - 1), np.clip(zero, 1, _TOTAL - 2 * _SYMBOLS), np.clip(decay, 1, 250)], 1
    )
    return fitted * (blocks > 0)[:, None]


def _cost(block_count: np.ndarray, symbol_count: np.ndarray) -> float:
    """Bits of the symbols under the best tables."""
    bits = 0.0
    for count in (block_count, symbol_count):
        total = np.broadcast_to(count.sum(1, keepdims=True), count.shape)
        there = count > 0
        bits -= float((count[there] * np.log2(count[there] / total[there])).sum())
    return bits + 16.0 * float(symbol_count[:, 0].sum())


def _codes(
    values: np.ndarray, step: float, choices: Choices, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Codes, padded with zeros to whole blocks, and what they reconstruct; raises OverflowError."""
    codes, recon = np.zeros(-(-values.size // BLOCK) * BLOCK, np.int32), np.empty(values.shape)
    share, pace = _MEMORY[choices.memory]
    if not _planes(codes, values, recon, valid, choices.sizes(step), choices.cubic, share, pace, True):
        raise OverflowError("residual too large for its step")
    return codes, recon
