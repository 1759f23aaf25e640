"""Measures of quality."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def psnr_db(peak: float, squared_error: float, count: int) -> float:
    """PSNR in dB of a sum of squared errors over `count` values, for a peak in the units of the values.

    The logarithms are taken one by one, so that nothing overflows.
    """
    return 20 * math.log10(peak) - 10 * math.log10(squared_error / count)


def psnr_of(mse: ArrayLike) -> np.ndarray:
    """PSNR in dB of mean squared errors of values whose peak is 1, as normalised signals have; at most 120 dB."""
    return -10 * np.log10(np.maximum(mse, 1e-12))
