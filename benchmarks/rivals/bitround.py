"""BitRound, byte shuffling and Zstandard: what many netCDF and Zarr archives use (Zender 2016; Kouznetsov 2021)."""

from __future__ import annotations

import math
from typing import Any

import imagecodecs
import numpy as np

from benchmarks.rivals.base import Rival, checked


def _encode(values: np.ndarray, abs_error: float) -> bytes:
    values = checked(values, abs_error)
    size = values.dtype.itemsize
    integers = values.view(f"u{size}")
    # Rounding to k bits moves a value of binary exponent e by at most 2^(e - k - 1).
    exponent = math.frexp(float(np.abs(values).max()))[1] - 1
    mantissa = np.finfo(values.dtype).nmant
    drop = mantissa - min(max(exponent - 1 - math.floor(math.log2(abs_error)), 0), mantissa)
    if drop:
        one = integers.dtype.type(1)
        half = integers.dtype.type((1 << (drop - 1)) - 1)
        to_even = (integers >> integers.dtype.type(drop)) & one
        integers = ((integers + half + to_even) >> integers.dtype.type(drop)) << integers.dtype.type(drop)
    shuffled = integers.ravel().view(np.uint8).reshape(-1, size).T
    return bytes(imagecodecs.zstd_encode(shuffled.tobytes(), 9))


def _decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    shuffled = np.frombuffer(imagecodecs.zstd_decode(data), np.uint8).reshape(size, -1)
    return np.ascontiguousarray(shuffled.T).view(dtype).reshape(shape)


BITROUND = Rival("BitRound + zstd", _encode, _decode)
