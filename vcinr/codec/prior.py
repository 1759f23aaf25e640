"""A model on a field's domain: what writer and reader evaluate alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from vcinr.codec.promise import Field
from vcinr.errors import CorruptError, ModelError
from vcinr.inr.at import ModelAt
from vcinr.inr.model import Model
from vcinr.quantise.state import Quantiser
from vcinr.signals.domain import Domain

_KEPT = 8
"""Models on domains that are kept: chunks of several variables, or of several archives, are often read in turns."""


@dataclass(frozen=True, eq=False)
class ModelOnDomain:
    """A model, where its signals lie, and all that follows from the two; `on_domain` makes and keeps them.

    Parameters
    ----------
    model
        With its quantiser.
    domain
        Where the samples of its signals lie.
    """

    model: Model
    domain: Domain

    @cached_property
    def at(self) -> ModelAt:
        """The network at the domain's points; raises InputError where the domain has other axes than the model."""
        return ModelAt(self.model, self.domain.inputs(self.model.system))

    @cached_property
    def quantiser(self) -> Quantiser:
        """The model's quantiser; raises ModelError where it does not fit the network's latents."""
        quantiser = Quantiser.from_tensors(self.model.quantiser)
        if quantiser.offset.shape[1] != self.model.spec.latent:
            raise ModelError(f"model {self.model.sha256[:12]}: the quantiser is not of this network's latents")
        return quantiser

    def output(self, variable: str, z: np.ndarray, rate: int) -> np.ndarray:
        """Evaluate the network for codes.

        Parameters
        ----------
        variable
            The model's name of the variable.
        z
            Codes ``[n, d]``.
        rate
            Index of the quantiser's rate.

        Returns
        -------
        numpy.ndarray
            ``[n, P, d_out]``, float32, in the model's units.
        """
        return self.at.reconstruct(self.model.start(variable) + self.quantiser.dequantise(z, rate))


@lru_cache(maxsize=_KEPT)
def on_domain(model: Model, domain: Domain) -> ModelOnDomain:
    """Put a model on a domain; the last few are kept, with what they have worked out."""
    return ModelOnDomain(model, domain)


def applies(field: Field, shape: tuple[int, ...]) -> bool:
    """Whether the field's model can be evaluated on a chunk of `shape`: the chunk holds whole signals."""
    model = field.model
    if model is None or not model.quantiser:
        return False
    return field.grid_of(shape) == field.domain.shape and field.features_of(shape) == model.spec.d_out


def arranged(output: np.ndarray, signal: tuple[int, ...]) -> np.ndarray:
    """The network's output ``[n, P, d_out]`` as values of signals ``[n, *signal]``: a copy only of several features."""
    return output.swapaxes(1, 2).reshape(len(output), *signal)


def to_units(field: Field, output: np.ndarray) -> np.ndarray:
    """The model's output in the data's units, float64."""
    offset, scale = field.scaling
    values = output.astype(np.float64)
    values *= scale
    values += offset
    return values


def decode_prior(
    field: Field, shape: tuple[int, ...], rate: int, coder: int, stream: bytes, signals: tuple[int, int]
) -> np.ndarray:
    """Evaluate the model for the latents in a chunk's stream.

    Parameters
    ----------
    field
        The field.
    shape
        Shape of the chunk's extent.
    rate, coder
        As the chunk states them.
    stream
        The latents' bitstream.
    signals
        Times and levels of its signals.

    Returns
    -------
    numpy.ndarray
        ``[n, *signal]``, float32, in the model's units.

    Raises
    ------
    ModelError
        Where the model is not at hand.
    CorruptError
        Where the chunk cannot have been written with it.
    """
    if field.model is None:
        raise ModelError(f"variable {field.variable!r}: this chunk needs its model, which is not at hand")
    if not applies(field, shape):
        raise CorruptError("chunk has a prior but not the grid of its field")
    prior = on_domain(field.model, field.domain)
    z = prior.quantiser.decode(coder, stream, *signals, rate)
    output = prior.output(field.variable, z.reshape(signals[0] * signals[1], -1), rate)
    return arranged(output, field.signal_of(shape))
