"""The priors that experts for patches offer for a chunk: its patches, coded at any rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import numpy as np

from vcinr.codec import patches, prior
from vcinr.codec.chunk import patches_section
from vcinr.codec.promise import Field
from vcinr.codec.trial import Choice, Prior, Trial
from vcinr.errors import ModelError
from vcinr.patches import coder
from vcinr.patches.geometry import three
from vcinr.patches.model import RATES, PatchModel

_EVERY = 8  # where a residual follows, rates are tried 3 dB apart


@dataclass(frozen=True, eq=False)
class PatchPriors:
    """The priors of a chunk of a field with a PatchModel. It is used like `vcinr.codec.latents.Latents`.

    Parameters
    ----------
    field : Field
        The field of the chunk.
    model : PatchModel
        Its model.
    grid : tuple of int
        Lengths of a signal's axes in the chunk.
    signal : tuple of int
        Shape of a signal's values, with the features first.
    rate : int or None
        The only rate to try; None for all.
    """

    field: Field
    model: PatchModel
    grid: tuple[int, ...]
    signal: tuple[int, ...]
    rate: int | None
    made: dict[int, Prior] = dataclass_field(default_factory=dict, init=False)
    """The last priors by rate."""
    likely: list[np.ndarray] = dataclass_field(default_factory=list, init=False)
    """The experts to try for each signal, once they are known; they depend little on the rate."""

    @property
    def rates(self) -> list[int]:
        """The rates to try before a residual; raises ModelError where the only one is not a rate of the model."""
        if self.rate is None:
            return list(range(0, RATES, _EVERY))
        if not 0 <= self.rate < RATES:
            raise ModelError(f"the model has the rates 0 to {RATES - 1}, not {self.rate}")
        return [self.rate]

    @property
    def lengths(self) -> list[int]:
        """No smaller numbers of latents are tried: the coder ends each patch where it pays."""
        return []

    def slack(self, output: np.ndarray) -> float:
        """Patches decode to the same numbers on every machine."""
        return 0.0

    def make_prior(self, trial: Trial, rate: int, length: int | None = None, *, for_bound: bool = True) -> Prior:
        """Code the chunk's patches at a rate. Parameters are those of `Latents.make_prior`; `length` is ignored."""
        if rate not in self.made:
            offset, scale = self.field.scaling
            count, features = len(trial.target), self.model.features
            known = trial.target
            if not trial.whole:  # values under a mask cost least where they are like their neighbours
                values = trial.valid_of(trial.target)
                known = np.where(trial.valid, trial.target, values.mean() if values.size else offset)
            shape = (count, features, *three(self.grid, 1))
            signals = np.moveaxis(((known - offset) / scale).reshape(shape), 1, -1)
            if not self.likely:
                self.likely.extend(coder.likely_experts(self.model, signals, rate))
            stream, decoded = coder.encode(self.model, signals, rate, self.likely)
            values = prior.to_units(self.field, patches.restored(decoded, self.signal))
            while len(self.made) > 3:
                del self.made[next(iter(self.made))]
            self.made[rate] = Prior(rate, values, patches_section(rate), stream, 0.0)
        return self.made[rate]

    def error(self, trial: Trial, rate: int) -> float:
        """RMS error of the prior at `rate` over the valid values, in the data's units."""
        errors = trial.valid_of(trial.target - self.make_prior(trial, rate).values)
        return math.sqrt(float(np.square(errors).mean())) if errors.size else 0.0

    def cheapest(self, trial: Trial) -> Choice | None:
        """No estimate without coding: for a pointwise bound at effort "fast" the residual coders work alone."""
        return None
