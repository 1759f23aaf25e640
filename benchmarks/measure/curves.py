"""Curves of rate against PSNR: means over signals, and their rates at given PSNRs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

Point = Mapping[str, Any]
"""A point of a curve, with at least ``psnr_db`` and a rate."""


def psnr(original: np.ndarray, decoded: np.ndarray, peak: float) -> float:
    """Return the PSNR of one signal in dB; infinite where nothing differs."""
    error = float(np.square(np.asarray(original, np.float64) - np.asarray(decoded, np.float64)).mean())
    return 10 * math.log10(peak**2 / error) if error > 0 else math.inf


def mean_psnr(originals: Sequence[np.ndarray], decoded: Sequence[np.ndarray], peak: float, most: float = 100) -> float:
    """Return the mean of signals' PSNRs, each of which counts for `most` dB at most."""
    return fmean(min(most, psnr(a, b, peak)) for a, b in zip(originals, decoded, strict=True))


def rate_at(points: Sequence[Point], target: float, key: str = "rate") -> float | None:
    """Return the rate of a curve at a PSNR, by a straight line through the logarithms of the rates on both sides.

    Parameters
    ----------
    points : sequence of mapping
        In any order.
    target : float
        PSNR in dB.
    key : str
        Which of the points' rates.

    Returns
    -------
    float or None
        None where the curve does not reach from below `target` to above it: nothing is extrapolated.
    """
    known = sorted((p["psnr_db"], p[key]) for p in points if p.get(key) is not None and p[key] > 0)
    for (low, first), (high, second) in pairwise(known):
        if low <= target <= high:
            share = (target - low) / (high - low) if high > low else 0.0
            return float(math.exp((1 - share) * math.log(first) + share * math.log(second)))
    return None


def paid_after(model_bytes: int, ours: float | None, rival: float | None) -> float | None:
    """Return after how many units of data a model's bytes are won back, from rates in bits a unit; None for never."""
    if ours is None or rival is None or rival <= ours:
        return None
    return 8 * model_bytes / (rival - ours)
