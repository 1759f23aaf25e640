"""Bytes to values: the prior in the data's units, plus a constant, plus the residual, then masks and exceptions.

From bytes to values only IEEE 754 addition, subtraction, multiplication, division and square root are used, one by one
in a fixed order, so that all processors get the same bits; the network of a model alone may differ, within its slack.
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
    read_prior,
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
        Of the array's chunks.
    dtype : dtype
        Of the array.
    field : Field
        The one that the chunk was written with.
    padding : number
        Fills what of the chunk lies outside its array.

    Returns
    -------
    ndarray
        ``chunk_shape``, of `dtype` in native byte order.

    Raises
    ------
    CorruptError
        For bytes that are not a chunk, or one of another field, dtype or shape.
    ModelError
        Where a prior is needed and the field has no model.
    """
    native, chunk_shape = np.dtype(dtype).newbyteorder("="), tuple(chunk_shape)
    check_size(chunk_shape)
    chunk = Chunk.unpack(data, seed_of(field, native, chunk_shape))
    shape = read_extent(chunk.sections.extent, chunk_shape)
    inner = _values(chunk, shape, native, field)
    if shape == chunk_shape:
        return inner
    out = np.full(chunk_shape, padding, native)
    out[tuple(slice(n) for n in shape)] = inner
    return out


def _values(chunk: Chunk, shape: tuple[int, ...], native: np.dtype, field: Field) -> np.ndarray:
    """The values ``shape`` of the extent."""
    count = math.prod(shape)
    if chunk.mode == LOSSLESS:
        return lossless.decode(chunk.stream, count, native).reshape(shape)
    sections, signal, planes = chunk.sections, field.signal_of(shape), field.planes_of(shape)
    signals = (count // max(1, math.prod(signal)), *signal)
    valid = None if sections.mask is None else ~lossless.decode_mask(sections.mask, signals)
    prior, left = None, None
    if sections.prior is not None:
        rate, coder = read_prior(sections.prior)
        prior = decode_prior(field, shape, rate, coder, chunk.stream, field.counts_of(shape))
    constant = read_constant(sections.constant)
    if sections.residual is not None:
        step, plan, stream = read_residual(sections.residual)
        within = None if valid is None else valid.reshape(planes)
        left = residual.decode(stream, planes, step, plan, within).reshape(signals)
    out = np.empty(signals, native)
    if native in _RESTORED and sections.log is None:
        restore(prior, field.scaling, constant, left, limits_of(native, field.limits), out)
    else:
        real = np.empty(signals)
        restore(prior, field.scaling, constant, left, (-math.inf, math.inf), real)
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


_RESTORED = (np.dtype(np.float32), np.dtype(np.float64))  # types that are restored in one pass


def restore(
    prior: np.ndarray | None, scaling: tuple[float, float], constant: float, left: np.ndarray | None,
    limits: tuple[float, float], out: np.ndarray,
) -> None:  # fmt: skip
    """Fill `out`, float32 or float64, with prior * scale + offset + constant + left, clipped to `limits`.

    Compiled, because a pass over the values for each operation takes longer than decoding what a model predicts well.

    Parameters
    ----------
    prior : ndarray, optional
        float32, as large as `out`; 0 where there is none.
    scaling : (float, float)
        (offset, scale) of the prior.
    constant : float
        Added everywhere.
    left : ndarray, optional
        The residual, float64, as large as `out`.
    limits : (float, float)
        What the sums, which are taken in float64 in this order, are clipped to.
    out : ndarray
        Contiguous.
    """
    offset, scale = scaling
    none = np.empty(0, np.float32), np.empty(0)
    _restore(
        none[0] if prior is None else prior.reshape(-1), scale, offset, constant,
        none[1] if left is None else left.reshape(-1), limits[0], limits[1], out.reshape(-1),
    )  # fmt: skip


@outer
def _restore(
    prior: np.ndarray, scale: float, offset: float, constant: float, left: np.ndarray, low: float, high: float,
    out: np.ndarray,
) -> None:  # fmt: skip
    predicted, corrected = prior.size > 0, left.size > 0
    for i in range(out.size):
        x = 0.0
        if predicted:
            x = np.float64(prior[i]) * scale + offset
        if constant != 0.0:
            x += constant
        if corrected:
            x += left[i]
        x = low if x < low else x
        out[i] = high if x > high else x


def to_dtype(real: np.ndarray, dtype: np.dtype, limits: tuple[float, float] | None) -> np.ndarray:
    """float64 values, which are clipped in place, as `dtype`: within its range and within CF's `limits`."""
    real = np.clip(real, *limits_of(dtype, limits), out=real)
    if dtype.kind in "iu":
        info, rounded = np.iinfo(dtype), np.rint(real)
        above, below = rounded >= float(info.max), rounded <= float(info.min)  # 2^63 - 1 is no float64
        out = np.where(above | below, 0.0, rounded).astype(dtype)
        out[above], out[below] = info.max, info.min
        return out
    return real.astype(dtype)


def limits_of(dtype: np.dtype, limits: tuple[float, float] | None) -> tuple[float, float]:
    """What decoded values are clipped to, so that rounding to the dtype stays inside CF's `limits` and is finite."""
    if dtype.kind in "iu":
        return (-math.inf, math.inf) if limits is None else (math.ceil(limits[0]), math.floor(limits[1]))
    limit = float(np.finfo(dtype).max)
    if limits is None:
        return -limit, limit
    return max(-limit, _inside(limits[0], dtype, 1)), min(limit, _inside(limits[1], dtype, -1))


def _inside(limit: float, dtype: np.dtype, towards: int) -> float:
    """The number of `dtype` next to `limit`, not beyond it in the direction away from `towards` infinity."""
    with np.errstate(over="ignore"):
        near = dtype.type(limit)
    beyond = near < limit if towards > 0 else near > limit
    return float(np.nextafter(near, dtype.type(towards * np.inf))) if beyond else float(near)
