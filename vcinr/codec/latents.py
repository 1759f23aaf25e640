"""The priors that a model offers for a chunk: its latents, quantised at any rate, all of them or only the first few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import numpy as np

from vcinr.codec import prior
from vcinr.codec.chunk import prior_section
from vcinr.codec.promise import Field, valid_values
from vcinr.codec.trial import Choice, Prior, Trial
from vcinr.errors import ModelError
from vcinr.inr.model import Model
from vcinr.patches.model import PatchModel
from vcinr.quantise.refine import outside_bits, refine
from vcinr.signals import normalise
from vcinr.signals.tiling import gather

SHORT = 16
"""Number of latents up to which decoding them takes hardly any time."""
SLOWER = 2.0
"""Factor by which more than `SHORT` latents have to save bytes, because decoding them takes longer than all else."""
LOOSE = 0.1
"""Largest share of values outside the bound at which optimising the rounding of latents for the bound pays."""
_LARGEST_KEPT = 1 << 22  # numbers in a prior that is kept for the next trial, at most
_SAMPLE_VALUES = 1 << 14  # size of the sample by which a rate is chosen
_SAMPLE_POINTS = 64  # points of each signal in that sample, at least


def latents_of(values: np.ndarray, field: Field) -> np.ndarray | None:
    """Find the latents of a chunk's signals with the model's inner loop.

    Parameters
    ----------
    values : numpy.ndarray
        The part of a chunk that lies inside the array.
    field : Field
        Its field.

    Returns
    -------
    numpy.ndarray or None
        Latents ``[n, d]`` relative to the variable's phi_0; None where the field has no model that fits the chunk.

    Raises
    ------
    ModelError
        Where the inner loop needs torch and torch is not installed.
    """
    model = field.model
    if isinstance(model, PatchModel):
        return None
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
    at = prior.on_domain(model, field.samples).at
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


@dataclass(frozen=True, eq=False)
class Latents:
    """The latents of a chunk, and the priors that can be made of them.

    Parameters
    ----------
    field : Field
        The field of the chunk, which has a model.
    latents : numpy.ndarray
        Latents ``[n, d]`` from `latents_of`.
    signal : tuple of int
        Shape of a signal's values, with the features first.
    rate : int or None
        The only rate to try; None for all.
    """

    field: Field
    latents: np.ndarray
    signal: tuple[int, ...]
    rate: int | None
    made: dict[int, tuple[np.ndarray, np.ndarray]] = dataclass_field(default_factory=dict, init=False)
    """Results of `rounded` by rate, which the next trial uses again."""

    @property
    def model(self) -> Model:
        """The field's model."""
        assert isinstance(self.field.model, Model)
        return self.field.model

    @property
    def on_domain(self) -> prior.ModelOnDomain:
        """The model on the field's domain."""
        return prior.on_domain(self.model, self.field.samples)

    @property
    def rates(self) -> list[int]:
        """The rates to try; raises ModelError where the only one is not a rate of the model."""
        rates = self.on_domain.quantiser.rates
        if self.rate is None:
            return list(range(rates))
        if not 0 <= self.rate < rates:
            raise ModelError(f"the model has the rates 0 to {rates - 1}, not {self.rate}")
        return [self.rate]

    def slack(self, output: np.ndarray) -> float:
        """How much another machine's decoder may differ, in the data's units.

        Rounding errors grow with the network's `output`, so the slack does so too where it exceeds 1.
        """
        return self.model.slack * abs(self.field.scaling[1]) * max(1.0, float(np.abs(output).max(initial=0.0)))

    @property
    def lengths(self) -> list[int]:
        """Smaller numbers of latents to try: a quarter of them, an eighth and so on, last of all none.

        Empty unless the head is linear, since only then are latents in order of importance.
        """
        d = self.model.spec.latent
        return list(dict.fromkeys(d >> k for k in (2, 3, 4, 5, d.bit_length()))) if self.model.linear else []

    def rounded(self, rate: int, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Quantise the latents by rounding them to the nearest code.

        Parameters
        ----------
        rate : int
            The rate.
        length : int, optional
            Codes after the first `length` are set to zero.

        Returns
        -------
        z : numpy.ndarray
            Codes int64 ``[n, d]``.
        output : numpy.ndarray
            The model's output for them, float32 ``[n, *signal]``, in the model's units.
        """
        if length is not None:
            z = self.rounded(rate)[0].copy()
            z[:, length:] = 0
            return z, self._output(z, rate)
        if rate not in self.made:
            z = self.on_domain.quantiser.quantise(self.latents, rate)
            codes_and_output = z, self._output(z, rate)
            if codes_and_output[1].size > _LARGEST_KEPT:
                return codes_and_output
            self.made[rate] = codes_and_output
        return self.made[rate]

    def make_prior(self, trial: Trial, rate: int, length: int | None = None, *, for_bound: bool = True) -> Prior:
        """Quantise and code latents, and evaluate the model for them as a decoder will.

        Parameters
        ----------
        trial : Trial
            The chunk.
        rate : int
            The rate.
        length : int, optional
            Codes after the first `length` are set to zero.
        for_bound : bool
            True optimises the rounding for the trial's tolerance, where that pays, and takes the coder that needs the
            fewest bytes. False rounds to the nearest code and takes a quick coder.
        """
        z, output = self.rounded(rate, length)
        if for_bound and (better := self._rounded_for_bound(trial, z, rate, length, output)) is not None:
            z, output = better, self._output(better, rate)
        quantiser = self.on_domain.quantiser
        coder, stream = quantiser.code(z.reshape(*trial.signals, -1), rate, quick=not for_bound)
        values = prior.to_units(self.field, output)
        return Prior(rate, values, prior_section(rate, coder), stream, self.slack(output))

    def error(self, trial: Trial, rate: int) -> float:
        """RMS error of the prior at `rate` over the valid values, in the data's units."""
        errors = trial.valid_of(trial.target - prior.to_units(self.field, self.rounded(rate)[1]))
        return math.sqrt(float(np.square(errors).mean())) if errors.size else 0.0

    def cheapest(self, trial: Trial) -> Choice | None:
        """Find the rate and the number of latents that should need the fewest bytes, judged by a sample of the values.

        Of a linear head, only the first `SHORT` latents or fewer are used, unless all of them need far fewer bytes.

        Returns
        -------
        Choice or None
            None where more than the share `LOOSE` of the values stays outside the bound and no rate was prescribed.
        """
        quantiser, model, points = self.on_domain.quantiser, self.model, self.field.samples.points
        count, features = len(self.latents), model.spec.d_out
        sample = slice(None, None, max(1, min(count * features * points // _SAMPLE_VALUES, points // _SAMPLE_POINTS)))
        target = trial.target.reshape(count, features, -1)[..., sample]
        valid = None if trial.whole else trial.valid.reshape(count, features, -1)[..., sample]
        if not target.size or (valid is not None and not valid.any()):
            return None
        asked_tolerance = trial.tolerance
        assert asked_tolerance is not None
        evaluate, start = self.on_domain.at.sampled(sample), model.start(self.field.variable)
        codes: dict[int, np.ndarray] = {}

        def assess(rate: int, length: int) -> Choice:
            if rate not in codes:
                codes[rate] = quantiser.quantise(self.latents, rate)
            z = codes[rate].copy()
            z[:, length:] = 0
            output = prior.arranged(evaluate(start + quantiser.dequantise(z, rate)), target.shape[1:])
            tolerance = asked_tolerance - self.slack(output)
            if tolerance <= 0:
                return Choice(math.inf, rate, length, 1.0)
            excess = np.abs(target - prior.to_units(self.field, output)) / tolerance - 1.0  # in units of the tolerance
            outside = (excess if valid is None else excess[valid]).ravel()
            outside, valid_count = outside[outside > 0], outside.size
            bits = outside_bits(outside) * points / target.shape[-1] + quantiser.bits(z[:, :length], rate)
            return Choice(bits, rate, length, len(outside) / valid_count)

        rates, all_latents = self.rates, model.spec.latent
        short = min(all_latents, SHORT) if model.linear else all_latents
        first = self._first_rate(rates, asked_tolerance)
        best = assess(rates[first], short)
        for direction in (rates[first + 1 :], rates[:first][::-1]):  # finer rates, then coarser ones, while they help
            for rate in direction:
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
        if short < all_latents:
            choice = assess(best.rate, all_latents)
            if SLOWER * choice.bits < best.bits:
                best = choice
        return best if best.share <= LOOSE or self.rate is not None else None

    def _first_rate(self, rates: list[int], tolerance: float) -> int:
        """Index into `rates` at which to begin: the first rate whose rounding error is well within the tolerance."""
        units = [self.on_domain.quantiser.unit(rate) for rate in rates]
        if not self.model.linear or units[0] is None:
            return 0
        # Rounding by a step has an RMS error of step / sqrt(12). The basis is orthonormal, so the squared errors of the
        # latents add up to that of the values.
        noise = [abs(self.field.scaling[1]) * float(np.linalg.norm(u)) / math.sqrt(12) for u in units if u is not None]
        return next((k for k, error in enumerate(noise) if error < tolerance / 4), len(rates) - 1)

    def _output(self, z: np.ndarray, rate: int) -> np.ndarray:
        """The model's output for codes z ``[n, d]``, float32 ``[n, *signal]``."""
        return prior.arranged(self.on_domain.output(self.field.variable, z, rate), self.signal)

    def _rounded_for_bound(
        self, trial: Trial, z: np.ndarray, rate: int, length: int | None, output: np.ndarray
    ) -> np.ndarray | None:
        """Codes whose rounding is optimised for the bound (`vcinr.quantise.refine`).

        None where this is impossible, because latents do not enter linearly, or does not pay, because too many values
        are outside the bound in any case.
        """
        quantiser = self.on_domain.quantiser
        unit = quantiser.unit(rate)
        if trial.tolerance is None or unit is None or not self.model.linear:
            return None
        errors = np.where(trial.valid, trial.target - prior.to_units(self.field, output), 0.0).reshape(len(z), -1)
        if np.mean(np.abs(errors) > trial.tolerance) > LOOSE:
            return None
        psi = self.on_domain.at.basis()[1]
        features = self.model.spec.d_out
        if features > 1:  # in the basis the features of a point lie side by side, in a signal they come first
            psi = psi.reshape(len(psi), -1, features).swapaxes(1, 2).reshape(len(psi), -1)
        z, used = z.copy(), slice(length)
        effect = self.field.scaling[1] * unit[used, None] * psi[used]
        bits, offset = quantiser.costs(rate)[used], quantiser.offset[rate, used]
        z[:, used] = refine(z[:, used], errors, effect, bits, offset, trial.tolerance - self.slack(output))
        return z
