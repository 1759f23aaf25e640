"""Measures of quality."""

from __future__ import annotations

import math


def psnr_db(peak: float, squared_error: float, count: int) -> float:
    """PSNR in dB of a sum of squared errors over `count` values, for a peak in the units of the values.

    The logarithms are taken one by one, so that nothing overflows.
    """
    return 20 * math.log10(peak) - 10 * math.log10(squared_error / count)
