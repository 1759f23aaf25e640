"""Measures of quality."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def psnr_db(peak: float, squared_error: float, count: int) -> float:
    """PSNR in dB, from a sum of squared errors.

    Parameters
    ----------
    peak : float
        The peak, in the units of the values.
    squared_error : float
        The sum of squared errors, which must be above 0.
    count : int
        The number of values.
    """
    # Two logarithms, because the square of the peak might overflow.
    return 20 * math.log10(peak) - 10 * math.log10(squared_error / count)


def psnr_of(mse: ArrayLike) -> np.ndarray:
    """PSNR in dB, at most 120, from mean squared errors of normalised signals, whose peak is 1."""
    return -10 * np.log10(np.maximum(mse, 1e-12))
