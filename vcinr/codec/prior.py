"""A model evaluated at the samples of a field, which writer and reader do with the same code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from vcinr.codec import patches
from vcinr.codec.chunk import read_patches, read_prior
from vcinr.codec.promise import Field
from vcinr.errors import CorruptError, ModelError
from vcinr.inr.at import ModelAt
from vcinr.inr.model import Model
from vcinr.patches.model import PatchModel
from vcinr.quantise.state import Quantiser
from vcinr.signals.domain import Domain
from vcinr.signals.tiles import Part, parts_of

_CACHE_SIZE = 16
"""Number of models on domains that stay in memory: chunks of several variables or archives are often read in turns.

A grid of three axes that is cut into tiles has up to eight of them."""


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
        return self.at.reconstruct(self.model.start(variable) + quantiser_of(self.model).dequantise(z, rate))


@lru_cache(maxsize=_CACHE_SIZE)
def quantiser_of(model: Model) -> Quantiser:
    """A model's quantiser, kept as by `on_domain`; raises ModelError where it does not fit the network's latents."""
    quantiser = Quantiser.from_tensors(model.quantiser)
    if quantiser.offset.shape[1] != model.spec.latent:
        raise ModelError(f"model {model.sha256[:12]}: the quantiser is not of this network's latents")
    return quantiser


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
    if field.features_of(shape) != model.spec.d_out:
        return False
    return field.tile is not None or field.grid_of(shape) == field.samples.shape


def boxes(model: Model, field: Field, shape: tuple[int, ...]) -> list[tuple[Part, ModelOnDomain]]:
    """The boxes of tiles of one shape that a chunk's signals consist of, and the model on such a tile.

    Parameters
    ----------
    model : Model
        The field's model, which applies to the chunk.
    field : Field
        The field of the chunk.
    shape : tuple of int
        Shape of the part of the chunk that lies inside the array.

    Returns
    -------
    list of (Part, ModelOnDomain)
        A single one, a tile as large as the grid, where the model applies to whole signals.
    """
    grid = field.grid_of(shape)
    if field.tile is None:
        return [(part, on_domain(model, field.samples)) for part in parts_of(grid, grid)]
    return [(part, on_domain(model, part.domain)) for part in parts_of(grid, field.tile)]


def predicted(model: Model, field: Field, shape: tuple[int, ...], z: np.ndarray, rate: int) -> np.ndarray:
    """Evaluate a model for the quantised latents of a chunk.

    Parameters
    ----------
    model, field, shape
        As of `boxes`.
    z : numpy.ndarray
        Codes int64 ``[n, d]`` of the chunk's signals or, where the model has tiles, of the tiles of each.
    rate : int
        The rate at which they were quantised.

    Returns
    -------
    numpy.ndarray
        The chunk's signals ``[n, *signal]``, float32, in the model's units.
    """
    signal = field.signal_of(shape)
    if field.tile is None:
        return arranged(on_domain(model, field.samples).output(field.variable, z, rate), signal)
    signals, features = math.prod(field.index_of(shape)), field.features_of(shape)
    out = np.empty((signals, features, *field.grid_of(shape)), np.float32)
    for part, on_tile in boxes(model, field, shape):
        output = on_tile.output(field.variable, z[part.rows(signals)], rate)
        part.put(arranged(output, (features, *part.shape)), out)
    return out.reshape(signals, *signal)


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


def decode_prior(field: Field, shape: tuple[int, ...], section: bytes, stream: bytes) -> np.ndarray:
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
        return patches.decode(field.model, field, shape, read_patches(section), stream)
    model, z, rate = read_codes(field, shape, section, stream)
    return predicted(model, field, shape, z, rate)


def read_codes(
    field: Field, shape: tuple[int, ...], section: bytes, stream: bytes
) -> tuple[Model, np.ndarray, int]:  # fmt: skip
    """Decode the latents in a chunk's stream.

    Parameters and errors are those of `decode_prior`, for a model that is a network.

    Returns
    -------
    model : Model
        The field's model.
    z : numpy.ndarray
        Codes int64 ``[n, d]``.
    rate : int
        The rate at which they were quantised.
    """
    rate, coder = read_prior(section)
    if field.model is None:
        raise ModelError(f"variable {field.variable!r}: this chunk needs its model, which is not at hand")
    if isinstance(field.model, PatchModel) or not applies(field, shape):
        raise CorruptError("chunk has a prior but not the grid of its field")
    times, levels = field.counts_of(shape)
    z = quantiser_of(field.model).decode(coder, stream, times, levels, rate)
    return field.model, z.reshape(times * levels, -1), rate
