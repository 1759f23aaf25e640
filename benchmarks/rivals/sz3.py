"""SZ3: prediction by interpolation or Lorenzo's rule, quantisation, Huffman and Zstandard (Liang et al. 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pysz

from benchmarks.rivals.base import Rival, at_most_4d, checked


def compress(algorithm: str, values: np.ndarray, abs_error: float) -> bytes:
    """Return the stream of `values` as they are, without any check."""
    config = pysz.szConfig(values.shape)
    config.errorBoundMode = pysz.szErrorBoundMode.ABS
    config.absErrorBound = abs_error
    config.cmprAlgo = getattr(pysz.szAlgorithm, algorithm)
    return pysz.sz.compress(values, config)[0].tobytes()


def _decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    values, _ = pysz.sz.decompress(np.frombuffer(data, np.uint8), dtype, at_most_4d(shape))
    return values.reshape(shape)


def _setting(algorithm: str) -> Rival:
    def encode(values: np.ndarray, abs_error: float) -> bytes:
        values = checked(values, abs_error)
        return compress(algorithm, values.reshape(at_most_4d(values.shape)), abs_error)

    return Rival(f"SZ3 {algorithm}", encode, _decode)


ALGORITHMS = ("INTERP_LORENZO", "INTERP", "LORENZO_REG")
SZ3 = tuple(map(_setting, ALGORITHMS))
