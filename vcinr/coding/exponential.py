"""The exponential of pointwise-relative bounds, the same bits on every processor.

The exponentials of libraries differ by a unit in the last place between processors, since each vector width has code of
its own. This one uses IEEE 754 addition, subtraction and multiplication one by one in a fixed order, never fused: the
argument is reduced by a multiple of ln 2 in two parts (Cody & Waite 1980, "Software Manual for the Elementary
Functions", chapter 6), and the Taylor polynomial of degree 13 is evaluated by Horner's rule. The relative error is below
2^-52.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
"""ln 2 in two parts: the first has so few bits that its products with whole numbers below 2^21 are exact."""
COEFFICIENTS = np.array([1.0 / math.factorial(n) for n in range(13, -1, -1)])
"""1 / n! rounded to float64, from n = 13 down to 0."""
LIMIT = 1400.0
"""Arguments are cut here; what lies beyond 745 gives infinity or zero in any case."""
_POWERS = np.array([math.ldexp(1.0, k) for k in range(-1022, 1024)])


@njit(cache=True, nogil=True, error_model="numpy")
def exponentiate(values: np.ndarray) -> None:
    """Replace each of `values` (float64, one dimension) by its exponential.

    Notes
    -----
    Overflow gives infinity, underflow subnormal numbers and zero. NaN gives zero: a damaged stream must not decide how
    a processor converts it to an integer.
    """
    for i in range(values.size):
        x = values[i]
        if not x > -LIMIT:
            x = -LIMIT
        if x > LIMIT:
            x = LIMIT
        k = math.floor(x * LOG2_E + 0.5)  # Numba: an integer
        r = (x - k * LN2_HIGH) - k * LN2_LOW
        y = 0.0
        for n in range(COEFFICIENTS.size):
            y = y * r + COEFFICIENTS[n]
        half = k >> 1  # in two steps, since neither 2^1024 nor a subnormal power must spoil the product
        values[i] = y * _POWERS[half + 1022] * _POWERS[k - half + 1022]
