"""Lossless coding of masks, of the values under them, and of values stored verbatim.

Values have three forms, of which the smallest is written, and masks the first two. One is made with the standard
library's DEFLATE, whose streams begin with the byte 0x78. Another is for arrays of one or two different values, which
are coded as bits in context (`vcinr.coding.bits`); it begins with the byte 1. The third is for numbers, which are
predicted from those before (`vcinr.coding.numbers`); it begins with the byte 2. A fourth is for values of which each
fills a block (`vcinr.coding.coarse`): it begins with the byte 3, and a factor and one of the other forms follow.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from vcinr.coding import bits, numbers
from vcinr.coding.coarse import coarse_shape, grown
from vcinr.coding.leb128 import leb128, read_leb128
from vcinr.errors import CorruptError


def deflate(data: bytes) -> bytes:
    """Compress bytes with DEFLATE (zlib container) at the highest level."""
    return zlib.compress(data, 9)


def inflate(data: bytes, size: int) -> bytes:
    """Inverse of `deflate`.

    Parameters
    ----------
    data : bytes
        From `deflate`.
    size : int
        Exact number of bytes to expect; no more than that is ever allocated.

    Returns
    -------
    bytes
        The original bytes.

    Raises
    ------
    CorruptError
        For a malformed stream, or one of another size.
    """
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise CorruptError(f"deflated stream is malformed ({error})") from None
    if len(out) != size or not inflater.eof or inflater.unused_data:
        raise CorruptError("deflated stream has a wrong length")
    return out


_BITS = b"\1"  # first byte of what is coded as bits
_NUMBERS = b"\2"  # and of numbers
_COARSE = b"\3"  # and of coarse values
_QUICK = 1 << 16
"""Largest size of a mask that is coded as bits where time counts: DEFLATE reads some hundred million bits a second."""
_SHORT = 9  # bytes: no deflated stream is shorter
_SAMPLE = 1024  # values that are looked at first: most arrays have more than two different ones
_LARGE = 1 << 15  # values from which on a sample of a quarter as many tells which forms to try
_CLEAR = 0.9  # one form is not tried where the other takes less than this share of its bytes for the sample


def encode(values: np.ndarray, *, quick: bool = False) -> bytes:
    """Encode any array exactly.

    Parameters
    ----------
    values : numpy.ndarray
        Values of any real dtype. Where they are one or two different ones, the shape matters: the last three axes are
        those of a volume; where they are numbers of more, the last two are those of a plane.
    quick : bool
        Whether values are not tried as numbers, which takes longer than DEFLATE.

    Returns
    -------
    bytes
        Either the values coded as bits, or coded as numbers, or their bytes shuffled, so that bytes of equal
        significance lie together, and deflated.
    """
    ordered = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    coded = _encode_two(ordered)
    if coded is not None and len(coded) <= _SHORT:  # as for a constant, however many values there are
        return coded
    forms = [] if coded is None else [coded]
    number, deflated = (False, True) if quick or coded is not None else _worthwhile(ordered)
    if number and (numbered := numbers.encode(ordered)) is not None:
        forms.append(_NUMBERS + numbered)
    if deflated or not forms:
        forms.append(_deflate_values(ordered))
    return min(forms, key=len)


def encode_coarse(values: np.ndarray, factor: int) -> bytes:
    """Encode an array in which a value fills a block of `factor` along each axis; `values` is its coarse copy."""
    return _COARSE + leb128(factor) + encode(values)


def _deflate_values(values: np.ndarray) -> bytes:
    """The bytes of values, little-endian and contiguous, shuffled and deflated."""
    return deflate(values.reshape(-1).view(np.uint8).reshape(-1, values.dtype.itemsize).T.tobytes())


def _worthwhile(values: np.ndarray) -> tuple[bool, bool]:
    """Whether it is worthwhile to code values as numbers, and to deflate them; one of both is."""
    if values.size == 0 or not numbers.possible(values.dtype):
        return False, True
    if values.size < _LARGE:
        return True, True
    sample = numbers.block(values, _LARGE // 4)
    numbered, deflated = len(numbers.encode(sample) or b""), len(_deflate_values(sample))
    return _CLEAR * numbered <= deflated, _CLEAR * deflated <= numbered


def patterns_of(values: np.ndarray) -> np.ndarray | None:
    """The one or two different bit patterns of an array, in ascending order; None where it has more, or no values.

    Patterns, not numbers: NaN is not equal to itself, and 0.0 is equal to -0.0.
    """
    if values.size == 0 or values.dtype.itemsize not in (1, 2, 4, 8):
        return None
    pattern = np.dtype(f"<u{values.dtype.itemsize}")
    flat = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).reshape(-1).view(pattern)
    few = np.unique(flat[:_SAMPLE])
    if len(few) > 2:
        return None
    if len(few) == 1:
        others = flat != few[0]
        where = int(others.argmax())
        if not others[where]:
            return few
        few = np.sort(np.append(few, flat[where]))
    return few if ((flat == few[0]) | (flat == few[1])).all() else None


def _encode_two(values: np.ndarray) -> bytes | None:
    """Encode values, little-endian and contiguous, that have one or two different bit patterns.

    None where they have more, and where bits of such a shape cannot be coded.
    """
    patterns = patterns_of(values)
    if patterns is None:
        return None
    if len(patterns) == 1:
        return _BITS + patterns.tobytes()
    if not bits.possible(values.shape):
        return None
    return _BITS + patterns.tobytes() + bits.encode(values.view(patterns.dtype) == patterns[1])


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
    little, native, size = dtype.newbyteorder("<"), dtype.newbyteorder("="), dtype.itemsize
    if data[:1] == _BITS:
        if len(data) == 1 + size:
            return np.full(shape, np.frombuffer(data, little, 1, 1)[0], native)
        if len(data) < 1 + 2 * size:
            raise CorruptError("two values are malformed")
        return np.frombuffer(data, little, 2, 1).astype(native)[bits.decode(data[1 + 2 * size :], shape).view(np.uint8)]
    if data[:1] == _NUMBERS:
        return numbers.decode(data[1:], shape, dtype)
    if data[:1] == _COARSE:
        factor, position = read_leb128(data, 1)
        if factor < 2 or data[position : position + 1] == _COARSE:
            raise CorruptError("coarse values are malformed")
        return grown(decode(data[position:], coarse_shape(shape, factor), dtype), shape, factor)
    raw = np.frombuffer(inflate(data, math.prod(shape) * size), np.uint8)
    return np.ascontiguousarray(raw.reshape(size, -1).T).view(little).reshape(shape).astype(native, copy=False)


def encode_mask(mask: np.ndarray, *, quick: bool = False) -> bytes:
    """Encode a mask.

    Parameters
    ----------
    mask : numpy.ndarray
        bool ``[n, ...]``.
    quick : bool
        Whether a large mask is deflated without a search for the smaller form.

    Returns
    -------
    bytes
        Either the mask coded as bits; or, deflated, the packed bits of each signal's difference from the one before.
    """
    change = mask.copy()
    change[1:] ^= mask[:-1]
    deflated = deflate(np.packbits(change).tobytes())
    if (quick and mask.size > _QUICK) or not bits.possible(mask.shape):
        return deflated
    coded = _BITS + bits.encode(mask)
    return deflated if len(deflated) <= len(coded) else coded


def decode_mask(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `encode_mask`."""
    if data[:1] == _BITS:
        return bits.decode(data[1:], shape)
    count = math.prod(shape)
    packed = np.unpackbits(np.frombuffer(inflate(data, -(-count // 8)), np.uint8), count=count)
    return np.logical_xor.accumulate(packed.reshape(shape).astype(bool), axis=0)
