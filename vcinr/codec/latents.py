"""The priors that a model offers for a chunk: its latents at every rate, all of them or the first few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import NamedTuple

import numpy as np

from vcinr.codec import prior
from vcinr.codec.chunk import prior_section
from vcinr.codec.promise import Field, valid_values
from vcinr.codec.trial import Prior, Trial
from vcinr.errors import ModelError
from vcinr.inr.model import Model
from vcinr.quantise.refine import outside_bits, refine
from vcinr.signals import normalise
from vcinr.signals.tiling import gather

SHORT = 16
"""Latents that are decoded in no time."""
SLOWER = 2.0
"""More than `SHORT` latents take longer to decode than all else, so that they have to save this much."""
LOOSE = 0.1
"""Share of values outside the bound: with more, rounding latents to the nearest is as good as for the bound."""
_KEPT = 1 << 22  # numbers of a prior that are kept
_SAMPLE, _SAMPLED = 1 << 14, 64  # values that a rate is chosen by, and points of each signal at least


def latents_of(values: np.ndarray, field: Field) -> np.ndarray | None:
    """Find the model's latents of a chunk's signals.

    Returns
    -------
    ndarray or None
        ``[n, d]``, relative to the variable's phi_0; None where no model applies.

    Raises
    ------
    ModelError
        When torch, which an inner loop by gradient needs, is not installed.
    """
    model = field.model
    if model is None or not prior.applies(field, values.shape) or values.dtype.kind not in "fiu" or values.size == 0:
        return None
    offset, scale = field.scaling
    signals = gather(values, field.value_axes)
    valid = valid_values(signals, field.fill)
    count, features = len(signals), model.spec.d_out
    target = np.where(valid, signals, offset).astype(np.float64).reshape(count, features, -1).swapaxes(1, 2)
    # A point counts where all its features have a value, as in training.
    known = None if valid.all() else np.all(valid.reshape(count, features, -1), axis=1)
    y, weight = normalise(target, known, offset, scale)
    at = prior.on_domain(model, field.domain).at
    variable = np.full(count, model.index(field.variable), np.int64)
    if model.linear:
        return at.fit(y, weight, variable) - model.start(field.variable)
    try:
        from vcinr.meta.extract import find_latents
    except ImportError:
        raise ModelError(
            "compressing with this model needs torch for its inner loop: pip install 'vcinr[train]', "
            "or compress without a model"
        ) from None
    return find_latents(at, y, weight, variable) - model.start(field.variable)


class Choice(NamedTuple):
    """A rate and number of latents, and what a sample says of them.

    bits: what the latents and the residual should take. share: of the values that are outside the bound.
    """

    bits: float
    rate: int
    length: int
    share: float


@dataclass(frozen=True, eq=False)
class Latents:
    """The priors of a chunk.

    Parameters
    ----------
    field : Field
        With a model.
    latents : ndarray
        ``[n, d]`` as of `latents_of`.
    signal : tuple of int
        Shape of a signal's values, the features first.
    rate : int or None
        The only one to be tried, if any.
    """

    field: Field
    latents: np.ndarray
    signal: tuple[int, ...]
    rate: int | None
    made: dict[int, tuple[np.ndarray, np.ndarray]] = dataclass_field(default_factory=dict, init=False)
    """What `rounded` has made, by rate, for the next trial."""

    @property
    def model(self) -> Model:
        """The field's."""
        assert self.field.model is not None
        return self.field.model

    @property
    def on_domain(self) -> prior.ModelOnDomain:
        """The model on the field's domain."""
        return prior.on_domain(self.model, self.field.domain)

    @property
    def rates(self) -> list[int]:
        """Those to be tried; raises ModelError for one that the model does not have."""
        rates = self.on_domain.quantiser.rates
        if self.rate is None:
            return list(range(rates))
        if not 0 <= self.rate < rates:
            raise ModelError(f"the model has the rates 0 to {rates - 1}, not {self.rate}")
        return [self.rate]

    def slack(self, output: np.ndarray) -> float:
        """How far another machine's decoder may be off where the network gives `output`: rounding grows with it."""
        return self.model.slack * abs(self.field.scaling[1]) * max(1.0, float(np.abs(output).max(initial=0.0)))

    @property
    def lengths(self) -> list[int]:
        """How many latents may be enough, fewer and fewer to none, where they come in order of importance."""
        d = self.model.spec.latent
        return list(dict.fromkeys(d >> k for k in (2, 3, 4, 5, d.bit_length()))) if self.model.linear else []

    def rounded(self, rate: int, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The first `length` latents quantised at `rate`, and the model's output for them ``[n, *signal]``, float32."""
        if length is not None:
            z = self.rounded(rate)[0].copy()
            z[:, length:] = 0
            return z, self._output(z, rate)
        if rate not in self.made:
            z = self.on_domain.quantiser.quantise(self.latents, rate)
            both = z, self._output(z, rate)
            if both[1].size > _KEPT:
                return both
            self.made[rate] = both
        return self.made[rate]

    def prior(self, trial: Trial, rate: int, length: int | None = None, *, for_bound: bool = True) -> Prior:
        """The first `length` latents, quantised at `rate` and decoded again.

        for_bound: rounded for the tolerance that there is, and coded best; else to the nearest, and coded quickly.
        """
        z, output = self.rounded(rate, length)
        if for_bound and (better := self._rounded_for_bound(trial, z, rate, length, output)) is not None:
            z, output = better, self._output(better, rate)
        quantiser = self.on_domain.quantiser
        coder, stream = quantiser.code(z.reshape(*trial.signals, -1), rate, quick=not for_bound)
        values = prior.to_units(self.field, output)
        return Prior(rate, values, prior_section(rate, coder), stream, self.slack(output))

    def error(self, trial: Trial, rate: int) -> float:
        """RMS error of the prior at `rate`."""
        missing = trial.valid_of(trial.target - prior.to_units(self.field, self.rounded(rate)[1]))
        return math.sqrt(float(np.square(missing).mean())) if missing.size else 0.0

    def cheapest(self, trial: Trial) -> Choice | None:
        """What should take the fewest bytes, by a sample of the values; None where all leave too much outside.

        A linear head's first few latents, unless all of them take far fewer bytes.
        """
        quantiser, model, points = self.on_domain.quantiser, self.model, self.field.domain.points
        count, features = len(self.latents), model.spec.d_out
        sample = slice(None, None, max(1, min(count * features * points // _SAMPLE, points // _SAMPLED)))
        target = trial.target.reshape(count, features, -1)[..., sample]
        valid = None if trial.whole else trial.valid.reshape(count, features, -1)[..., sample]
        if not target.size or (valid is not None and not valid.any()):
            return None
        asked = trial.tolerance
        assert asked is not None
        evaluate, start = self.on_domain.at.sampled(sample), model.start(self.field.variable)
        codes: dict[int, np.ndarray] = {}

        def assess(rate: int, length: int) -> Choice:
            if rate not in codes:
                codes[rate] = quantiser.quantise(self.latents, rate)
            z = codes[rate].copy()
            z[:, length:] = 0
            output = prior.arranged(evaluate(start + quantiser.dequantise(z, rate)), target.shape[1:])
            tolerance = asked - self.slack(output)
            if tolerance <= 0:
                return Choice(math.inf, rate, length, 1.0)
            over = np.abs(target - prior.to_units(self.field, output)) / tolerance - 1.0
            outside = (over if valid is None else over[valid]).ravel()
            outside, counted = outside[outside > 0], outside.size
            bits = outside_bits(outside) * points / target.shape[-1] + quantiser.bits(z[:, :length], rate)
            return Choice(bits, rate, length, len(outside) / counted)

        rates, whole = self.rates, model.spec.latent
        short = min(whole, SHORT) if model.linear else whole
        at = self._likely(rates, asked)
        best = assess(rates[at], short)
        for way in (rates[at + 1 :], rates[:at][::-1]):  # on each side as long as it gets better
            for rate in way:
                choice = assess(rate, short)
                if choice >= best:
                    break
                best = choice
        for length in self.lengths:
            if length < short:
                choice = assess(best.rate, length)
                if choice >= best:
                    break
                best = choice
        if short < whole:
            choice = assess(best.rate, whole)
            if SLOWER * choice.bits < best.bits:
                best = choice
        return best if best.share <= LOOSE or self.rate is not None else None

    def _likely(self, rates: list[int], tolerance: float) -> int:
        """Where in `rates` to begin: the first whose rounding is well within the tolerance."""
        units = [self.on_domain.quantiser.unit(rate) for rate in rates]
        if not self.model.linear or units[0] is None:
            return 0
        # Rounding by a step has an error of step / sqrt(12); the basis is orthonormal.
        noise = [abs(self.field.scaling[1]) * float(np.linalg.norm(u)) / math.sqrt(12) for u in units if u is not None]
        return next((k for k, error in enumerate(noise) if error < tolerance / 4), len(rates) - 1)

    def _output(self, z: np.ndarray, rate: int) -> np.ndarray:
        return prior.arranged(self.on_domain.output(self.field.variable, z, rate), self.signal)

    def _rounded_for_bound(
        self, trial: Trial, z: np.ndarray, rate: int, length: int | None, output: np.ndarray
    ) -> np.ndarray | None:
        """Rate-distortion optimised codes, where the latents enter linearly and the bound is a loose one."""
        quantiser = self.on_domain.quantiser
        unit = quantiser.unit(rate)
        if trial.tolerance is None or unit is None or not self.model.linear:
            return None
        left = np.where(trial.valid, trial.target - prior.to_units(self.field, output), 0.0).reshape(len(z), -1)
        if np.mean(np.abs(left) > trial.tolerance) > LOOSE:
            return None
        psi = self.on_domain.at.basis()[1]
        features = self.model.spec.d_out
        if features > 1:  # side by side in the basis, one after the other in the values
            psi = psi.reshape(len(psi), -1, features).swapaxes(1, 2).reshape(len(psi), -1)
        z, kept = z.copy(), slice(length)
        effect = self.field.scaling[1] * unit[kept, None] * psi[kept]
        bits, offset = quantiser.costs(rate)[kept], quantiser.offset[rate, kept]
        z[:, kept] = refine(z[:, kept], left, effect, bits, offset, trial.tolerance - self.slack(output))
        return z
