"""What a chunk promises: the error bound, the field that writer and reader both know, and how errors are measured."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from vcinr.coding import residual
from vcinr.coding.bits import items_of
from vcinr.coding.neighbours import Positions
from vcinr.compiled import outer
from vcinr.errors import CorruptError, InputError
from vcinr.inr.model import Model
from vcinr.models import AnyModel
from vcinr.signals.domain import EMPTY, Domain
from vcinr.signals.tiles import tiles_in

Kind = Literal["absolute", "relative", "psnr", "rate", "iou"]
Effort = Literal["fast", "best"]
"""How hard the encoder searches for few bytes. Both keep the same promises, and a chunk does not say which it was."""
MAX_VALUES = int(os.environ.get("VCINR_MAX_CHUNK_VALUES", 1 << 27))
"""Largest number of values in a chunk. Decoding needs up to 40 bytes of memory for each of them."""
SMALL_BYTES = 64
"""What a few values may take whatever the rate, since a chunk has a head as well: `allowed_bytes`."""


@dataclass(frozen=True)
class Bound:
    """What a chunk promises about its valid values x and the values x^ that they decode to.

    Parameters
    ----------
    kind : {"absolute", "relative", "psnr", "rate", "iou"}
        "absolute": every error |x - x^| is at most `value`, in the units of the values. "relative": it is at most
        `value` * |x|, and zeros are exact. "psnr": the PSNR of the chunk is at least `value` dB. "rate": the chunk
        takes at most `value` bits per value (`allowed_bytes`). "iou": the mean IoU (`ious`) of the chunk's shapes is at
        least `value`; for truth values and integers that are 0 or 1. The first two hold for every valid value, in the
        array's own dtype.
    value : float
        The number of the bound; see `kind`.
    peak : float
        The peak that a PSNR refers to, in the units of the values; ignored for other kinds.
    """

    kind: Kind
    value: float
    peak: float = 1.0


@dataclass(frozen=True, eq=False)
class Field:
    """What writer and reader of an array both know when they code its chunks.

    Parameters
    ----------
    variable : str
        The name by which the model, if there is one, knows the variable.
    signal_axes : tuple of int
        The array axes over which the samples of one signal lie, in the order of the domain's axes.
    domain : Domain
        The coordinates of a signal's samples; the empty grid where no model needs them, or it has them itself.
    model : Model or PatchModel, optional
        The model that predicts the signals. It works on (value - offset) / scale.
    scaling : (float, float)
        The offset and the scale just named.
    fill : tuple of numbers
        Values that stand for missing data, besides NaN (CF ``_FillValue`` and ``missing_value``).
    limits : (float, float), optional
        CF's valid range. Decoded values are clipped to it, because a reader would take values outside it for missing.
    feature_axis : int, optional
        The array axis along which the features of a point lie, such as the components of a wind.
    positions : Positions, optional
        Where the points of a signal lie, as many as it has, for residual coders that need to know.
    positions_sha256 : str, optional
        Their SHA-256, where there are positions that a chunk could need, but `positions` is None because it does not
        (`vcinr.codec.chunk.needs_positions`).
    """

    variable: str
    signal_axes: tuple[int, ...]
    domain: Domain = EMPTY
    model: AnyModel | None = None
    scaling: tuple[float, float] = (0.0, 1.0)
    fill: tuple[float | int, ...] = ()
    limits: tuple[float, float] | None = None
    feature_axis: int | None = None
    positions: Positions | None = None
    positions_sha256: str | None = None

    @cached_property
    def seeds(self) -> dict[tuple[np.dtype, tuple[int, ...]], int]:
        """Checksum seeds by dtype and chunk shape: those that `vcinr.codec.chunk.seed_of` has computed so far."""
        return {}

    @property
    def tile(self) -> tuple[int, ...] | None:
        """Lengths of the tiles of signals to which the model applies; None where it applies to whole signals."""
        tile = self.model.tile if isinstance(self.model, Model) else None
        return tile if tile is not None and len(tile) == len(self.signal_axes) else None

    @property
    def samples(self) -> Domain:
        """Where the samples of a signal lie for the model: on the nodes of its own graph, or else in `domain`."""
        own = self.model.domain if isinstance(self.model, Model) else None
        return self.domain if own is None else own

    @property
    def value_axes(self) -> tuple[int, ...]:
        """The array axes that one signal takes up: the feature axis, if there is one, then `signal_axes`."""
        return self.signal_axes if self.feature_axis is None else (self.feature_axis, *self.signal_axes)

    def index_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of the index axes, which count signals, in an array of `shape`."""
        return tuple(n for axis, n in enumerate(shape) if axis not in self.value_axes)

    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of `signal_axes` in an array of `shape`."""
        return tuple(shape[axis] for axis in self.signal_axes)

    def signal_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of `value_axes` in an array of `shape`."""
        return tuple(shape[axis] for axis in self.value_axes)

    def features_of(self, shape: tuple[int, ...]) -> int:
        """Number of features that a point has in an array of `shape`."""
        return 1 if self.feature_axis is None else shape[self.feature_axis]

    def planes_of(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """The shape (T, C, H, W) in which the residual coder sees an array of `shape`; features count as levels."""
        features = () if self.feature_axis is None else (shape[self.feature_axis],)
        return residual.planes((*self.index_of(shape), *features), self.grid_of(shape))

    def counts_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The times T and levels C in which the latents' coder sees the signals, or tiles, of an array of `shape`."""
        index = self.index_of(shape)
        if self.tile is None:
            return residual.signal_counts(index)
        return math.prod(index) * tiles_in(self.grid_of(shape), self.tile), 1


def check_size(chunk_shape: tuple[int, ...], *, writing: bool = False) -> None:
    """Refuse a chunk of more than `MAX_VALUES` values, before memory is allocated for it.

    Raises
    ------
    InputError
        When writing.
    CorruptError
        When reading.
    """
    if math.prod(chunk_shape) > MAX_VALUES and writing:
        raise InputError(
            f"a chunk of {math.prod(chunk_shape):,} values, more than {MAX_VALUES:,}: take smaller chunks (--chunk), "
            "or set VCINR_MAX_CHUNK_VALUES higher here and wherever it is read"
        )
    if math.prod(chunk_shape) > MAX_VALUES:
        raise CorruptError(
            f"a chunk of {math.prod(chunk_shape):,} values, more than the {MAX_VALUES:,} that are read; "
            "if you trust it, set VCINR_MAX_CHUNK_VALUES higher"
        )


def allowed_bytes(rate: float, shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> float:
    """The bytes that a rate allows a chunk.

    Parameters
    ----------
    rate : float
        Bits per value.
    shape, chunk_shape : tuple of int
        Shape of the part of the chunk that lies inside the array, and of the array's chunks. Where they differ, the
        chunk lies at the array's edge, may be of a few values, and may take `SMALL_BYTES` where that is more.
    """
    allowed = rate * math.prod(shape) / 8
    return allowed if tuple(shape) == tuple(chunk_shape) else max(allowed, SMALL_BYTES)


def valid_values(values: np.ndarray, fill: tuple[float | int, ...]) -> np.ndarray:
    """Mark the valid values, for which a bound is kept: those that are finite and not among the fill values."""
    valid = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    for value in fill:
        valid &= values != np.asarray(value).astype(values.dtype)
    return valid


def only_valid(values: np.ndarray, fill: tuple[float | int, ...]) -> np.ndarray:
    """The valid values in one dimension; no copy where all are."""
    valid = valid_values(values, fill)
    return values.reshape(-1) if valid.all() else values[valid]


def allowed_errors(values: np.ndarray, bound: Bound) -> np.ndarray | float:
    """The largest error that an absolute or relative bound allows: one number, or one for each value."""
    if bound.kind == "absolute":
        return bound.value
    with np.errstate(invalid="ignore", over="ignore"):
        return bound.value * np.abs(values.astype(np.float64))


_NATIVE = (np.dtype(np.float32), np.dtype(np.float64))


def errors_of(values: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """The errors |x - x^| as float64, without overflow or wrap-around; truth values count 0 and 1."""
    if values.dtype.kind not in "fiu":
        return (values != decoded).astype(np.float64)
    if values.dtype.kind in "iu":
        high, low = np.maximum(values, decoded), np.minimum(values, decoded)
        return (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)
    if values.dtype not in _NATIVE or decoded.dtype != values.dtype:
        with np.errstate(invalid="ignore", over="ignore"):
            return np.abs(np.subtract(values, decoded, dtype=np.float64))
    one, other = (np.require(a, requirements=["C", "W"]) for a in (values, decoded))
    errors = np.empty(values.shape)
    _fill_errors(one.reshape(-1), other.reshape(-1), errors.reshape(-1))
    return errors


@outer
def _fill_errors(values: np.ndarray, decoded: np.ndarray, errors: np.ndarray) -> None:
    """`errors_of` for flat arrays of float32 or float64: one pass, where NumPy takes three."""
    for i in range(errors.size):
        errors[i] = abs(np.float64(values[i]) - np.float64(decoded[i]))


def ious(values: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """The IoU of each shape with what it decodes to: voxels that both have, divided by those that one of them has.

    Parameters
    ----------
    values, decoded : numpy.ndarray
        Of one shape and any real dtype; what is not 0 is inside. The last three axes longer than 1 are those of a shape
        (`vcinr.coding.bits.items_of`).

    Returns
    -------
    numpy.ndarray
        float64 ``[N]``; 1 for an empty shape that stays empty.
    """
    shape = items_of(values.shape)
    one, other = ((a != 0).reshape(shape) for a in (values, decoded))
    union = (one | other).sum((1, 2, 3))
    return np.where(union > 0, (one & other).sum((1, 2, 3)) / np.maximum(union, 1), 1.0)


def tolerance_of(abs_error: float, dtype: np.dtype, magnitude: float) -> float:
    """The error that the float64 reconstruction may have, so that values are still within a bound once rounded.

    Parameters
    ----------
    abs_error : float
        The absolute bound.
    dtype : numpy.dtype
        The dtype to which decoded values are rounded.
    magnitude : float
        The largest |x|.

    Returns
    -------
    float
        The tolerance; negative where only exact values keep the bound.
    """
    if dtype.kind in "iu":  # rounding to the nearest integer forgives errors below one half
        return math.floor(abs_error) + 0.5 - 1e-6 if abs_error >= 1 else -1.0
    info = np.finfo(dtype)
    top = min(magnitude + abs_error, float(info.max))
    rounding = 0.5 * (float(info.eps) * top + float(info.smallest_subnormal))
    return abs_error * (1 - 1e-12) - rounding


def log_tolerance_of(rel_error: float, dtype: np.dtype) -> float:
    """The error that the logarithm of a value may have, so that the value's relative error is at most `rel_error`."""
    tolerance = math.log1p(rel_error) - 1e-12
    return tolerance - float(np.finfo(dtype).eps) if dtype.kind == "f" else tolerance


@dataclass(frozen=True, eq=False)
class Comparison:
    """The errors of a chunk's values once they have been decoded.

    Attributes
    ----------
    exact : bool
        Whether all other values are the same, bit for bit.
    worst, squared : float
        The largest error of a valid value, and the sum of their squares.
    count : int
        Number of valid values.
    missed : numpy.ndarray
        Flat indices of valid values that decode to a value outside the bound, or to one that stands for missing data.
    """

    exact: bool
    worst: float
    squared: float
    count: int
    missed: np.ndarray


def compare(
    values: np.ndarray, decoded: np.ndarray, fill: tuple[float | int, ...], bound: Bound | None
) -> Comparison:  # fmt: skip
    """Measure the errors of `decoded`.

    Parameters
    ----------
    values, decoded : numpy.ndarray
        The values before and after coding, of one shape and dtype.
    fill : tuple of numbers
        Values that stand for missing data; see `Field`.
    bound : Bound or None
        An absolute or relative bound. Without one, every error is allowed.
    """
    if values.dtype.kind not in "fiu":
        return Comparison(values.tobytes() == decoded.tobytes(), 0.0, 0.0, 0, np.zeros(0, np.int64))
    valid, errors = valid_values(values, fill), np.asarray(errors_of(values, decoded))
    wrong = ~valid_values(decoded, fill)
    if bound is not None:
        wrong |= errors > allowed_errors(values, bound)
    exact = True
    if not valid.all():
        wrong &= valid
        exact = values[~valid].tobytes() == decoded[~valid].tobytes()
        errors = errors[valid]
    worst = float(errors.max(initial=0.0))
    with np.errstate(over="ignore"):
        squared = float(np.square(errors, out=errors).sum())
    return Comparison(exact, worst, squared, errors.size, np.flatnonzero(wrong))
