"""Which prior and which plan take the fewest bytes, and which absolute bound meets a PSNR or a rate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from vcinr.codec.latents import SHORT, SLOWER, Latents
from vcinr.codec.promise import Bound
from vcinr.codec.trial import Candidate, Prior, Trial, constant_prior, cost_of
from vcinr.coding.residual import CODERS, Plan, coder_of

_RARE = 0.002  # of the values outside the bound: rows of zeros are coded in no time
_HOPELESS = 1.04  # times the bytes of the best: fewer latents still will not be better
_BEHIND = 1.2  # times the bytes of the best: a plan whose first try is that far behind is not improved
_WORTH = 4  # bytes that it is worth to decode half as many latents, or no residual
_COMMON = 0.02  # of a sample of the values that are equal: it is worth to be the constant
_FAST = tuple(c for c in CODERS if c.estimate is not None)
_THOROUGH = tuple(c for c in CODERS if c.estimate is None)
_PREDICTING = tuple(c for c in _THOROUGH if c.predicts)
_RAW = tuple(c for c in _THOROUGH if not c.predicts)
"""Coders that code values as they are: for what has been predicted already, and for sparse fields."""


# --- one bound


def best_candidate(trial: Trial, latents: Latents | None) -> Candidate | None:
    """The smallest candidate; None when only lossless coding will do."""
    if not trial.possible:
        return None
    best = None if latents is None else _best_latents(trial, latents)
    if latents is not None and latents.rate is not None:
        return best
    mean, common = _constants(trial)
    priors = {value: constant_prior(trial.target.shape, value) for value in {mean, common}}
    for value, coder in [*((mean, c) for c in _PREDICTING), *((common, c) for c in _RAW)]:
        prior, plan = priors[value], coder.first
        if best is not None and trial.cost_of_start(prior, plan) > _BEHIND * best.cost:
            continue
        candidate = trial.code(prior, plan)
        if cost_of(candidate) < _BEHIND * cost_of(best):
            best = min(best, _improved(trial, prior, plan, candidate), key=cost_of)
    for prior, coder in itertools.product(priors.values(), _FAST):  # quickly tried; smaller where codes are large
        best = min(best, trial.code(prior, trial.estimate(prior, coder)[0]), key=cost_of)
    return best


def quick_candidate(trial: Trial, latents: Latents | None) -> Candidate | None:
    """One candidate: the model where it should take fewer bytes, else a constant; None as for `best_candidate`."""
    if not trial.possible:
        return None
    choice = None if latents is None else latents.cheapest(trial)

    def predicted() -> Candidate | None:
        assert latents is not None and choice is not None
        coder = _RAW[0] if choice.share < _RARE else _FAST[0]
        return trial.code(latents.prior(trial, choice.rate, choice.length, for_bound=False), coder.first)

    if choice is not None:
        if latents is not None and latents.rate is not None:
            return predicted()
        if choice.share < _RARE and choice.length <= SHORT and (candidate := predicted()) is not None:
            return candidate
    constant = constant_prior(trial.target.shape, _constants(trial)[1])
    plan, size = min((trial.estimate(constant, c) for c in _FAST), key=lambda estimated: estimated[1])
    wins = choice is not None and choice.bits * (SLOWER if choice.length > SHORT else 1.0) < 8 * size
    return (predicted() if wins else None) or trial.code(constant, plan) or trial.code(constant, _PREDICTING[0].first)


def _constants(trial: Trial) -> tuple[float, float]:
    """The mean as a float32, and what many values are equal to exactly (zero in a field of rain), else the mean."""
    values = trial.valid_of(trial.target)
    mean = float(np.float32(values.mean() if values.size else 0.0))
    different, counts = np.unique(values[:: max(1, len(values) // 10_000)], return_counts=True)
    if not len(different) or counts.max() < _COMMON * counts.sum():
        return mean, mean
    common = float(different[np.argmax(counts)])
    return mean, common if common == float(np.float32(common)) else mean


def _best_latents(trial: Trial, latents: Latents) -> Candidate | None:
    """The best of the model's priors: ordered by rate, their sizes have one minimum, or one worse on the way to it."""
    rates, tolerance = latents.rates, trial.tolerance
    assert tolerance is not None
    start, end = 0, len(rates) - 1
    while start < end:  # the coarsest rate whose error is well within the bound: near the best, as a rule
        middle = (start + end) // 2
        start, end = (middle + 1, end) if latents.error(trial, rates[middle]) > tolerance / 4 else (start, middle)
    plans = [c.first for c in (*_RAW, *_PREDICTING)]
    priors = {start: latents.prior(trial, rates[start])}
    tried = {(start, plans[0]): trial.code(priors[start], plans[0])}
    if cost_of(tried[start, plans[0]]) > 1.5 * len(priors[start].stream):
        tried |= {(start, other): trial.code(priors[start], other) for other in plans[1:]}
    plan = min(plans, key=lambda p: cost_of(tried.get((start, p))))
    for way in (-1, 1):
        k, best, worse = start + way, cost_of(tried[start, plan]), 0
        while 0 <= k < len(rates) and worse < 2:
            priors[k] = latents.prior(trial, rates[k])
            tried[k, plan] = trial.code(priors[k], plan)
            worse = 0 if cost_of(tried[k, plan]) < best else worse + 1
            best = min(best, cost_of(tried[k, plan]))
            k += way
    (k, plan), candidate = min(tried.items(), key=lambda item: cost_of(item[1]))
    if candidate is None:
        return None
    prior, others = priors[k], [p for p in plans if (k, p) not in tried]
    for length in latents.lengths:
        shorter = latents.prior(trial, rates[k], length)
        coded = trial.code(shorter, plan)
        if cost_of(coded) > _HOPELESS * candidate.cost:
            break
        worth = -_WORTH if candidate.plan is None and coded is not None and coded.plan is not None else _WORTH
        if coded is not None and coded.cost <= candidate.cost + worth:
            prior, candidate = shorter, coded
    if candidate.plan is None:
        return candidate
    return min([_improved(trial, prior, plan, candidate), *(trial.code(prior, p) for p in others)], key=cost_of)


def _improved(trial: Trial, prior: Prior, plan: Plan, best: Candidate | None) -> Candidate | None:
    """The smallest stream after changing one entry of the plan at a time; `best` is the one under `plan`."""
    if best is None or best.plan is None:
        return best
    for name, values in coder_of(plan).variations.items():
        for value in values:
            change: dict[str, Any] = {name: value}
            candidate = trial.code(prior, replace(plan, **change))
            if cost_of(candidate) >= cost_of(best):
                break
            best, plan = candidate, replace(plan, **change)
    return best


# --- a target for the whole chunk


class Coded(Protocol):
    """What the searches below look at of an encoded chunk."""

    @property
    def data(self) -> bytes:
        """Its bytes."""

    @property
    def squared_error(self) -> float:
        """Sum over the valid values."""

    @property
    def valid(self) -> int:
        """How many values are valid."""

    @property
    def mode(self) -> str:
        """Begins with ``prior`` where a model was used."""


_C = TypeVar("_C", bound=Coded)


@dataclass(frozen=True)
class PsnrTarget:
    """Of a chunk whose valid values span `spread` and whose model, if any, has so many `rates` and that `slack`."""

    bound: Bound
    spread: float
    rates: int
    slack: float


def meet_psnr(
    target: PsnrTarget, at_rate: Callable[[int], _C], at_error: Callable[[float], _C], exact: Callable[[], _C]
) -> _C:
    """The smaller of two that meet the PSNR: the prior alone at the coarsest rate, and the coarsest absolute bound.

    The bound is found within a few per cent, by repeated encoding.
    """
    bound, spread = target.bound, target.spread
    allowed = bound.peak**2 * 10 ** (-bound.value / 10)

    def room(encoded: _C) -> float:
        rms = math.sqrt(encoded.squared_error / max(1, encoded.valid))
        return allowed / max((rms + (target.slack if encoded.mode.startswith("prior") else 0.0)) ** 2, 1e-300)

    best, first, last = None, 0, target.rates
    while first < last:
        middle = (first + last) // 2
        encoded = at_rate(middle)
        if room(encoded) >= 1:
            best, last = encoded, middle
        else:
            first = middle + 1
    error, met = min(math.sqrt(3 * allowed), spread), False
    for _ in range(12):
        encoded = at_error(error)
        ratio = room(encoded)
        met |= ratio >= 1
        if ratio >= 1 and (best is None or len(encoded.data) < len(best.data)):
            best = encoded
        if met and (ratio < 1.06 or error >= spread):
            break
        error = min(error * min(max(0.98 * math.sqrt(ratio), 0.25), 3.0), spread)
    return best or exact()


def meet_rate(at_error: Callable[[float], _C], allowed: float, spread: float) -> _C:
    """The finest absolute bound whose chunk has at most `allowed` bytes, else the coarsest; by bisection."""
    low, high = spread * 2.0**-40, spread
    best = at_error(high)
    if len(best.data) > allowed:
        return best
    for _ in range(14):
        middle = math.sqrt(low * high)
        encoded = at_error(middle)
        if len(encoded.data) <= allowed:
            best, high = encoded, middle
        else:
            low = middle
    return best
