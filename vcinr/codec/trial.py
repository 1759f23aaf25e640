"""A chunk coded under one prior and one plan: what the search weighs against each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vcinr.codec.chunk import Sections, constant_section, residual_section
from vcinr.coding import residual
from vcinr.coding.residual import Plan, ResidualCoder

LARGEST = 1e30
"""Larger values are coded losslessly: means and differences of them may overflow."""
_DEAD = 0.25
"""For a mean squared error, what the prior leaves counts as smaller by so much of a step: for a peaked distribution, a
quantiser that rounds towards zero takes fewer bits (Sullivan 1996, uniform threshold quantisers with a dead zone)."""


@dataclass(frozen=True, eq=False)
class Prior:
    """What is subtracted before the residual coder: decoded latents, or a constant.

    rate: of the model's quantiser, None for a constant. values: ``[n, *signal]``, float64. sections and stream: how the
    chunk says it. slack: how far another machine's decoder may be off, in the numbers as stored.
    """

    rate: int | None
    values: np.ndarray
    sections: Sections
    stream: bytes
    slack: float


def constant_prior(shape: tuple[int, ...], value: float) -> Prior:
    """The same number everywhere."""
    return Prior(None, np.full(shape, value), constant_section(value), b"", 0.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to code a chunk: the sections that it needs and its stream."""

    rate: int | None
    plan: Plan | None
    sections: Sections
    stream: bytes

    @property
    def cost(self) -> int:
        """Bytes that it takes, but for what all candidates need."""
        return len(self.stream) + self.sections.cost


def cost_of(candidate: Candidate | None) -> float:
    """Bytes that it takes; infinite where there is none."""
    return math.inf if candidate is None else candidate.cost


def prior_alone(prior: Prior) -> Candidate:
    """The prior without a residual."""
    return Candidate(prior.rate, None, prior.sections, prior.stream)


@dataclass(frozen=True, eq=False)
class Trial:
    """Codes a chunk's signals under a prior and a plan.

    Parameters
    ----------
    target : ndarray
        The signals ``[n, *signal]``, float64.
    valid : ndarray
        Which of them are to be within the tolerance, bool.
    planes : tuple of int
        The target as the residual coder sees it, ``[T, C, H, W]``.
    signals : (int, int)
        Times and levels of the signals.
    tolerance : float or None
        What the reconstruction may be off; None where the prior alone is wanted.
    mean : bool
        Whether the mean squared error counts. The tolerance then says how fine to be, and values may miss it.
    """

    target: np.ndarray
    valid: np.ndarray
    planes: tuple[int, int, int, int]
    signals: tuple[int, int]
    tolerance: float | None
    mean: bool

    @cached_property
    def whole(self) -> bool:
        """Whether all values are valid."""
        return bool(self.valid.all())

    @cached_property
    def mask(self) -> np.ndarray | None:
        """`valid` as planes, or None where all values are."""
        return None if self.whole else self.valid.reshape(self.planes)

    def valid_of(self, values: np.ndarray) -> np.ndarray:
        """The valid ones of `values` ``[n, *signal]``, in one dimension."""
        return values.ravel() if self.whole else values[self.valid]

    @cached_property
    def possible(self) -> bool:
        """Whether there is anything but lossless coding."""
        assert self.tolerance is not None
        values = self.valid_of(self.target)
        return self.tolerance > 0 and (not values.size or max(values.max(), -values.min()) <= LARGEST)

    def code(self, prior: Prior, plan: Plan) -> Candidate | None:
        """The chunk under that prior and plan.

        None where values are too large for the step, or the prior's slack for the tolerance.
        """
        assert self.tolerance is not None
        left = self.target - prior.values
        room = self.tolerance - prior.slack
        if room <= 0:
            return None
        counting = self.valid_of(left)
        if not counting.size or max(counting.max(), -counting.min()) <= room:
            return prior_alone(prior)  # a residual could only add to it
        step = 2.0 * room
        if self.mean and not residual.coder_of(plan).predicts:
            left = np.sign(left) * np.maximum(np.abs(left) - _DEAD * step, 0.0)
        try:
            stream, _ = residual.encode(left.reshape(self.planes), step, plan, self.mask)
        except OverflowError:
            return None
        return Candidate(prior.rate, plan, prior.sections | residual_section(step, plan, stream), prior.stream)

    def estimate(self, prior: Prior, coder: ResidualCoder) -> tuple[Plan, float]:
        """A fast coder's plan, and the bytes that it should take: infinitely many where values are too large for it."""
        assert self.tolerance is not None and coder.estimate is not None
        left = (self.target - prior.values).reshape(self.planes)
        try:
            return coder.estimate(left, 2.0 * (self.tolerance - prior.slack), self.mask)
        except OverflowError:
            return coder.first, math.inf

    def cost_of_start(self, prior: Prior, plan: Plan) -> float:
        """Bytes that the first quarter of the times takes: the whole takes more."""
        quarter = self.planes[0] // 4
        if quarter == 0:
            return 0.0
        target, valid, values = (v.reshape(self.planes)[:quarter] for v in (self.target, self.valid, prior.values))
        part = replace(self, target=target, valid=valid, planes=target.shape)
        return cost_of(part.code(replace(prior, values=values), plan))
