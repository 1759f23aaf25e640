"""Lossless side streams: validity masks, the values under them, and values stored verbatim.

All are short byte strings made with the standard library's DEFLATE, which any language can read.
"""

from __future__ import annotations

import zlib

import numpy as np

from vcinr.errors import CorruptError


def deflate(data: bytes) -> bytes:
    """DEFLATE (zlib container) at the highest level."""
    return zlib.compress(data, 9)


def inflate(data: bytes, size: int) -> bytes:
    """Inverse of `deflate` for exactly `size` bytes; never allocates more. Raises CorruptError."""
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise CorruptError(f"deflated stream is malformed ({error})") from None
    if len(out) != size or not inflater.eof or inflater.unused_data:
        raise CorruptError("deflated stream has a wrong length")
    return out


def encode(values: np.ndarray) -> bytes:
    """Any array, exactly: its bytes, shuffled so that equal significance lies together, deflated."""
    flat = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).ravel()
    return deflate(flat.view(np.uint8).reshape(-1, values.dtype.itemsize).T.tobytes())


def decode(data: bytes, count: int, dtype: np.dtype) -> np.ndarray:
    """Inverse of `encode`: ``[count]`` of `dtype` in native byte order."""
    little = dtype.newbyteorder("<")
    raw = np.frombuffer(inflate(data, count * dtype.itemsize), np.uint8)
    return (
        np.ascontiguousarray(raw.reshape(dtype.itemsize, count).T).view(little).ravel().astype(dtype.newbyteorder("="))
    )


def encode_mask(mask: np.ndarray) -> bytes:
    """Boolean ``[n, ...]``: each signal's mask as the difference from the one before, bit-packed, deflated."""
    change = mask.copy()
    change[1:] ^= mask[:-1]
    return deflate(np.packbits(change).tobytes())


def decode_mask(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `encode_mask`."""
    count = int(np.prod(shape, dtype=np.int64))
    bits = np.unpackbits(np.frombuffer(inflate(data, -(-count // 8)), np.uint8), count=count)
    return np.logical_xor.accumulate(bits.reshape(shape).astype(bool), axis=0)
