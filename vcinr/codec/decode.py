"""Decoding of a chunk: the prior in the data's units, plus a constant, plus the residual; then masks and exceptions.

Decoding uses only IEEE 754 addition, subtraction, multiplication, division and square root, one by one in a fixed
order, so that all processors get the same bits. The only exception is the network of a model, whose output may differ
between machines; the encoder leaves the model's slack for that.
"""

from __future__ import annotations

import math

import numpy as np

from vcinr.codec.chunk import (
    LOSSLESS,
    Chunk,
    apply_exceptions,
    read_constant,
    read_extent,
    read_residual,
    read_signs,
    read_specials,
    seed_of,
)
from vcinr.codec.prior import decode_prior
from vcinr.codec.promise import Field, check_size
from vcinr.coding import lossless, residual
from vcinr.coding.exponential import exponentiate
from vcinr.compiled import outer
from vcinr.signals.tiling import unsplit


def decode(
    data: bytes, chunk_shape: tuple[int, ...], dtype: np.dtype, field: Field, *, padding: float | int = 0
) -> np.ndarray:
    """Decompress a chunk.

    Parameters
    ----------
    data : bytes
        The chunk.
    chunk_shape : tuple of int
        Shape of the array's chunks.
    dtype : numpy.dtype
        The array's dtype.
    field : Field
        The field that the chunk was written with.
    padding : number
        What fills the part of the chunk that lies outside its array.

    Returns
    -------
    numpy.ndarray
        The values, of shape `chunk_shape` and of `dtype` in native byte order.

    Raises
    ------
    CorruptError
        For bytes that are not a chunk, or a chunk of another field, dtype or shape.
    ModelError
        Where the chunk needs a model and the field has none.
    """
    native, chunk_shape = np.dtype(dtype).newbyteorder("="), tuple(chunk_shape)
    chunk, shape = parse(data, chunk_shape, native, field)
    inner = values_of(chunk, shape, native, field)
    if shape == chunk_shape:
        return inner
    out = np.full(chunk_shape, padding, native)
    out[tuple(slice(n) for n in shape)] = inner
    return out


def parse(data: bytes, chunk_shape: tuple[int, ...], native: np.dtype, field: Field) -> tuple[Chunk, tuple[int, ...]]:
    """The parts of a chunk, and the shape of its extent: of what lies inside the array. Raises as `decode` does."""
    check_size(chunk_shape)
    chunk = Chunk.unpack(data, seed_of(field, native, chunk_shape))
    return chunk, read_extent(chunk.sections.extent, chunk_shape)


def values_of(chunk: Chunk, shape: tuple[int, ...], native: np.dtype, field: Field) -> np.ndarray:
    """The values of the extent, which has the given shape."""
    count = math.prod(shape)
    if chunk.mode == LOSSLESS:
        return lossless.decode(chunk.stream, shape, native)
    sections, signal, planes = chunk.sections, field.signal_of(shape), field.planes_of(shape)
    signals = (count // max(1, math.prod(signal)), *signal)
    valid = None if sections.mask is None else ~lossless.decode_mask(sections.mask, signals)
    prior, correction = None, None
    if sections.prior is not None:
        prior = decode_prior(field, shape, sections.prior, chunk.stream)
    constant = read_constant(sections.constant)
    if sections.residual is not None:
        step, plan, stream = read_residual(sections.residual)
        valid_planes = None if valid is None else valid.reshape(planes)
        correction = residual.decode(stream, planes, step, plan, valid_planes, field.positions).reshape(signals)
    out = np.empty(signals, native)
    if native in _RESTORED and sections.log is None:
        restore(prior, field.scaling, constant, correction, limits_of(native, field.limits), out)
    else:
        real = np.empty(signals)
        restore(prior, field.scaling, constant, correction, (-math.inf, math.inf), real)
        if sections.log is not None:
            exponentiate(real.reshape(-1))
            real *= read_signs(sections.log, signals)
        out[:] = to_dtype(real, native, field.limits)
    if valid is not None:
        out[~valid] = read_specials(sections.specials, int((~valid).sum()), native)
    out = np.asarray(unsplit(out, shape, field.value_axes), order="C")
    if sections.exceptions is not None:
        apply_exceptions(out, sections.exceptions)
    return out


_RESTORED = (np.dtype(np.float32), np.dtype(np.float64))  # dtypes to which `restore` writes directly, in one pass


def restore(
    prior: np.ndarray | None, scaling: tuple[float, float], constant: float, correction: np.ndarray | None,
    limits: tuple[float, float], out: np.ndarray,
) -> None:  # fmt: skip
    """Fill `out` with prior * scale + offset + constant + correction, clipped to `limits`.

    Parameters
    ----------
    prior : numpy.ndarray, optional
        The model's output, float32, as large as `out`; counts as 0 where it is None.
    scaling : (float, float)
        (offset, scale) of the prior.
    constant : float
        A number that is added to all values.
    correction : numpy.ndarray, optional
        The decoded residual, float64, as large as `out`.
    limits : (float, float)
        The smallest and the largest value.
    out : numpy.ndarray
        float32 or float64, C-contiguous. The sums are taken in float64, in the order above, and then rounded to it.

    Notes
    -----
    This is one compiled loop: where a model predicts well, a NumPy pass over the values for each operation would take
    longer than the rest of the decoding.
    """
    offset, scale = scaling
    none = np.empty(0, np.float32), np.empty(0)
    _restore(
        none[0] if prior is None else prior.reshape(-1), scale, offset, constant,
        none[1] if correction is None else correction.reshape(-1), limits[0], limits[1], out.reshape(-1),
    )  # fmt: skip


@outer
def _restore(
    prior: np.ndarray, scale: float, offset: float, constant: float, correction: np.ndarray, low: float, high: float,
    out: np.ndarray,
) -> None:  # fmt: skip
    """`restore` for flat arrays, in which an empty one stands for None."""
    predicted, corrected = prior.size > 0, correction.size > 0
    for i in range(out.size):
        x = 0.0
        if predicted:
            x = np.float64(prior[i]) * scale + offset
        if constant != 0.0:
            x += constant
        if corrected:
            x += correction[i]
        x = low if x < low else x
        out[i] = high if x > high else x


def to_dtype(real: np.ndarray, dtype: np.dtype, limits: tuple[float, float] | None) -> np.ndarray:
    """Convert decoded values to the array's dtype.

    Parameters
    ----------
    real : numpy.ndarray
        float64 values; they are clipped in place.
    dtype : numpy.dtype
        The target: an integer or a floating-point type.
    limits : (float, float), optional
        CF's valid range.

    Returns
    -------
    numpy.ndarray
        The values rounded to `dtype`, within its range and within `limits`.
    """
    real = np.clip(real, *limits_of(dtype, limits), out=real)
    if dtype.kind in "iu":
        info, rounded = np.iinfo(dtype), np.rint(real)
        # The ends of the range are set apart: float64 cannot hold 2^63 - 1 or 2^64 - 1, so astype might overflow.
        above, below = rounded >= float(info.max), rounded <= float(info.min)
        out = np.where(above | below, 0.0, rounded).astype(dtype)
        out[above], out[below] = info.max, info.min
        return out
    return real.astype(dtype)


def limits_of(dtype: np.dtype, limits: tuple[float, float] | None) -> tuple[float, float]:
    """The range that decoded values are clipped to, so that they are finite and within CF's `limits` after rounding."""
    if dtype.kind in "iu":
        return (-math.inf, math.inf) if limits is None else (math.ceil(limits[0]), math.floor(limits[1]))
    limit = float(np.finfo(dtype).max)
    if limits is None:
        return -limit, limit
    return max(-limit, _inside(limits[0], dtype, 1)), min(limit, _inside(limits[1], dtype, -1))


def _inside(limit: float, dtype: np.dtype, towards: int) -> float:
    """The number of `dtype` that is nearest to a limit and inside it.

    `towards` is 1 for a lower limit, whose inside lies towards infinity, and -1 for an upper one.
    """
    with np.errstate(over="ignore"):
        nearest = dtype.type(limit)
    outside = nearest < limit if towards > 0 else nearest > limit
    return float(np.nextafter(nearest, dtype.type(towards * np.inf))) if outside else float(nearest)
