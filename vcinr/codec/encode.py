"""Encoding of a chunk, whose bytes are decoded again before they are returned.

1. Values for which no bound can hold, such as NaN and fill values, are set aside under a mask and coded losslessly.
2. Several priors are tried: constants, and the model's at the rates and numbers of latents that promise most. The
   latents are quantised, and the model is evaluated for them by the decoder's own code.
3. The difference between the values and the prior goes to a residual coder. Its step leaves room for rounding to the
   output dtype, and for the slack by which a decoder on another machine may differ.
4. The smallest candidate is taken, among them lossless coding.
5. The finished bytes are decoded. Values that miss the bound are stored verbatim, and the bytes are decoded once more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import get_args

import numpy as np

from vcinr.codec import prior, shapes
from vcinr.codec.chunk import (
    LOSSLESS,
    LOSSY,
    Chunk,
    Sections,
    exceptions_section,
    extent_section,
    log_section,
    mask_sections,
    seed_of,
)
from vcinr.codec.decode import decode
from vcinr.codec.latents import Latents, latents_of
from vcinr.codec.patch_priors import PatchPriors
from vcinr.codec.promise import (
    Bound,
    Comparison,
    Effort,
    Field,
    allowed_bytes,
    check_size,
    compare,
    ious,
    log_tolerance_of,
    only_valid,
    tolerance_of,
    valid_values,
)
from vcinr.codec.search import (
    PsnrTarget,
    best_candidate,
    coarsest_rate,
    finest_rate,
    meet_psnr,
    meet_rate,
    quick_candidate,
)
from vcinr.codec.trial import LARGEST, Candidate, Priors, Trial, prior_alone
from vcinr.coding import lossless
from vcinr.errors import BoundError, InputError
from vcinr.patches.model import PER_HALVING, RATES, PatchModel
from vcinr.signals.tiling import gather


@dataclass(frozen=True)
class Encoded:
    """A chunk's bytes, and what was measured by decoding them.

    Attributes
    ----------
    data : bytes
        The chunk.
    max_abs_error : float
        The largest error of a valid value, in the array's own dtype.
    squared_error : float
        The sum of the squared errors of the valid values.
    valid : int
        The number of valid values.
    mode : str
        ``lossless``, ``constant``, ``residual``, ``prior``, ``prior+residual`` or ``shapes``.
    parts : dict
        The number of bytes by section, and of the stream.
    ious : numpy.ndarray
        For shapes, the IoU of each of them (`vcinr.codec.promise.ious`); else empty.
    """

    data: bytes
    max_abs_error: float
    squared_error: float
    valid: int
    mode: str
    parts: dict[str, int]
    ious: np.ndarray = dataclass_field(default_factory=lambda: np.zeros(0))


def encode(
    values: np.ndarray, field: Field, bound: Bound | float | None, *, rate: int | None = None,
    chunk_shape: tuple[int, ...] | None = None, latents: np.ndarray | None = None, effort: Effort = "best",
) -> Encoded:  # fmt: skip
    """Compress one chunk.

    Parameters
    ----------
    values : numpy.ndarray
        The part of a chunk that lies inside the array, of any real dtype and shape. Values that are finite and not in
        `field.fill` are kept within the bound, all others exactly.
    field : Field
        The field that the chunk belongs to.
    bound : Bound, float or None
        A number is an absolute bound. None stores the model's prior at its finest rate alone, without a residual; where
        there is no model, it stores the chunk losslessly.
    rate : int, optional
        The only rate of the model's quantiser to try. By default all are considered.
    chunk_shape : tuple of int, optional
        Shape of the array's chunks, where it is not that of the values.
    latents : numpy.ndarray, optional
        The model's latents of these values (see `latents_of`), where they are known already.
    effort : {"fast", "best"}
        "fast" chooses one prior and one plan by a sample of the values; "best" searches for the fewest bytes.

    Returns
    -------
    Encoded
        The bytes, which have been decoded and keep the bound.

    Raises
    ------
    ModelError
        Where the model cannot be applied.
    BoundError
        Where the chunk cannot be coded in the bits per value that a rate allows.
    InputError
        For a chunk of more than `vcinr.codec.promise.MAX_VALUES` values, or an unknown effort.
    """
    values = np.asarray(values)
    if effort not in get_args(Effort):
        raise InputError(f"effort is one of {', '.join(get_args(Effort))}, not {effort!r}")
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    shape = native.shape if chunk_shape is None else tuple(chunk_shape)
    check_size(shape, writing=True)
    if isinstance(bound, float | int):
        bound = Bound("absolute", float(bound))
    if bound is not None and (bound.kind == "iou" or (bound.kind == "rate" and shapes.is_solid(native))):
        return _for_shapes(_Job(native, field, shape, None, effort), bound)
    if latents is None:
        latents = latents_of(values, field)
    if bound is not None and bound.kind == "relative":
        latents = None  # the model predicts no logarithms
    candidates: Priors | None = None
    if latents is not None:
        candidates = Latents(field, latents, native.shape, rate)
    elif bound is None or bound.kind != "relative":
        candidates = _patch_priors(native, field, rate)
    job = _Job(native, field, shape, candidates, effort)
    if bound is None or bound.kind in ("absolute", "relative"):
        return job.within(bound)
    return _for_psnr(job, bound) if bound.kind == "psnr" else _for_rate(job, bound)


def _patch_priors(values: np.ndarray, field: Field, rate: int | None) -> PatchPriors | None:
    """The priors of experts for patches; None where the field has no such model that fits the values."""
    model = field.model
    if not isinstance(model, PatchModel) or values.dtype.kind not in "fiu" or values.size == 0:
        return None
    if not prior.applies(field, values.shape):
        return None
    return PatchPriors(field, model, field.grid_of(values.shape), field.signal_of(values.shape), rate)


def _for_shapes(job: _Job, bound: Bound) -> Encoded:
    """Encode shapes so that they keep the mean IoU or the rate of `bound`, without loss where that takes no more."""
    exact = job.within(None)
    exact = replace(exact, ious=ious(job.values, job.values))
    allowed = job.allowed(bound)
    if bound.kind == "iou":
        found = shapes.for_iou(job.values, bound.value, job.effort) if bound.value < 1.0 else None
    elif len(exact.data) <= allowed:
        found = None
    else:
        around = len(job.chunk_of(b"").pack(0))
        found = shapes.for_bytes(job.values, allowed - around, job.effort)
        if found is None and allowed > 0:
            raise _beyond_rate(job, bound, len(exact.data))
    return exact if found is None else min(exact, job.simplified(found.stream, bound), key=lambda e: len(e.data))


def _beyond_rate(job: _Job, bound: Bound, least: int) -> BoundError:
    """The error where a chunk needs at least so many bytes, which are more than a rate allows."""
    return BoundError(
        f"{job.values.size} values cannot be coded in {bound.value:g} bits each (at least "
        f"{8 * least / job.values.size:.3g}); allow more or take larger chunks"
    )


def _for_psnr(job: _Job, bound: Bound) -> Encoded:
    """Encode a chunk so that it has at least the PSNR of `bound`."""
    spread = job.spread
    if not 0.0 < spread < LARGEST or bound.peak >= 1e150:  # the square of such a peak would overflow
        return job.exact()
    if isinstance(job.latents, PatchPriors) and job.latents.rate is None:
        return _patches_for_psnr(job, PsnrTarget(bound, spread, RATES, 0.0, PER_HALVING))
    rates, slack = 0, 0.0
    if job.latents is not None:
        rates = 0 if job.latents.rate is not None else len(job.latents.rates)
        offset, scale = job.field.scaling
        slack = job.latents.slack((np.array([job.valid.min(), job.valid.max()], np.float64) - offset) / scale)
    return meet_psnr(
        PsnrTarget(bound, spread, rates, slack), at_rate=lambda rate: job.within(None, alone=rate),
        at_error=lambda error: job.within(Bound("absolute", error), mean=True), exact=job.exact,
    )  # fmt: skip


def _patches_for_psnr(job: _Job, target: PsnrTarget) -> Encoded:
    """Encode a chunk by patches alone, or without them where that may need fewer bytes."""
    best = coarsest_rate(target, lambda rate: job.within(None, alone=rate))
    plain = replace(job, latents=None)

    def at_error(error: float) -> Encoded:
        return plain.within(Bound("absolute", error), mean=True)

    if best is not None:
        quick = replace(plain, effort="fast").within(Bound("absolute", target.error), mean=True)
        if len(quick.data) > _FAR * len(best.data):
            return best
    other = meet_psnr(replace(target, rates=0), lambda rate: plain.exact(), at_error, plain.exact)
    return other if best is None or len(other.data) < len(best.data) else best


def _for_rate(job: _Job, bound: Bound) -> Encoded:
    """Encode a chunk in at most as many bits per value as `bound` says; raises BoundError where that is impossible."""
    allowed, spread = job.allowed(bound), job.spread
    if 0.0 < spread < LARGEST:
        if isinstance(job.latents, PatchPriors):
            return _patches_for_rate(job, bound, allowed)
        encoded = meet_rate(job.within_error, allowed, spread)
        if job.effort == "fast" and len(encoded.data) > allowed:  # search thoroughly before giving up
            encoded = meet_rate(replace(job, effort="best").within_error, allowed, spread)
    else:
        encoded = job.exact()
    if len(encoded.data) > allowed > 0:
        raise _beyond_rate(job, bound, len(encoded.data))
    return encoded


def _patches_for_rate(job: _Job, bound: Bound, allowed: float) -> Encoded:
    """Encode a chunk in so many bytes by patches alone, or without them where the error may then be smaller."""
    patched = finest_rate(lambda rate: job.within(None, alone=rate), allowed, RATES)
    plain = replace(job, latents=None)
    if len(patched.data) > allowed:
        return _for_rate(plain, bound)
    error = math.sqrt(3 * patched.squared_error / max(1, patched.valid))
    quick = replace(plain, effort="fast").within(Bound("absolute", error), mean=True)
    if len(quick.data) > _FAR * len(patched.data):
        return patched
    try:
        return min(patched, _for_rate(plain, bound), key=lambda encoded: encoded.squared_error)
    except BoundError:  # only patches need so few bytes
        return patched


_FAR = 1.5
"""Factor on the bytes of patches: where quick coding without them needs more than that, no thorough one is tried."""
_LARGE = 1 << 16  # bytes of values from which on a chunk is large
_SMALL = {"best": 1 / 8, "fast": 1 / 2}
"""Share of the values' own size up to which lossless coding, which takes time, is not tried for a large chunk.

Values of one or two kinds are an exception, since nothing else codes them in so few bytes."""


@dataclass(frozen=True, eq=False)
class _Job:
    """A chunk's values, in native byte order, to be encoded under one bound after another."""

    values: np.ndarray
    field: Field
    chunk_shape: tuple[int, ...]
    latents: Priors | None
    effort: Effort

    @property
    def valid(self) -> np.ndarray:
        """The valid values, for which a bound is kept, in one dimension."""
        if self.values.dtype.kind not in "fiu":
            return self.values.ravel()[:0]
        return only_valid(self.values, self.field.fill)

    @property
    def spread(self) -> float:
        """The difference between the largest and the smallest valid value."""
        valid = self.valid
        return float(valid.max()) - float(valid.min()) if valid.size else 0.0

    def allowed(self, bound: Bound) -> float:
        """The bytes that a rate allows; 0 where `bound` is none, or asks for nothing."""
        return allowed_bytes(bound.value, self.values.shape, self.chunk_shape) if bound.value > 0 else 0.0

    def exact(self) -> Encoded:
        """Encode without any error, by the residual coder if it needs fewer bytes than lossless coding."""
        return self.within(Bound("absolute", 0.0))

    def within_error(self, error: float) -> Encoded:
        """Encode within an absolute bound."""
        return self.within(Bound("absolute", error))

    def within(self, bound: Bound | None, *, alone: int | None = None, mean: bool = False) -> Encoded:
        """Encode within a pointwise bound, or without any bound.

        Parameters
        ----------
        bound : Bound or None
            An absolute or relative bound. None stores the model's prior without a residual.
        alone : int, optional
            The rate of that prior; the finest by default.
        mean : bool
            Whether it is the mean squared error that counts. The bound then only sets the residual coder's step, and
            values may miss it.
        """
        values, field = self.values, self.field
        extent = extent_section(values.shape, self.chunk_shape)
        if values.size == 0 or values.dtype.kind not in "fiu" or (bound is None and self.latents is None):
            return self._lossless(extent, bound)
        common, signals = extent, gather(values, field.value_axes)  # `common`: sections that all candidates share
        valid = valid_values(signals, field.fill)
        tolerance: float | None = None
        if bound is not None and bound.kind == "relative":
            valid &= signals != 0  # zeros have no logarithm; the mask keeps them exactly
            with np.errstate(divide="ignore"):
                target = np.where(valid, np.log(np.abs(np.where(valid, signals, 1).astype(np.float64))), 0.0)
            common |= log_section(signals, valid, quick=self.effort == "fast")
            tolerance = log_tolerance_of(bound.value, values.dtype)
        else:
            target = (signals if valid.all() else np.where(valid, signals, 0)).astype(np.float64, order="C")
        largest = float(max(target.max(), -target.min()))  # what is not valid is 0
        if bound is not None and tolerance is None:
            tolerance = tolerance_of(bound.value, values.dtype, largest)
        common |= mask_sections(signals, valid, quick=self.effort == "fast")
        planes, counts = field.planes_of(values.shape), field.counts_of(values.shape)
        trial = Trial(target, valid, planes, counts, tolerance, largest, mean, field.positions)
        promised = None if mean else bound
        candidate = self._candidate(trial, alone)
        if candidate is None:
            return self._lossless(extent, promised)
        chunk = Chunk(LOSSY, common | candidate.sections, candidate.stream)
        data, decoded, measured = self._decoded(chunk, promised)
        if measured.missed.size:
            chunk = replace(chunk, sections=chunk.sections | exceptions_section(values, measured.missed))
            data, decoded, measured = self._decoded(chunk, promised)
        small = len(data) <= _SMALL[self.effort] * values.nbytes and values.nbytes >= _LARGE
        if not small or lossless.patterns_of(values) is not None:
            exact = self._lossless(extent, promised, quick=self.effort == "fast")
            if len(exact.data) <= len(data):
                return exact
        names = [name for name, used in (("prior", candidate.rate), ("residual", candidate.plan)) if used is not None]
        parts = {name: len(section) for name, section in chunk.sections.present.items()}
        parts["stream"] = len(chunk.stream)
        return self._checked(data, decoded, measured, "+".join(names) or "constant", parts)

    def _candidate(self, trial: Trial, alone: int | None) -> Candidate | None:
        """The best candidate for the effort, or the prior alone without a tolerance; None where neither is possible."""
        if trial.tolerance is None:
            assert self.latents is not None
            return prior_alone(self.latents.make_prior(trial, self.latents.rates[-1] if alone is None else alone))
        return (best_candidate if self.effort == "best" else quick_candidate)(trial, self.latents)

    def _lossless(self, sections: Sections, bound: Bound | None, *, quick: bool = False) -> Encoded:
        """The values coded losslessly, with the section of the extent; `bound` is checked all the same.

        `quick`: whether time counts more than bytes.
        """
        stream = lossless.encode(self.values, quick=quick)
        data, decoded, measured = self._decoded(Chunk(LOSSLESS, sections, stream), bound)
        return self._checked(data, decoded, measured, "lossless", {"lossless": len(data)})

    def chunk_of(self, stream: bytes) -> Chunk:
        """The chunk whose stream holds values losslessly, be they the chunk's own or simpler ones."""
        return Chunk(LOSSLESS, extent_section(self.values.shape, self.chunk_shape), stream)

    def simplified(self, stream: bytes, bound: Bound) -> Encoded:
        """Shapes made simpler, coded as `stream`; the IoU that `bound` may ask for is checked."""
        data, decoded, _ = self._decoded(self.chunk_of(stream), None)
        found = ious(self.values, decoded)
        if bound.kind == "iou" and found.mean() < bound.value:
            raise BoundError(
                f"variable {self.field.variable!r}: decoding gave shapes of IoU {found.mean():g}, below "
                f"{bound.value:g}; this is a defect of vcinr, nothing was written"
            )
        wrong = float((decoded != self.values).sum())
        return Encoded(data, float(wrong > 0), wrong, self.values.size, "shapes", {"stream": len(stream)}, found)

    def _decoded(self, chunk: Chunk, bound: Bound | None) -> tuple[bytes, np.ndarray, Comparison]:
        """The bytes of a chunk, the values that they decode to inside the array, and the errors of these."""
        values = self.values
        data = chunk.pack(seed_of(self.field, values.dtype, self.chunk_shape))
        decoded = decode(data, self.chunk_shape, values.dtype, self.field)[tuple(slice(n) for n in values.shape)]
        return data, decoded, compare(values, decoded, self.field.fill, bound)

    def _checked(
        self, data: bytes, decoded: np.ndarray, measured: Comparison, mode: str, parts: dict[str, int]
    ) -> Encoded:
        """The result, from what has been decoded; raises BoundError should the bound not hold after all."""
        if not measured.exact or measured.missed.size:
            changed = "" if measured.exact else ", and changed masked values"
            raise BoundError(
                f"variable {self.field.variable!r}: decoding gave {measured.missed.size} values outside the bound, the "
                f"largest error being {measured.worst:g}{changed}; this is a defect of vcinr, nothing was written"
            )
        return Encoded(data, measured.worst, measured.squared, measured.count, mode, parts)
