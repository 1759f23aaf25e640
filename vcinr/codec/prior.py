"""A model evaluated at the samples of a field, which writer and reader do with the same code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from vcinr.codec import patches
from vcinr.codec.chunk import read_prior
from vcinr.codec.promise import Field
from vcinr.errors import CorruptError, ModelError
from vcinr.inr.at import ModelAt
from vcinr.inr.model import Model
from vcinr.patches.model import PatchModel
from vcinr.quantise.state import Quantiser
from vcinr.signals.domain import Domain

_CACHE_SIZE = 8
"""Number of models on domains that stay in memory: chunks of several variables or archives are often read in turns."""


@dataclass(frozen=True, eq=False)
class ModelOnDomain:
    """A model together with the domain of its signals, and what can be computed from these two.

    `on_domain` makes such objects and keeps the last few.

    Parameters
    ----------
    model : Model
        The model, with its quantiser.
    domain : Domain
        The coordinates of a signal's samples.
    """

    model: Model
    domain: Domain

    @cached_property
    def at(self) -> ModelAt:
        """The network at the domain's points; raises InputError where the domain does not have the model's axes."""
        return ModelAt(self.model, self.domain.inputs(self.model.system))

    @cached_property
    def quantiser(self) -> Quantiser:
        """The model's quantiser; raises ModelError where it does not fit the network's latents."""
        quantiser = Quantiser.from_tensors(self.model.quantiser)
        if quantiser.offset.shape[1] != self.model.spec.latent:
            raise ModelError(f"model {self.model.sha256[:12]}: the quantiser is not of this network's latents")
        return quantiser

    def codes(self, coder: int, stream: bytes, signals: tuple[int, int], rate: int) -> np.ndarray:
        """Decode latents ``[n, d]`` from a bitstream; arguments as in `decode_prior`, n = T C."""
        return self.quantiser.decode(coder, stream, *signals, rate).reshape(signals[0] * signals[1], -1)

    def output(self, variable: str, z: np.ndarray, rate: int) -> np.ndarray:
        """Evaluate the network for quantised latents.

        Parameters
        ----------
        variable : str
            The name by which the model knows the variable.
        z : numpy.ndarray
            Codes of the latents, int64 ``[n, d]``.
        rate : int
            The rate at which they were quantised.

        Returns
        -------
        numpy.ndarray
            ``[n, P, d_out]``, float32, in the model's units.
        """
        return self.at.reconstruct(self.model.start(variable) + self.quantiser.dequantise(z, rate))


@lru_cache(maxsize=_CACHE_SIZE)
def on_domain(model: Model, domain: Domain) -> ModelOnDomain:
    """Combine a model with a domain. The last few results stay in memory, with everything they have computed."""
    return ModelOnDomain(model, domain)


def applies(field: Field, shape: tuple[int, ...]) -> bool:
    """Whether the field's model can predict a chunk of `shape`: it is complete, and the chunk holds whole signals."""
    model = field.model
    if isinstance(model, PatchModel):
        return patches.applies(model, field, shape)
    if model is None or not model.quantiser:
        return False
    return field.grid_of(shape) == field.samples.shape and field.features_of(shape) == model.spec.d_out


def arranged(output: np.ndarray, signal: tuple[int, ...]) -> np.ndarray:
    """Arrange the network's output ``[n, P, d_out]`` as signals ``[n, *signal]``, whose first axis may be the features.

    This copies only where there are several features.
    """
    return output.swapaxes(1, 2).reshape(len(output), *signal)


def to_units(field: Field, output: np.ndarray) -> np.ndarray:
    """Convert the model's output from its own units to those of the data, as float64."""
    offset, scale = field.scaling
    values = output.astype(np.float64)
    values *= scale
    values += offset
    return values


def decode_prior(
    field: Field, shape: tuple[int, ...], section: bytes, stream: bytes, signals: tuple[int, int]
) -> np.ndarray:
    """Decode the latents in a chunk's stream, and evaluate the model for them.

    Parameters
    ----------
    field : Field
        The field of the chunk.
    shape : tuple of int
        Shape of the part of the chunk that lies inside the array.
    section : bytes
        The chunk's section `prior`: a rate, and for latents the number of their coder.
    stream : bytes
        The latents' bitstream.
    signals : (int, int)
        The times T and levels C of the signals; see `Field.counts_of`.

    Returns
    -------
    numpy.ndarray
        The prior ``[n, *signal]``, float32, in the model's units.

    Raises
    ------
    ModelError
        Where the field has no model.
    CorruptError
        Where the chunk cannot have been written with the field's model.
    """
    if isinstance(field.model, PatchModel):
        if len(section) != 1:
            raise CorruptError("section has a wrong length")
        return patches.decode(field.model, field, shape, section[0], stream)
    rate, coder = read_prior(section)
    prior = checked(field, shape)
    z = prior.codes(coder, stream, signals, rate)
    return arranged(prior.output(field.variable, z, rate), field.signal_of(shape))


def checked(field: Field, shape: tuple[int, ...]) -> ModelOnDomain:
    """The field's model on its domain, to decode a chunk of `shape` that has a prior; raises as `decode_prior` does."""
    if field.model is None:
        raise ModelError(f"variable {field.variable!r}: this chunk needs its model, which is not at hand")
    if isinstance(field.model, PatchModel) or not applies(field, shape):
        raise CorruptError("chunk has a prior but not the grid of its field")
    return on_domain(field.model, field.samples)
