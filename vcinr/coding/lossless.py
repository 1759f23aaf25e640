"""Lossless coding of masks, of the values under them, and of values stored verbatim.

All are short byte strings made with the standard library's DEFLATE, which any language can read.
"""

from __future__ import annotations

import zlib

import numpy as np

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


def encode(values: np.ndarray) -> bytes:
    """Encode any array exactly.

    Its bytes are shuffled, so that bytes of equal significance lie together, and deflated.
    """
    flat = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).ravel()
    return deflate(flat.view(np.uint8).reshape(-1, values.dtype.itemsize).T.tobytes())


def decode(data: bytes, count: int, dtype: np.dtype) -> np.ndarray:
    """Inverse of `encode`: ``[count]`` values of `dtype`, in native byte order."""
    little = dtype.newbyteorder("<")
    raw = np.frombuffer(inflate(data, count * dtype.itemsize), np.uint8)
    return (
        np.ascontiguousarray(raw.reshape(dtype.itemsize, count).T).view(little).ravel().astype(dtype.newbyteorder("="))
    )


def encode_mask(mask: np.ndarray) -> bytes:
    """Encode a mask, bool ``[n, ...]``.

    Each signal's mask is taken as the difference from the one before, packed into bits and deflated.
    """
    change = mask.copy()
    change[1:] ^= mask[:-1]
    return deflate(np.packbits(change).tobytes())


def decode_mask(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `encode_mask`."""
    count = int(np.prod(shape, dtype=np.int64))
    bits = np.unpackbits(np.frombuffer(inflate(data, -(-count // 8)), np.uint8), count=count)
    return np.logical_xor.accumulate(bits.reshape(shape).astype(bool), axis=0)
