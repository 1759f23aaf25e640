"""What a chunk promises: the bound, the field that writer and reader both know, and errors measured against them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from vcinr.coding import residual
from vcinr.errors import CorruptError, InputError
from vcinr.inr.model import Model
from vcinr.signals.domain import EMPTY, Domain

Kind = Literal["absolute", "relative", "psnr", "rate"]
Effort = Literal["fast", "best"]
"""How hard a writer tries; both keep the same promises, and nothing of it is stored."""
MAX_VALUES = int(os.environ.get("VCINR_MAX_CHUNK_VALUES", 1 << 27))
"""Values that a chunk may declare: decoding takes up to 40 bytes of memory for each of them."""


@dataclass(frozen=True)
class Bound:
    """What a chunk promises of the error |x - x^| of its finite values.

    Parameters
    ----------
    kind : {"absolute", "relative", "psnr", "rate"}
        absolute: the error is at most `value`. relative: it is at most `value` * |x| at every point, and zeros are
        exact. psnr: the chunk has at least `value` dB with the peak `peak`. rate: it takes at most `value` bits per
        value. The first two hold for every valid value in the array's own dtype.
    value : float
        In the units that the kind says.
    peak : float
        Of a PSNR, in the units of the values.
    """

    kind: Kind
    value: float
    peak: float = 1.0


@dataclass(frozen=True, eq=False)
class Field:
    """What writer and reader of a field's chunks both know.

    Parameters
    ----------
    variable : str
        Its name in the model, if there is one.
    signal_axes : tuple of int
        The array axes that a signal's samples lie over, in the order of the domain's axes.
    domain : Domain
        Where the samples lie; the empty grid where no model needs to know.
    model : Model, optional
        The prior. It sees (value - offset) / scale.
    scaling : (float, float)
        (offset, scale) of the model for this field.
    fill : tuple of numbers
        Values that stand for missing besides NaN (CF ``_FillValue``, ``missing_value``).
    limits : (float, float), optional
        CF's valid range, to which decoded values are clipped, so that no value leaves it.
    feature_axis : int, optional
        The array axis along which the features of a point lie, such as the components of a wind.
    """

    variable: str
    signal_axes: tuple[int, ...]
    domain: Domain = EMPTY
    model: Model | None = None
    scaling: tuple[float, float] = (0.0, 1.0)
    fill: tuple[float | int, ...] = ()
    limits: tuple[float, float] | None = None
    feature_axis: int | None = None

    @cached_property
    def seeds(self) -> dict[tuple[np.dtype, tuple[int, ...]], int]:
        """Seeds of checksums by dtype and chunk shape, as far as `vcinr.codec.chunk.seed_of` has worked them out."""
        return {}

    @property
    def value_axes(self) -> tuple[int, ...]:
        """The axes of an array that hold one signal: that of the features, if there is one, then `signal_axes`."""
        return self.signal_axes if self.feature_axis is None else (self.feature_axis, *self.signal_axes)

    def index_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of the axes of an array of `shape` that count signals."""
        return tuple(n for axis, n in enumerate(shape) if axis not in self.value_axes)

    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of `signal_axes` in an array of `shape`."""
        return tuple(shape[axis] for axis in self.signal_axes)

    def signal_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of `value_axes` in an array of `shape`."""
        return tuple(shape[axis] for axis in self.value_axes)

    def features_of(self, shape: tuple[int, ...]) -> int:
        """How many features a point has in an array of `shape`."""
        return 1 if self.feature_axis is None else shape[self.feature_axis]

    def planes_of(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """An array of `shape` as the residual coder sees it: features are levels."""
        features = () if self.feature_axis is None else (shape[self.feature_axis],)
        return residual.planes((*self.index_of(shape), *features), self.grid_of(shape))

    def counts_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Times and levels of the signals in an array of `shape`, as the latents' coder sees them."""
        return residual.signal_counts(self.index_of(shape))


def check_size(chunk_shape: tuple[int, ...], *, writing: bool = False) -> None:
    """Raise CorruptError for a chunk of more than `MAX_VALUES`, before anything is allocated; a writer InputError."""
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


def valid_values(values: np.ndarray, fill: tuple[float | int, ...]) -> np.ndarray:
    """Where values are finite and none of the fill values: what a bound is kept for."""
    valid = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    for value in fill:
        valid &= values != np.asarray(value).astype(values.dtype)
    return valid


def allowed_errors(values: np.ndarray, bound: Bound) -> np.ndarray | float:
    """The largest error that a pointwise bound allows at each value, or everywhere."""
    if bound.kind == "absolute":
        return bound.value
    with np.errstate(invalid="ignore", over="ignore"):
        return bound.value * np.abs(values.astype(np.float64))


def errors_of(values: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """|x - x^| without overflow or wrap-around: exact for integers, in float64 for floats, zero for other types."""
    if values.dtype.kind not in "fiu":
        return np.zeros(values.shape)
    if values.dtype.kind in "iu":
        high, low = np.maximum(values, decoded), np.minimum(values, decoded)
        return (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.abs(np.subtract(values, decoded, dtype=np.float64))


def tolerance_of(abs_error: float, dtype: np.dtype, magnitude: float) -> float:
    """What the float64 reconstruction may be off so that the value in the output dtype is within `abs_error`.

    magnitude: the largest |x|. A negative tolerance means that only exact values will do.
    """
    if dtype.kind in "iu":
        return math.floor(abs_error) + 0.5 - 1e-6 if abs_error >= 1 else -1.0
    info = np.finfo(dtype)
    top = min(magnitude + abs_error, float(info.max))
    rounding = 0.5 * (float(info.eps) * top + float(info.smallest_subnormal))
    return abs_error * (1 - 1e-12) - rounding


def log_tolerance_of(rel_error: float, dtype: np.dtype) -> float:
    """What the logarithm of a value may be off so that the value is within `rel_error` of its magnitude."""
    tolerance = math.log1p(rel_error) - 1e-12
    return tolerance - float(np.finfo(dtype).eps) if dtype.kind == "f" else tolerance


@dataclass(frozen=True, eq=False)
class Comparison:
    """Values beside those that they decode to.

    valid: which values count; errors: theirs; missed: flat indices of valid values that decode outside the bound, or to
    what stands for missing.
    """

    valid: np.ndarray
    errors: np.ndarray
    missed: np.ndarray


def compare(
    values: np.ndarray, decoded: np.ndarray, fill: tuple[float | int, ...], bound: Bound | None
) -> Comparison:  # fmt: skip
    """Measure the errors of `decoded`; without a bound nothing is outside it."""
    if values.dtype.kind not in "fiu":
        nowhere = np.zeros(values.shape, bool)
        return Comparison(nowhere, np.zeros(0), np.flatnonzero(nowhere))
    valid, errors = valid_values(values, fill), errors_of(values, decoded)
    wrong = ~valid_values(decoded, fill)
    if bound is not None:
        wrong |= errors > allowed_errors(values, bound)
    wrong &= valid
    return Comparison(valid, errors.ravel() if valid.all() else errors[valid], np.flatnonzero(wrong))
