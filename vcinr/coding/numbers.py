"""Lossless coding of arrays of numbers: coordinates, columns of tables and fields that are kept as they are.

An array is coded in one of several forms, of which the smallest is written; docs/format.md specifies every number below
(section Numbers).

1. *Integers.* Every number is an integer that is ordered as the numbers are; that of a float is made of its bits. The
   integers are differenced along columns, rows and planes, up to three times each, modulo two to the power of their
   width, and the differences are coded by the binary coder of `vcinr.coding.kernels` (`_code_differences`). Contexts
   are the sizes and the signs of the differences nearby.
2. *Grids.* Floats that are, or nearly are, integers times a fraction (``k * p / q``, as decimal numbers are) or points
   of a line (``start + k * step``, as evenly spaced coordinates are) become these integers. What the formula does not
   give bit for bit is corrected: by a difference where it is small, else by the number itself.
3. *Dictionary.* Few different numbers are listed, and their indices coded bit by bit (`_code_symbols`), in contexts of
   the indices before.

The range coder and mixed decisions are inlined from `vcinr.coding.kernels`. Numba would not notice here that they have
changed, but what has been written does not let them change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from vcinr.coding import kernels
from vcinr.coding.kernels import _CODE, _LOW, _POSITION, _RANGE, Coder, _next_byte, _shift_out, bit, integer, rare
from vcinr.coding.leb128 import leb128, read_leb128
from vcinr.compiled import inner, outer
from vcinr.errors import CorruptError

_INTEGERS, _FRACTION, _LINE, _DICTIONARY = range(4)  # the forms, by their first byte

_ORDER = 3  # how often an array may be differenced along its columns and rows; along planes it is once
_SIZES = 65  # of a difference: its bits, 0 to 64
_NEAR = 3  # sizes differ by at most this from the expected one where they serve as contexts
_SPAN = 7  # 2 * _NEAR + 1
_CLIP = 4  # differences are clipped to this magnitude where they serve as contexts
_VALUES = 9  # 2 * _CLIP + 1
_CONTEXTS = 3200
_SIGN_CONTEXTS = 3000
_LEADING = 2  # bits after the highest that are coded in context
_RARE = 65 * 8 * 4
_LEAST: Any = np.int64(-(2**63))
_ZERO: Any = np.int64(0)

_DICTIONARY_BITS = 16
_FEW = 64  # different numbers for which a dictionary is tried in any case
_SLOT_BITS = 20  # log2 of the largest number of slots of an index's contexts
_HASH = 0x9E3779B1  # 2^32 divided by the golden ratio

_PER_CALL = 1 << 14  # values that a kernel codes in one call, so that a writer's buffer can grow between calls
_SMALL = 1 << 14  # values of arrays that are coded in every form; of larger ones, a sample of so many tells the form
_PROBE = 1 << 13  # values that tell how often to difference
_GRID_SAMPLE = 1024
_LARGEST = 2.0**53  # integers of a grid are smaller than this in magnitude
_FRACTIONS = ((1, 1), (5, 9), (1, 10), (1, 100), (1, 180), (1, 1000), (1, 10**4), (1, 10**5), (1, 10**6))


class _Grid(NamedTuple):
    """A formula for floats from integers: ``k * first / second``, or ``first + k * second`` where it is a line."""

    form: int
    first: float
    second: float


def possible(dtype: np.dtype) -> bool:
    """Whether arrays of this dtype can be coded: integers and floats of at most 64 bits."""
    return dtype.kind in "iuf" and dtype.itemsize in (1, 2, 4, 8)


def encode(values: np.ndarray) -> bytes | None:
    """Encode an array of numbers exactly.

    Parameters
    ----------
    values : numpy.ndarray
        Integers or floats of any shape. The last two axes longer than 1 are those of a plane.

    Returns
    -------
    bytes or None
        The smallest form, of those that a sample makes likely; None for an array without values, or of a dtype that is
        not `possible`.
    """
    if values.size == 0 or not possible(values.dtype):
        return None
    array = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("="), copy=False)
    array = array.reshape(_planes(array.shape))
    forms = _forms(array)
    if array.size > _SMALL:
        sample = block(array, _SMALL)
        sizes = [math.inf if coded is None else len(coded) for coded in (form(sample) for form in forms)]
        forms = [forms[i] for i in sorted(range(len(forms)), key=sizes.__getitem__)]
        return next((coded for form in forms if (coded := form(array)) is not None), None)
    return min((coded for form in forms if (coded := form(array)) is not None), key=len)


def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Inverse of `encode`.

    Parameters
    ----------
    data : bytes
        From `encode`.
    shape : tuple of int
        Shape of the array.
    dtype : numpy.dtype
        Its dtype, in any byte order.

    Returns
    -------
    numpy.ndarray
        The values, in native byte order.

    Raises
    ------
    CorruptError
        For bytes that no array of this shape and dtype gives.
    """
    native = dtype.newbyteorder("=")
    if not data or math.prod(shape) == 0 or not possible(native):
        raise CorruptError("numbers are malformed")
    planes, form = _planes(shape), data[0]
    if form == _INTEGERS:
        return _from_integers(_read_integers(data[1:], planes, 8 * native.itemsize), native).reshape(shape)
    if form == _DICTIONARY:
        return _from_integers(_read_dictionary(data, planes, 8 * native.itemsize), native).reshape(shape)
    if native.kind != "f":
        raise CorruptError("numbers have an unknown form")
    return _read_grid(data, planes, native).reshape(shape)


def _planes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape ``[P, H, W]`` that an array is coded in: its last two axes longer than 1, and all others before."""
    longer = [n for n in shape if n != 1]
    height, width = ([1, 1, *longer])[-2:]
    return math.prod(longer[:-2]), height, width


def block(array: np.ndarray, size: int) -> np.ndarray:
    """A block ``[P, H, W]`` of about so many values from the middle of an array, of two planes where there are more."""
    array = array.reshape(_planes(array.shape))
    planes, height, width = array.shape
    deep = min(planes, 2)
    wide = min(width, size // deep if height == 1 else max(64, size // deep // height))
    high = min(height, max(1, size // deep // wide))
    deep = min(planes, max(1, size // (wide * high)))
    z, y, x = (planes - deep) // 2, (height - high) // 2, (width - wide) // 2
    return np.ascontiguousarray(array[z : z + deep, y : y + high, x : x + wide])


# --- integers


def _to_integers(values: np.ndarray) -> np.ndarray:
    """int64, ordered as the values are: the bits of floats as integers, negative ones with all but the sign flipped."""
    if values.dtype.kind != "f":
        return values.astype(np.int64)  # of uint64 the bits
    signed = values.view(f"i{values.dtype.itemsize}")
    return np.where(signed < 0, signed ^ np.iinfo(signed.dtype).max, signed).astype(np.int64)


def _from_integers(integers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Inverse of `_to_integers`, of which only the lowest bits count, as many as the dtype has."""
    if dtype.kind != "f":
        return integers.astype(dtype)
    signed = integers.astype(f"i{dtype.itemsize}")
    return np.where(signed < 0, signed ^ np.iinfo(signed.dtype).max, signed).view(dtype)


def _wrapped(integers: np.ndarray, width: int) -> np.ndarray:
    """The integers modulo 2^width, as signed ones of so many bits."""
    if width == 64:
        return integers
    wrapped = integers << (64 - width)
    wrapped >>= 64 - width
    return wrapped


def _differences(integers: np.ndarray, orders: tuple[int, int, int]) -> np.ndarray:
    """Differences along columns, rows and planes, as many times each as `orders` says.

    What has not enough values before it is differenced less often, so that it stays small.
    """
    differences = integers.copy()
    for axis, order in zip((2, 1, 0), orders, strict=True):
        for i in range(1, order + 1):
            now, before = _beside(axis, i)
            differences[now] -= differences[before].copy()
    return differences


def _integrate(differences: np.ndarray, orders: tuple[int, int, int]) -> None:
    """Inverse of `_differences`, in place."""
    for axis, order in zip((0, 1, 2), reversed(orders), strict=True):
        for i in range(order, 0, -1):
            part: list[slice] = [slice(None)] * 3
            part[axis] = slice(i - 1, None)
            np.add.accumulate(differences[tuple(part)], axis=axis, out=differences[tuple(part)])


def _beside(axis: int, first: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where to find the values from `first` on along an axis of three, and the ones before each."""
    now: list[slice] = [slice(None)] * 3
    before = now.copy()
    now[axis], before[axis] = slice(first, None), slice(first - 1, -1)
    return tuple(now), tuple(before)


def _orders(integers: np.ndarray, width: int) -> tuple[tuple[int, int, int], float]:
    """How often to difference, so that a sample's differences are smallest, and about how many bits one takes then."""
    sample = block(integers, _PROBE)
    most = [min(_ORDER, n - 1) for n in (integers.shape[2], integers.shape[1])]
    best, least = (0, 0, 0), math.inf
    for orders in product(range(most[0] + 1), range(most[1] + 1), range(2 if sample.shape[0] > 1 else 1)):
        size = np.abs(_wrapped(_differences(sample, orders), width).astype(np.float64))
        # Higher orders must pay: they amplify noise, and what they save on a sample is partly chance.
        bits = float(np.log2(2 * size + 1).mean()) + 0.001 * sum(orders)
        if bits < least:
            best, least = orders, bits
    return best, least


def _write_integers(integers: np.ndarray, width: int) -> bytes:
    """A byte for the orders of differences, then the differences."""
    orders, _ = _orders(integers, width)
    differences = np.ascontiguousarray(_wrapped(_differences(integers, orders), width))
    c, signs = _coders()
    data = np.empty(16, np.uint8)
    data = _code(c, signs, data, differences, True)
    return bytes([orders[0] | orders[1] << 2 | orders[2] << 4]) + kernels.stream(c, data)


def _read_integers(data: bytes, shape: tuple[int, int, int], width: int) -> np.ndarray:
    """Inverse of `_write_integers`: int64 of that shape, whose lowest `width` bits count."""
    if not data or data[0] >> 5:
        raise CorruptError("numbers are malformed")
    differences = np.zeros(shape, np.int64)
    c, signs = _coders()
    array = kernels.open_stream(c, data[1:])
    _code(c, signs, array, differences, False)
    kernels.check_end(c, array)
    _integrate(differences, (data[0] & 3, data[0] >> 2 & 3, data[0] >> 4))
    return _wrapped(differences, width)


def _coders() -> tuple[Coder, Coder]:
    """Coders of the differences' sizes and of their signs, on one stream."""
    sizes = kernels.coder(_CONTEXTS, _RARE)
    return sizes, sizes._replace(
        counter=np.full((kernels.INPUTS, 1, _SIGN_CONTEXTS), 1 << 30, np.int32), weight=sizes.weight.copy()
    )


def _ready(c: Coder, data: np.ndarray, values: int, writing: bool) -> np.ndarray:
    """The buffer with room for so many more values to write.

    A reader that is beyond its stream stops with CorruptError, so that a few bytes do not keep it busy for long.
    """
    if writing:
        return kernels.reserve(c.state, data, values)
    if c.state[_POSITION] - 4 > len(data):
        kernels.check_end(c, data)
    return data


def _code(c: Coder, signs: Coder, data: np.ndarray, differences: np.ndarray, writing: bool) -> np.ndarray:
    """Code differences ``[P, H, W]``, which a reader fills; returns the buffer, which may be a larger one."""
    sizes = np.zeros(differences.size, np.int8)
    flat, (_, height, width) = differences.reshape(-1), differences.shape
    for first in range(0, flat.size, _PER_CALL):
        last = min(first + _PER_CALL, flat.size)
        data = _ready(c, data, last - first, writing)
        _code_differences(c, signs, data, flat, sizes, height, width, first, last, writing)
    return data


@outer
def _code_differences(
    c: Coder, signs: Coder, data: np.ndarray, differences: np.ndarray, sizes: np.ndarray, height: int, width: int,
    begin: int, end: int, writing: bool,
) -> None:  # fmt: skip
    """Code the differences ``[begin, end)`` of planes ``[P, H, W]``, flattened; `sizes`, of them all, is filled.

    The size of a difference is the number of its magnitude's bits. It is coded as its own difference from the size that
    the neighbours make likely; then come the sign, two bits in context, and the others raw.
    """
    plane = height * width
    x, y = begin % width - 1, begin // width % height
    for i in range(begin, end):
        x += 1
        if x == width:
            x, y = 0, (y + 1 if y + 1 < height else 0)
        # Differences to the left, the one before, above, left and right of this one, and in the plane before.
        left, left_2, above, above_left, above_right, earlier = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
        size_left, size_left_2, size_above, size_right, size_earlier = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
        if x > 0:
            left, size_left = _clipped(differences[i - 1]), np.int64(sizes[i - 1])
            size_left_2 = size_left
            if x > 1:
                left_2, size_left_2 = _clipped(differences[i - 2]), np.int64(sizes[i - 2])
        if y > 0:
            above, size_above = _clipped(differences[i - width]), np.int64(sizes[i - width])
            size_right = size_above
            if x > 0:
                above_left = _clipped(differences[i - width - 1])
            if x + 1 < width:
                above_right, size_right = _clipped(differences[i - width + 1]), np.int64(sizes[i - width + 1])
            if x == 0:
                size_left, size_left_2 = size_above, size_right
        else:
            size_above, size_right = size_left, size_left_2
        likely = (3 * size_left + 3 * size_above + size_left_2 + size_right + 4) >> 3
        size_earlier = likely
        if i >= plane:
            earlier, size_earlier = _clipped(differences[i - plane]), np.int64(sizes[i - plane])
            likely = (3 * likely + size_earlier + 2) >> 2
        near_left, near_above = _near(size_left, likely), _near(size_above, likely)
        base = likely * _SPAN * _SPAN
        c.context[0] = base + near_left * _SPAN + near_above
        c.context[1] = base + _near(size_left_2, likely) * _SPAN + _near(size_right, likely)
        c.context[2] = (left * _VALUES + above) * _VALUES + above_left
        c.context[3] = base + _near(size_earlier, likely) * _SPAN + near_left
        c.context[4] = (left * _VALUES + left_2) * _VALUES + above
        c.context[5] = (earlier * _VALUES + above_right) * _VALUES + left
        value, size = differences[i], _ZERO
        if writing:
            size = _bits(value)
        size = likely + integer(c, data, size - likely, _ZERO, _ZERO, _ZERO, writing)
        size = max(_ZERO, min(np.int64(64), size))
        if size == 64:
            value = _LEAST
        elif size > 0:
            few = min(size, 3) - 1
            signs.context[0] = ((left * _VALUES + above) * _VALUES + above_left) * 3 + few
            signs.context[1] = ((left * _VALUES + left_2) * _VALUES + above) * 3 + few
            signs.context[2] = ((above * _VALUES + above_right) * _VALUES + above_left) * 3 + few
            signs.context[3] = ((earlier * _VALUES + left) * _VALUES + above) * 3 + few
            signs.context[4] = (left + above - above_left + 2 * _CLIP) * _SIZES + size
            signs.context[5] = left * 3 + few
            negative = bit(signs, data, _ZERO, few, 1 if value < 0 else 0, writing)
            magnitude = -value if value < 0 else value
            # The bits below the highest: two in context, the others raw.
            prefix, place, rest = 1, (size * 8 + _near(likely, size)) * 4, size - 1
            for _ in range(_LEADING):
                if rest > 0:
                    rest -= 1
                    prefix = prefix << 1 | rare(c, data, place + prefix, (magnitude >> rest) & 1, writing)
            if rest > 0:
                prefix = prefix << rest | _wide(c.state, data, magnitude, rest, writing)
            value = -prefix if negative else prefix
        else:
            value = _ZERO
        if not writing:
            differences[i] = value
        sizes[i] = size


@inner()
def _wide(state: np.ndarray, data: np.ndarray, value: int, width: int, writing: bool) -> int:
    """Code the lowest `width` bits of `value` at even odds, the highest first, up to eight at once."""
    bits: Any = np.int64(0)
    while width > 0:
        count = min(width, 8)
        width -= count
        most = (1 << count) - 1
        size = state[_RANGE] >> count
        if writing:
            part = (value >> width) & most
            state[_LOW] += part * size
        else:
            part = min(state[_CODE] // size, most)
            state[_CODE] -= part * size
        bits = bits << count | part
        while size < 1 << 24:
            size <<= 8
            if writing:
                _shift_out(state, data)
            else:
                state[_CODE] = state[_CODE] << 8 | _next_byte(state, data)
        state[_RANGE] = size
    return bits


@inner(forceinline=True)
def _clipped(value: int) -> int:
    """A difference clipped to `_CLIP` in magnitude, plus `_CLIP`."""
    return max(-_CLIP, min(_CLIP, value)) + _CLIP


@inner(forceinline=True)
def _near(size: int, likely: int) -> int:
    """How a size compares with another: 0 to 6."""
    return max(-_NEAR, min(_NEAR, size - likely)) + _NEAR


@inner(forceinline=True)
def _bits(value: int) -> int:
    """The number of bits of the magnitude of an int64."""
    if value == _LEAST:
        return 64
    rest, size = (-value if value < 0 else value), 0
    for step in (32, 16, 8, 4, 2, 1):
        if rest >> step:
            rest >>= step
            size += step
    return size + rest


# --- grids


def _at(grid: _Grid, k: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The floats of a grid at integers, int64 below 2^53 in magnitude."""
    with np.errstate(all="ignore"):
        if grid.form == _FRACTION:
            return ((k * grid.first) / grid.second).astype(dtype)
        return (grid.first + k * grid.second).astype(dtype)


def _on(grid: _Grid, values: np.ndarray) -> np.ndarray:
    """The integers at which a grid is nearest to floats, int64; those without one repeat the one before."""
    with np.errstate(all="ignore"):
        real = values.reshape(-1).astype(np.float64)
        if grid.form == _FRACTION:
            real = np.rint(real * grid.second / grid.first)
        else:
            real = np.rint((real - grid.first) / grid.second)
        good = np.abs(real) < _LARGEST
    last = np.maximum.accumulate(np.where(good, np.arange(good.size), 0))
    return np.where(good[last], np.where(good, real, 0)[last], 0).astype(np.int64).reshape(values.shape)


def _nearest(grid: _Grid, values: np.ndarray) -> np.ndarray:
    """The floats of a grid that are nearest to `values`."""
    return _at(grid, _on(grid, values), values.dtype)


def _corrected(likely: np.ndarray, corrections: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats from those of a grid: a small correction is added to the integer of a float, a large one replaces it."""
    width = 8 * dtype.itemsize
    small = (corrections >= -(1 << (width // 2 - 1))) & (corrections < 1 << (width // 2 - 1))
    return _from_integers(np.where(small, _to_integers(likely) + corrections, corrections), dtype)


def _corrections(values: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """The corrections, int64, that bring the floats of a grid to `values`; not all are possible."""
    width = 8 * values.dtype.itemsize
    exact = _to_integers(values)
    change = _wrapped(exact - _to_integers(likely), width)
    small = (change >= -(1 << (width // 2 - 1))) & (change < 1 << (width // 2 - 1))
    return np.where(small, change, exact)


def _grids(values: np.ndarray) -> list[_Grid]:
    """Grids that most of the values seem to be on, at most one of each form."""
    flat = values.reshape(-1)
    sample = flat
    if flat.size > _GRID_SAMPLE:  # by steps of the golden ratio, which are those of no axis
        sample = flat[(np.arange(_GRID_SAMPLE) * 0.6180339887498949 % 1 * flat.size).astype(np.int64)]
    sample = sample[np.isfinite(sample)]
    if sample.size < 2:
        return []
    # Numbers that stand for missing ones are outliers, to which steps are not fitted.
    with np.errstate(over="ignore"):
        sizes = np.abs(sample.astype(np.float64))
        usual = float(np.median(sizes))
        sample = sample[sizes <= max(1.0, 1e6 * usual)]
    fractions = sorted({*_FRACTIONS, *_binary(sample)}, key=lambda f: -f[0] / f[1])
    grids = (_Grid(_FRACTION, float(p), float(q)) for p, q in fractions)
    found = [next((grid for grid in grids if _fits(grid, sample, usual)), None)]
    if values.shape[:2] == (1, 1) and flat.size > 2 and np.isfinite(flat[[0, 1, -1]]).all():
        first, second, last = (float(v) for v in flat[[0, 1, -1]])
        lines = [_Grid(_LINE, first, (last - first) / (flat.size - 1)), _Grid(_LINE, first, second - first)]
        lines = [g for g in lines if g.second != 0 and math.isfinite(g.second) and _fits(g, sample, usual, 4)]
        found += sorted(lines, key=lambda grid: np.count_nonzero(_corrections(sample, _nearest(grid, sample))))[:1]
    return [grid for grid in found if grid is not None]


def _binary(sample: np.ndarray) -> list[tuple[int, int]]:
    """The largest power of two of which all values of a sample are multiples, as a fraction, where there is one."""
    mantissa, exponent = np.frexp(sample[sample != 0].astype(np.float64))
    if mantissa.size == 0:
        return []
    integers = np.abs(mantissa * 2.0**53).astype(np.int64)
    lowest = np.log2((integers & -integers).astype(np.float64)).astype(np.int64) - 53 + exponent
    least = int(lowest.min())
    return [(1 << max(0, least), 1 << max(0, -least))] if -60 < least < 60 else []


def _fits(grid: _Grid, sample: np.ndarray, usual: float, off: int = 0) -> bool:
    """Whether a grid gives nearly all values of a sample, and has far fewer numbers than the floats of usual size."""
    step = grid.first / grid.second if grid.form == _FRACTION else abs(grid.second)
    if sample.size < 2 or step < 4 * np.finfo(sample.dtype).eps * usual:
        return False
    wrong = np.abs(_corrections(sample, _nearest(grid, sample)))
    return bool((wrong <= off).mean() >= 0.95)


def _write_grid(grid: _Grid, values: np.ndarray) -> bytes | None:
    """The formula, its integers and the corrections; None where these do not give the values."""
    k = _on(grid, values)
    likely = _at(grid, k, values.dtype)
    corrections = _corrections(values, likely)
    if _corrected(likely, corrections, values.dtype).tobytes() != values.tobytes():
        return None
    if grid.form == _FRACTION:
        head = leb128(int(grid.first)) + leb128(int(grid.second))
    else:
        head = np.array([grid.first, grid.second], "<f8").tobytes()
    body = _write_integers(k, 64)
    if not corrections.any():
        return bytes([grid.form]) + head + leb128(len(body)) + body
    rest = encode(corrections.astype(f"i{values.dtype.itemsize}"))
    assert rest is not None
    return bytes([grid.form]) + head + leb128(len(body)) + body + rest


def _read_grid(data: bytes, shape: tuple[int, int, int], dtype: np.dtype) -> np.ndarray:
    """Inverse of `_write_grid`."""
    form, start = data[0], 1
    if form == _FRACTION:
        p, start = read_leb128(data, start)
        q, start = read_leb128(data, start)
        if p == 0 or q == 0:
            raise CorruptError("a grid of numbers is malformed")
        grid = _Grid(form, float(p), float(q))
    elif form == _LINE:
        if len(data) < 17:
            raise CorruptError("a grid of numbers is malformed")
        grid, start = _Grid(form, *np.frombuffer(data, "<f8", 2, 1).tolist()), 17
        if not (math.isfinite(grid.first) and math.isfinite(grid.second)):
            raise CorruptError("a grid of numbers is malformed")
    else:
        raise CorruptError("numbers have an unknown form")
    size, start = read_leb128(data, start)
    if size > len(data) - start:
        raise CorruptError("a grid of numbers is malformed")
    k = _read_integers(data[start : start + size], shape, 64)
    likely = _at(grid, k, dtype)
    rest = data[start + size :]
    if not rest:
        return likely
    corrections = decode(rest, shape, np.dtype(f"i{dtype.itemsize}"))
    if not corrections.any():
        raise CorruptError("corrections of numbers correct nothing")
    return _corrected(likely, corrections.astype(np.int64), dtype)


# --- dictionaries


def _write_dictionary(values: np.ndarray) -> bytes | None:
    """The different numbers in order, then the index of each value; None where they are too many to pay."""
    integers = _to_integers(values)
    entries, indices = np.unique(integers, return_inverse=True)
    if len(entries) > min(values.size // 2, 1 << _DICTIONARY_BITS):
        return None
    listed = _write_integers(entries.reshape(_planes(entries.shape)), 8 * values.dtype.itemsize)
    depth = (len(entries) - 1).bit_length()
    c, data = _symbol_coder(depth, values.size), np.empty(16, np.uint8)
    data = _code_indices(c, data, indices.reshape(values.shape).astype(np.int64), depth, True)
    head = bytes([_DICTIONARY]) + leb128(len(entries)) + leb128(len(listed)) + listed
    return head + kernels.stream(c, data)


def _read_dictionary(data: bytes, shape: tuple[int, int, int], width: int) -> np.ndarray:
    """Inverse of `_write_dictionary`: int64."""
    count, start = read_leb128(data, 1)
    size, start = read_leb128(data, start)
    if not 0 < count <= min(1 << _DICTIONARY_BITS, math.prod(shape)) or size > len(data) - start:
        raise CorruptError("a dictionary of numbers is malformed")
    entries = _read_integers(data[start : start + size], _planes((count,)), width).reshape(-1)
    depth = (count - 1).bit_length()
    indices = np.zeros(shape, np.int64)
    c = _symbol_coder(depth, indices.size)
    array = kernels.open_stream(c, data[start + size :])
    _code_indices(c, array, indices, depth, False)
    kernels.check_end(c, array)
    if indices.max() >= count:
        raise CorruptError("a dictionary of numbers has too few entries")
    return entries[indices]


def _symbol_coder(depth: int, size: int) -> Coder:
    """A coder of indices of so many bits."""
    slots = 1 << max(depth, min(_SLOT_BITS, size.bit_length() + 3))
    c = kernels.coder(1)
    return c._replace(counter=np.full((kernels.INPUTS, 1, slots), 1 << 30, np.int32))


def _code_indices(c: Coder, data: np.ndarray, indices: np.ndarray, depth: int, writing: bool) -> np.ndarray:
    """Code indices ``[P, H, W]``, which a reader fills; returns the buffer, which may be a larger one."""
    planes, height, width = indices.shape
    above = width if height > 1 else 3
    earlier = height * width if planes > 1 else above + 1
    shift = 32 - (c.counter.shape[2].bit_length() - 1)
    flat = indices.reshape(-1)
    for first in range(0, flat.size if depth else 0, _PER_CALL):
        last = min(first + _PER_CALL, flat.size)
        data = _ready(c, data, last - first, writing)
        _code_symbols(c, data, flat, above, earlier, depth, shift, first, last, writing)
    return data


@outer
def _code_symbols(
    c: Coder, data: np.ndarray, indices: np.ndarray, above: int, earlier: int, depth: int, shift: int, begin: int,
    end: int, writing: bool,
) -> None:  # fmt: skip
    """Code the indices ``[begin, end)``, each from its highest bit to its lowest, in contexts of those before it.

    Contexts are the bits so far, with the indices at the distances 1, 2, `above` and `earlier`. A hash of 32 bits is
    shifted right by `shift` to give a slot.
    """
    for i in range(begin, end):
        one = indices[i - 1] + 1 if i >= 1 else _ZERO
        two = indices[i - 2] + 1 if i >= 2 else _ZERO
        over = indices[i - above] + 1 if i >= above else _ZERO
        old = indices[i - earlier] + 1 if i >= earlier else _ZERO
        value: Any = indices[i]
        prefix: Any = np.int64(1)
        for k in range(depth - 1, -1, -1):
            c.context[0] = prefix
            c.context[1] = _slot(one, prefix, shift)
            c.context[2] = _slot(one * 0x2F0B4C47 + two, prefix, shift)
            c.context[3] = _slot(over, prefix, shift)
            c.context[4] = _slot(one * 0x2F0B4C47 + over, prefix, shift)
            c.context[5] = _slot(old, prefix, shift)
            prefix = prefix << 1 | bit(c, data, _ZERO, k, (value >> k) & 1, writing)
        if not writing:
            indices[i] = prefix - (np.int64(1) << depth)


@inner(forceinline=True)
def _slot(known: int, prefix: int, shift: int) -> int:
    """The slot of a context: a hash of what is known and the bits so far."""
    # The masks keep products below 2^63, which plain Python would warn of.
    return ((((known & 0xFFFFFFFF) * 0x5851F42D + prefix) & 0x7FFFFFFF) * _HASH & 0xFFFFFFFF) >> shift


# --- forms


def _forms(array: np.ndarray) -> list[Callable[[np.ndarray], bytes | None]]:
    """The forms that an array may well have, as functions that write it."""

    def plain(values: np.ndarray) -> bytes:
        return bytes([_INTEGERS]) + _write_integers(_to_integers(values), 8 * values.dtype.itemsize)

    forms: list[Callable[[np.ndarray], bytes | None]] = [plain]
    integers = _to_integers(block(array, _PROBE))
    _, counts = np.unique(integers, return_counts=True)
    if 2 * len(counts) <= integers.size:
        share = counts / integers.size
        entropy = -float((share * np.log2(share)).sum())
        if len(counts) <= _FEW or entropy < 2 * _orders(integers, 8 * array.dtype.itemsize)[1] + 1:
            forms.append(_write_dictionary)
    if array.dtype.kind == "f":
        forms += [partial(_write_grid, grid) for grid in _grids(array)]
    return forms
