"""ZFP in its fixed-accuracy mode: a block transform and bit planes (Lindstrom 2014)."""

from __future__ import annotations

from typing import Any

import numpy as np
import zfpy

from benchmarks.rivals.base import Rival, at_most_4d, checked


def compress(values: np.ndarray, abs_error: float) -> bytes:
    """Return the stream of `values` as they are, without any check."""
    return zfpy.compress_numpy(values, tolerance=abs_error)


def _encode(values: np.ndarray, abs_error: float) -> bytes:
    values = checked(values, abs_error)
    return compress(values.reshape(at_most_4d(values.shape)), abs_error)


def _decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return zfpy.decompress_numpy(data).astype(dtype, copy=False).reshape(shape)


ZFP = Rival("ZFP", _encode, _decode)
