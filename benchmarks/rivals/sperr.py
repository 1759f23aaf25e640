"""SPERR: a wavelet transform with set partitioning, and a correction of outliers (Li, Lindstrom & Clyne 2023)."""

from __future__ import annotations

import math
from typing import Any

import imagecodecs
import numpy as np

from benchmarks.rivals.base import Rival, checked


def compress(values: np.ndarray, abs_error: float) -> bytes:
    """Return the stream of `values` as they are, without any check."""
    return bytes(imagecodecs.sperr_encode(values, abs_error, "pwe", numthreads=1))


def _plane_or_volume(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` with two or three axes; SPERR aborts on a volume whose first axis has length 1."""
    long = [n for n in shape if n > 1]
    if len(long) < 2:
        return (1, math.prod(shape))
    return (math.prod(long[:-2]), *long[-2:]) if len(long) > 3 else tuple(long)


def _encode(values: np.ndarray, abs_error: float) -> bytes:
    values = checked(values, abs_error)
    return compress(values.reshape(_plane_or_volume(values.shape)), abs_error)


def _encode_rms(values: np.ndarray, rms: float) -> bytes:
    values = checked(values, rms)
    spread = float(values.max()) - float(values.min())
    psnr = 20 * math.log10(spread / rms) if spread > 0 else 100.0
    planes = values.reshape(_plane_or_volume(values.shape))
    return bytes(imagecodecs.sperr_encode(planes, max(psnr, 1.0), "psnr", numthreads=1))


def _decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    # The decoder of planes may read a little beyond the stream, so there is memory behind it.
    stream: Any = memoryview(data + bytes(64))[: len(data)]
    return imagecodecs.sperr_decode(stream, numthreads=1).astype(dtype, copy=False).reshape(shape)


SPERR = Rival("SPERR", _encode, _decode)
SPERR_RMS = Rival("SPERR psnr", _encode_rms, _decode, "rms")
