"""Search for the prior and plan that need the fewest bytes, and for the absolute bound that meets a PSNR or a rate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from vcinr.codec.latents import SHORT, SLOWER
from vcinr.codec.promise import Bound
from vcinr.codec.trial import Candidate, Prior, Priors, Trial, constant_prior, cost_of
from vcinr.coding.residual import CODERS, Plan, ResidualCoder, coder_of

_RARE = 0.002
"""Share of values outside the bound up to which the residual is nearly all zeros, so that any coder decodes it fast."""
_HOPELESS = 1.04
"""Factor on the fewest bytes so far: where a number of latents needs more than that, even fewer are not tried."""
_BEHIND = 1.2
"""Factor on the fewest bytes so far: a plan that needs more than that at its first try is not improved."""
_WORTH = 4
"""Bytes that may be spent to make decoding faster by using fewer latents, or no residual."""
_COMMON = 0.02
"""Share of equal values in a sample from which on their value is taken as the constant prior."""
_FAST = tuple(c for c in CODERS if c.estimate is not None)
_THOROUGH = tuple(c for c in CODERS if c.estimate is None and not c.needs_positions)
_SCATTERED = tuple(c for c in CODERS if c.needs_positions)
_PREDICTING = tuple(c for c in _THOROUGH if c.predicts)
_RAW = tuple(c for c in _THOROUGH if not c.predicts)
"""Coders that do not predict values: they suit sparse fields, and what a model has predicted already."""


# --- one bound


def best_candidate(trial: Trial, latents: Priors | None) -> Candidate | None:
    """Find the candidate that needs the fewest bytes.

    Parameters
    ----------
    trial : Trial
        The chunk and its tolerance.
    latents : Priors or None
        The priors of a model. Where they prescribe a rate, no constant priors are tried.

    Returns
    -------
    Candidate or None
        None where only lossless coding is possible.
    """
    if not trial.possible:
        return None
    best = None if latents is None else _best_latents(trial, latents)
    if latents is not None and latents.rate is not None:
        return best
    mean, common = _constants(trial)
    priors = {value: constant_prior(trial.target.shape, value) for value in {mean, common}}
    for value, coder in [*((mean, c) for c in _predicting(trial)), *((common, c) for c in _RAW)]:
        prior, plan = priors[value], coder.first
        if best is not None and trial.cost_of_start(prior, plan) > _BEHIND * best.cost:
            continue
        candidate = trial.code(prior, plan)
        if cost_of(candidate) < _BEHIND * cost_of(best):
            best = min(best, _improved(trial, prior, plan, candidate), key=cost_of)
    # The fast coders cost little time, and need fewer bytes than the others where codes are large.
    for prior, coder in itertools.product(priors.values(), _FAST):
        best = min(best, trial.code(prior, trial.estimate(prior, coder)[0]), key=cost_of)
    return best


def quick_candidate(trial: Trial, latents: Priors | None) -> Candidate | None:
    """Choose a candidate from estimates, without coding the chunk several times.

    It uses the model where that should need fewer bytes, and else a constant. Parameters and result are those of
    `best_candidate`.
    """
    if not trial.possible:
        return None
    choice = None if latents is None else latents.cheapest(trial)

    def by_model() -> Candidate | None:
        assert latents is not None and choice is not None
        coder = _RAW[0] if choice.share < _RARE else _FAST[0]
        return trial.code(latents.make_prior(trial, choice.rate, choice.length, for_bound=False), coder.first)

    if choice is not None:
        if latents is not None and latents.rate is not None:
            return by_model()
        if choice.share < _RARE and choice.length <= SHORT and (candidate := by_model()) is not None:
            return candidate
    constant = constant_prior(trial.target.shape, _constants(trial)[1])
    plan, size = min((trial.estimate(constant, c) for c in _FAST), key=lambda estimated: estimated[1])
    if trial.positions is not None and choice is None:  # fast coders take rows for neighbours, which these are not
        scattered = min((trial.code(constant, c.first) for c in _SCATTERED), key=cost_of)
        if cost_of(scattered) < size:
            return scattered
    smaller = choice is not None and choice.bits * (SLOWER if choice.length > SHORT else 1.0) < 8 * size
    return (by_model() if smaller else None) or trial.code(constant, plan) or trial.code(constant, _PREDICTING[0].first)


def _predicting(trial: Trial) -> tuple[ResidualCoder, ...]:
    """The thorough coders that predict values of these, those for scattered points first."""
    return _PREDICTING if trial.positions is None else (*_SCATTERED, *_PREDICTING)


def _constants(trial: Trial) -> tuple[float, float]:
    """Two constants that may serve as priors, exact in float32: the mean, and the most common value.

    The most common value is one that many values equal exactly, such as zero in a field of rain. Where there is no such
    value, or float32 cannot hold it, the mean is given twice.
    """
    values = trial.valid_of(trial.target)
    mean = float(np.float32(values.mean() if values.size else 0.0))
    distinct, counts = np.unique(values[:: max(1, len(values) // 10_000)], return_counts=True)
    if not len(distinct) or counts.max() < _COMMON * counts.sum():
        return mean, mean
    common = float(distinct[np.argmax(counts)])
    return mean, common if common == float(np.float32(common)) else mean


def _best_latents(trial: Trial, latents: Priors) -> Candidate | None:
    """The best candidate with one of the model's priors.

    From a likely rate, the search goes to coarser and to finer ones until two in a row need more bytes: in order of the
    rates, sizes fall to one minimum and rise again, with at most one exception on the way. Then it tries fewer latents
    and other plans at the best rate.
    """
    rates, tolerance = latents.rates, trial.tolerance
    assert tolerance is not None
    start, end = 0, len(rates) - 1
    # Bisection for the coarsest rate whose error is well within the bound: the best rate is usually near it.
    while start < end:
        middle = (start + end) // 2
        start, end = (middle + 1, end) if latents.error(trial, rates[middle]) > tolerance / 4 else (start, middle)
    plans = [c.first for c in (*_RAW, *_predicting(trial))]
    priors = {start: latents.make_prior(trial, rates[start])}
    tried = {(start, plans[0]): trial.code(priors[start], plans[0])}
    # Where the residual needs more than half the bytes of the latents, it matters which plan codes it.
    if cost_of(tried[start, plans[0]]) > 1.5 * len(priors[start].stream):
        tried |= {(start, other): trial.code(priors[start], other) for other in plans[1:]}
    plan = min(plans, key=lambda p: cost_of(tried.get((start, p))))
    for direction in (-1, 1):
        k, best, worse = start + direction, cost_of(tried[start, plan]), 0
        while 0 <= k < len(rates) and worse < 2:
            priors[k] = latents.make_prior(trial, rates[k])
            tried[k, plan] = trial.code(priors[k], plan)
            worse = 0 if cost_of(tried[k, plan]) < best else worse + 1
            best = min(best, cost_of(tried[k, plan]))
            k += direction
    (k, plan), candidate = min(tried.items(), key=lambda item: cost_of(item[1]))
    if candidate is None:
        return None
    prior, untried = priors[k], [p for p in plans if (k, p) not in tried]
    for length in latents.lengths:
        shorter = latents.make_prior(trial, rates[k], length)
        coded = trial.code(shorter, plan)
        if cost_of(coded) > _HOPELESS * candidate.cost:
            break
        needs_residual = candidate.plan is None and coded is not None and coded.plan is not None
        allowance = -_WORTH if needs_residual else _WORTH
        if coded is not None and coded.cost <= candidate.cost + allowance:
            prior, candidate = shorter, coded
    if candidate.plan is None:
        return candidate
    return min([_improved(trial, prior, plan, candidate), *(trial.code(prior, p) for p in untried)], key=cost_of)


def _improved(trial: Trial, prior: Prior, plan: Plan, best: Candidate | None) -> Candidate | None:
    """Improve a plan by changing one entry at a time, as long as that saves bytes.

    `best` is the candidate under `plan`; the result is the best candidate of all.
    """
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
    """The attributes of an encoded chunk that the searches below need."""

    @property
    def data(self) -> bytes:
        """The chunk's bytes."""

    @property
    def squared_error(self) -> float:
        """Sum of the squared errors of the valid values."""

    @property
    def valid(self) -> int:
        """Number of valid values."""

    @property
    def mode(self) -> str:
        """How the chunk is coded; the text begins with ``prior`` where a model was used."""


_C = TypeVar("_C", bound=Coded)


@dataclass(frozen=True)
class PsnrTarget:
    """A PSNR to reach, and what `meet_psnr` needs to know of the chunk.

    Attributes
    ----------
    bound : Bound
        The bound, whose kind is "psnr".
    spread : float
        The difference between the largest and the smallest valid value.
    rates : int
        Number of rates at which the model's prior alone may be tried; 0 without a model.
    slack : float
        How much another machine's evaluation of the model may differ, in the units of the values.
    halving : float
        By how many rates the squared error halves, about; 0 where that is not known.
    """

    bound: Bound
    spread: float
    rates: int
    slack: float
    halving: float = 0.0

    @property
    def allowed(self) -> float:
        """The largest mean squared error."""
        return float(self.bound.peak**2 * 10 ** (-self.bound.value / 10))

    @property
    def error(self) -> float:
        """The absolute bound at which errors that are uniform within it have the largest mean squared error."""
        return math.sqrt(3 * self.allowed)

    def room(self, encoded: Coded) -> float:
        """The factor by which the mean squared error of a chunk may still grow, the model's slack considered."""
        rms = math.sqrt(encoded.squared_error / max(1, encoded.valid))
        return self.allowed / max((rms + (self.slack if encoded.mode.startswith("prior") else 0.0)) ** 2, 1e-300)


def meet_psnr(
    target: PsnrTarget, at_rate: Callable[[int], _C], at_error: Callable[[float], _C], exact: Callable[[], _C]
) -> _C:
    """Encode a chunk so that it has a PSNR in few bytes.

    The result is the smaller of two that reach the PSNR: the prior alone at the coarsest possible rate, and the
    coarsest possible absolute bound, which repeated encoding finds to within a few per cent.

    Parameters
    ----------
    target : PsnrTarget
        What is to be reached.
    at_rate : callable
        Encodes the chunk with the prior of a rate alone.
    at_error : callable
        Encodes the chunk with an absolute bound, as a step for the mean squared error.
    exact : callable
        Encodes the chunk without any error, for a PSNR that nothing else reaches.
    """
    spread = target.spread
    best = coarsest_rate(target, at_rate)
    error, met = min(target.error, spread), False
    for _ in range(12):
        encoded = at_error(error)
        ratio = target.room(encoded)
        met |= ratio >= 1
        if ratio >= 1 and (best is None or len(encoded.data) < len(best.data)):
            best = encoded
        if met and (ratio < 1.06 or error >= spread):
            break
        error = min(error * min(max(0.98 * math.sqrt(ratio), 0.25), 3.0), spread)
    return best or exact()


def coarsest_rate(target: PsnrTarget, at_rate: Callable[[int], _C]) -> _C | None:
    """Encode a chunk with a prior alone, at the coarsest rate that reaches a PSNR.

    Parameters
    ----------
    target : PsnrTarget
        What is to be reached.
    at_rate : callable
        Encodes the chunk with the prior of a rate alone.

    Returns
    -------
    Coded or None
        None where no rate reaches the PSNR.
    """
    best, first, last = None, 0, target.rates
    middle = last // 2
    while first < last:
        encoded = at_rate(middle)
        ratio = target.room(encoded)
        if ratio >= 1:
            best, last = encoded, middle
        else:
            first = middle + 1
        likely = middle - target.halving * math.log2(max(ratio, 1e-30)) if target.halving else (first + last) / 2
        middle = min(max(math.floor(likely), first), last - 1)
    return best


def meet_rate(at_error: Callable[[float], _C], allowed: float, spread: float) -> _C:
    """Encode a chunk with the finest absolute bound that a number of bytes allows, which bisection finds.

    Parameters
    ----------
    at_error : callable
        Encodes the chunk with an absolute bound.
    allowed : float
        The largest number of bytes.
    spread : float
        The coarsest bound to try. Where even it needs more bytes, its chunk is returned.
    """
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


def finest_rate(at_rate: Callable[[int], _C], allowed: float, rates: int) -> _C:
    """Encode a chunk with a prior alone, at the finest of its rates that a number of bytes allows.

    Parameters
    ----------
    at_rate : callable
        Encodes the chunk with the prior of a rate alone.
    allowed : float
        The largest number of bytes. Where even the coarsest rate needs more, its chunk is returned.
    rates : int
        Number of rates.
    """
    best, first, last = at_rate(0), 0, rates - 1
    if len(best.data) > allowed:
        return best
    while first < last:
        middle = (first + last + 1) // 2
        encoded = at_rate(middle)
        if len(encoded.data) <= allowed:
            best, first = encoded, middle
        else:
            last = middle - 1
    return best
