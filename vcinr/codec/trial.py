"""Trials: a chunk coded under one prior and one residual plan. The search compares them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from vcinr.codec.chunk import Sections, constant_section, residual_section
from vcinr.coding import residual
from vcinr.coding.neighbours import Positions
from vcinr.coding.residual import Plan, ResidualCoder

LARGEST = 1e30
"""Chunks with larger magnitudes are coded losslessly, because their means and differences may overflow."""
_DEAD = 0.25
"""Fraction of a step by which residuals are moved towards zero where the mean squared error counts: for a peaked
distribution, a quantiser with such a dead zone needs fewer bits (Sullivan 1996, uniform threshold quantisers)."""


@dataclass(frozen=True, eq=False)
class Prior:
    """A prediction of a chunk's signals, from decoded latents or as a constant; the residual coder codes the rest.

    Attributes
    ----------
    rate : int or None
        The rate of the model's quantiser; None for a constant.
    values : numpy.ndarray
        The prediction ``[n, *signal]``, float64.
    sections : Sections
        The sections by which a chunk states the prior.
    stream : bytes
        The latents' bitstream; empty for a constant.
    slack : float
        How much another machine's decoder may differ from `values`, in the units of the stored numbers.
    """

    rate: int | None
    values: np.ndarray
    sections: Sections
    stream: bytes
    slack: float


def constant_prior(shape: tuple[int, ...], value: float) -> Prior:
    """The prior that predicts the same number everywhere."""
    return Prior(None, np.broadcast_to(np.float64(value), shape), constant_section(value), b"", 0.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to code a chunk.

    Attributes
    ----------
    rate : int or None
        The rate of the model's quantiser; None where the prior is a constant.
    plan : Plan or None
        The plan of the residual coder; None without a residual.
    sections : Sections
        The sections of the prior and of the residual.
    stream : bytes
        The latents' bitstream.
    """

    rate: int | None
    plan: Plan | None
    sections: Sections
    stream: bytes

    @property
    def cost(self) -> int:
        """Bytes of its sections and its stream, without those that all candidates share."""
        return len(self.stream) + self.sections.cost


def cost_of(candidate: Candidate | None) -> float:
    """`Candidate.cost`, or infinity for None, so that candidates can be compared whether they exist or not."""
    return math.inf if candidate is None else candidate.cost


def prior_alone(prior: Prior) -> Candidate:
    """The candidate that consists of a prior without a residual."""
    return Candidate(prior.rate, None, prior.sections, prior.stream)


@dataclass(frozen=True, eq=False)
class Trial:
    """The signals of a chunk and their tolerance, to be coded under one prior and plan after another.

    Parameters
    ----------
    target : numpy.ndarray
        The signals ``[n, *signal]``, float64.
    valid : numpy.ndarray
        bool, of the same shape: which values have to be within the tolerance.
    planes : tuple of int
        The shape (T, C, H, W) in which the residual coder sees the target.
    signals : (int, int)
        The times T and levels C of the signals.
    tolerance : float or None
        The error that the reconstruction may have; None where only the prior is wanted, without a residual.
    largest : float
        The largest magnitude of a valid value.
    mean : bool
        Whether it is the mean squared error that counts. The tolerance then only sets the residual coder's step, and
        single values may miss it.
    positions : Positions, optional
        Where the points of a signal lie, for residual coders that need to know.
    """

    target: np.ndarray
    valid: np.ndarray
    planes: tuple[int, int, int, int]
    signals: tuple[int, int]
    tolerance: float | None
    largest: float
    mean: bool
    positions: Positions | None = None

    @cached_property
    def whole(self) -> bool:
        """Whether all values are valid."""
        return bool(self.valid.all())

    @cached_property
    def mask(self) -> np.ndarray | None:
        """`valid` in the shape of the planes; None where all values are valid."""
        return None if self.whole else self.valid.reshape(self.planes)

    def valid_of(self, values: np.ndarray) -> np.ndarray:
        """The valid elements of `values` ``[n, *signal]``, in one dimension."""
        return values.ravel() if self.whole else values[self.valid]

    @cached_property
    def possible(self) -> bool:
        """Whether lossy coding is possible: the tolerance is positive, and no valid value is larger than `LARGEST`."""
        assert self.tolerance is not None
        return self.tolerance > 0 and self.largest <= LARGEST

    @cached_property
    def _last(self) -> list[tuple[Prior, np.ndarray]]:
        return []

    def _errors(self, prior: Prior) -> np.ndarray:
        """What a prior leaves ``[n, *signal]``; that of the last prior is kept, as several plans may follow."""
        if not self._last or self._last[0][0] is not prior:
            self._last[:] = [(prior, self.target - prior.values)]
        return self._last[0][1]

    def code(self, prior: Prior, plan: Plan) -> Candidate | None:
        """Code the chunk under a prior and a plan.

        Returns
        -------
        Candidate or None
            None where the prior's slack exceeds the tolerance, or where values are too large for the residual's step.
        """
        assert self.tolerance is not None
        room = self.tolerance - prior.slack
        if room <= 0:
            return None
        errors = self._errors(prior)
        valid_errors = self.valid_of(errors)
        if not valid_errors.size or max(valid_errors.max(), -valid_errors.min()) <= room:
            return prior_alone(prior)  # it keeps the bound already: a residual would only add bytes
        step = 2.0 * room
        if self.mean and not residual.coder_of(plan).predicts:
            errors = np.sign(errors) * np.maximum(np.abs(errors) - _DEAD * step, 0.0)
        try:
            stream, _ = residual.encode(errors.reshape(self.planes), step, plan, self.mask, self.positions)
        except OverflowError:
            return None
        return Candidate(prior.rate, plan, prior.sections | residual_section(step, plan, stream), prior.stream)

    def estimate(self, prior: Prior, coder: ResidualCoder) -> tuple[Plan, float]:
        """Choose a plan for a fast residual coder, and estimate how many bytes the residual takes.

        Returns
        -------
        plan : Plan
            The plan.
        size : float
            The estimated bytes; infinity where values are too large for the coder.
        """
        assert self.tolerance is not None and coder.estimate is not None
        errors = self._errors(prior).reshape(self.planes)
        try:
            return coder.estimate(errors, 2.0 * (self.tolerance - prior.slack), self.mask)
        except OverflowError:
            return coder.first, math.inf

    def cost_of_start(self, prior: Prior, plan: Plan) -> float:
        """The cost of coding only the first quarter of the times, which the whole chunk will exceed.

        It is 0 where there are fewer than four times.
        """
        quarter = self.planes[0] // 4
        if quarter == 0:
            return 0.0
        target, valid, values = (v.reshape(self.planes)[:quarter] for v in (self.target, self.valid, prior.values))
        part = replace(self, target=target, valid=valid, planes=target.shape)
        return cost_of(part.code(replace(prior, values=values), plan))


class Choice(NamedTuple):
    """A rate and a number of latents, with what a sample of the values says about them.

    Choices compare by their first element, `bits`.

    Attributes
    ----------
    bits : float
        Estimated bits of the latents and of the residual.
    rate : int
        The rate of the model's quantiser.
    length : int
        The number of latents; the others are zero.
    share : float
        The share of values that the prior leaves outside the bound.
    """

    bits: float
    rate: int
    length: int
    share: float


class Priors(Protocol):
    """The priors that a model offers for a chunk, as the search sees them.

    Attributes
    ----------
    rate : int or None
        The only rate to try; None for all.
    """

    @property
    def rate(self) -> int | None:
        """The only rate to try; None for all."""

    @property
    def rates(self) -> list[int]:
        """The rates to try, from coarse to fine."""

    @property
    def lengths(self) -> list[int]:
        """Smaller numbers of latents to try."""

    def slack(self, output: np.ndarray) -> float:
        """How much another machine's decoder may differ from `output`, in the data's units."""

    def make_prior(self, trial: Trial, rate: int, length: int | None = None, *, for_bound: bool = True) -> Prior:
        """The prior at a rate, with all latents or the first few, as a decoder will have it."""

    def error(self, trial: Trial, rate: int) -> float:
        """RMS error of the prior at a rate over the valid values, in the data's units."""

    def cheapest(self, trial: Trial) -> Choice | None:
        """The choice that should need the fewest bytes; None where the residual coders should work alone."""
