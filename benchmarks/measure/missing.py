"""How an array with missing cells came back from a codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

HELD, BROKE, MOVED = "held", "broke bound", "missing positions changed"
"""Outcomes: all is well; a valid value is outside the bound; a missing cell is elsewhere or another one."""


def fill_cells(values: np.ndarray, fills: Sequence[float]) -> np.ndarray:
    """Return where `values` are one of `fills`, each taken as a number of the array's own dtype."""
    filled = np.zeros(values.shape, bool)
    for fill in fills:
        filled |= values == np.asarray(fill).astype(values.dtype)
    return filled


def valid_cells(values: np.ndarray, fills: Sequence[float]) -> np.ndarray:
    """Return where `values` are finite and none of `fills`: where a bound is promised."""
    return np.isfinite(values) & ~fill_cells(values, fills)


def judge(original: np.ndarray, decoded: np.ndarray, bound: float, fills: Sequence[float] = ()) -> dict[str, Any]:
    """Compare an array with missing cells with what was decoded.

    Parameters
    ----------
    original, decoded : np.ndarray
        The array and what a codec made of it.
    bound : float
        Absolute error allowed where a value is valid.
    fills : sequence of float
        Values that stand for missing, besides NaN and infinities.

    Returns
    -------
    dict
        ``outcome``: `HELD`, `BROKE`, `MOVED` or "error"; ``outside``: number of valid values further than `bound` from
        the original; ``not_finite``: how many of these are no finite numbers; ``bound_ratio``: the largest error of the
        finite ones, divided by the bound; ``positions``: whether NaN, both infinities and the fill values are exactly
        where they were, fill values bit by bit; ``positions_exact``: whether all of them are.
    """
    if decoded.shape != original.shape or decoded.dtype != original.dtype:
        message = f"decoded to {decoded.dtype}{decoded.shape} instead of {original.dtype}{original.shape}"
        return {"outcome": "error", "message": message}
    valid = valid_cells(original, fills)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(original[valid].astype(np.float64) - decoded[valid].astype(np.float64))
    finite = np.isfinite(decoded[valid])
    outside = int((~(error <= bound)).sum())  # an error of NaN is outside
    filled = fill_cells(original, fills)
    positions = {
        "nan": np.array_equal(np.isnan(original), np.isnan(decoded)),
        "+inf": np.array_equal(original == np.inf, decoded == np.inf),
        "-inf": np.array_equal(original == -np.inf, decoded == -np.inf),
        "fill": np.array_equal(filled, fill_cells(decoded, fills))
        and original[filled].tobytes() == decoded[filled].tobytes(),
    }
    return {
        "outcome": BROKE if outside else HELD if all(positions.values()) else MOVED,
        "outside": outside,
        "not_finite": int((~finite).sum()),
        "bound_ratio": float(error[finite].max(initial=0.0)) / bound if bound else None,
        "positions_exact": all(positions.values()),
        "positions": positions,
    }
