"""The exponential function for pointwise relative bounds, with the same bits on every processor.

The exponentials of libraries differ by a unit in the last place between processors, since each vector width has code of
its own. This one uses IEEE 754 addition, subtraction and multiplication one by one in a fixed order, never fused. The
argument is reduced by a multiple of ln 2, which is split into two parts (Cody & Waite 1980, "Software Manual for the
Elementary Functions", chapter 6). Then the Taylor polynomial of degree 13 is evaluated by Horner's rule. The relative
error is below 2^-51.
"""

from __future__ import annotations

import math

import numpy as np

from vcinr.compiled import outer

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
"""ln 2 in two parts. The first has so few bits that its products with integers below 2^21 are exact."""
COEFFICIENTS = np.array([1.0 / math.factorial(n) for n in range(13, -1, -1)])
"""1 / n! rounded to float64, from n = 13 down to 0."""
LIMIT = 1400.0
"""Arguments are clipped to this magnitude; those beyond 745 give infinity or zero in any case."""
_POWERS = np.array([math.ldexp(1.0, k) for k in range(-1022, 1024)])


@outer
def exponentiate(values: np.ndarray) -> None:
    """Replace numbers by their exponentials.

    Parameters
    ----------
    values : numpy.ndarray
        float64, one-dimensional; changed in place.

    Notes
    -----
    Overflow gives infinity; underflow gives subnormal numbers and zero. NaN gives zero, because the result for a
    damaged stream must not depend on how a processor converts NaN to an integer.
    """
    for i in range(values.size):
        x = values[i]
        if not x > -LIMIT:
            x = -LIMIT
        if x > LIMIT:
            x = LIMIT
        k = math.floor(x * LOG2_E + 0.5)  # an integer, in Numba too
        r = (x - k * LN2_HIGH) - k * LN2_LOW
        y = 0.0
        for n in range(COEFFICIENTS.size):
            y = y * r + COEFFICIENTS[n]
        half = k >> 1  # in two factors: 2^k itself may overflow or be subnormal where the product is neither
        values[i] = y * _POWERS[half + 1022] * _POWERS[k - half + 1022]
