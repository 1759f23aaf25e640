"""A model on a field's grid: what writer and reader evaluate alike."""

from __future__ import annotations

import numpy as np

from vcinr.codec.promise import Field
from vcinr.errors import CorruptError, ModelError
from vcinr.inr.model import Model
from vcinr.quantise.state import Quantiser
from vcinr.signals import coordinates


def applies(field: Field, shape: tuple[int, ...]) -> bool:
    """Whether the field's model can be evaluated on a chunk of `shape`: the chunk covers the whole grid."""
    if field.model is None or not field.model.quantiser:
        return False
    return field.grid_of(shape) == tuple(len(a) for a in field.axes)


def inputs_of(field: Field, model: Model) -> np.ndarray:
    """The network's inputs ``[P, d_in]`` on the field's grid; those of the last grid are kept."""
    return model.once("inputs", field.axes, lambda: coordinates.inputs(dict(model.system), field.axes))


def quantiser_of(model: Model) -> Quantiser:
    """The model's quantiser, made once; raises ModelError where it is not of this network's latents."""
    known = model.once("quantiser", (), lambda: Quantiser.from_tensors(model.quantiser))
    if known.offset.shape[1] != model.spec.latent:
        raise ModelError(f"model {model.sha256[:12]}: the quantiser is not of this network's latents")
    return known


def evaluate(field: Field, model: Model, z: np.ndarray, rate: int, grid: tuple[int, ...]) -> np.ndarray:
    """The model's output ``[n, *grid]``, float32, for codes z ``[n, d]`` at a rate."""
    phi = model.start(field.variable) + quantiser_of(model).dequantise(z, rate)
    return model.reconstruct(phi, inputs_of(field, model))[..., 0].reshape(-1, *grid)


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
    """The model's output for the latents of a chunk's stream.

    Parameters
    ----------
    shape : tuple of int
        Of the chunk's extent.
    rate, coder : int
        As the chunk states them.
    signals : (int, int)
        Times and levels of its signals.

    Returns
    -------
    ndarray
        ``[n, *grid]``, float32, in the model's units.

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
    z = quantiser_of(field.model).decode(coder, stream, *signals, rate)
    return evaluate(field, field.model, z.reshape(signals[0] * signals[1], -1), rate, field.grid_of(shape))
