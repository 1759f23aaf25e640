"""The prior of experts for patches: a chunk's signals, coded patch by patch (:mod:`vcinr.patches`)."""

from __future__ import annotations

import numpy as np

from vcinr.codec.promise import Field
from vcinr.errors import CorruptError
from vcinr.patches import coder
from vcinr.patches.geometry import three
from vcinr.patches.model import PatchModel


def applies(model: PatchModel, field: Field, shape: tuple[int, ...]) -> bool:
    """Whether the model can predict a chunk of `shape`: it has the model's axes and features."""
    return len(field.signal_axes) == len(model.dims) and field.features_of(shape) == model.features


def decode(model: PatchModel, field: Field, shape: tuple[int, ...], rate: int, stream: bytes) -> np.ndarray:
    """Decode the prior of a chunk.

    Parameters
    ----------
    model : PatchModel
        The field's model.
    field : Field
        The field of the chunk.
    shape : tuple of int
        Shape of the part of the chunk that lies inside the array.
    rate : int
        The rate that the chunk states.
    stream : bytes
        The chunk's stream.

    Returns
    -------
    numpy.ndarray
        ``[n, *signal]``, float32, in the model's units.

    Raises
    ------
    CorruptError
        Where the chunk cannot have been written with the field's model.
    """
    if not applies(model, field, shape):
        raise CorruptError("chunk has a prior but not the axes of its model")
    signal = field.signal_of(shape)
    count = int(np.prod(field.index_of(shape), dtype=np.int64))
    return restored(coder.decode(model, stream, (count, *three(field.grid_of(shape), 1), model.features), rate), signal)


def restored(decoded: np.ndarray, signal: tuple[int, ...]) -> np.ndarray:
    """Arrange decoded signals ``[n, Z, Y, X, F]`` as float32 ``[n, *signal]``, with the features first."""
    with np.errstate(over="ignore"):
        return np.moveaxis(decoded, -1, 1).reshape(len(decoded), *signal).astype(np.float32)
