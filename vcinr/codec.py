"""Chunk codec: an array with named signal axes to bytes and back, within an error bound that was checked.

Encoding follows one recipe: (1) set aside what is not a number to be bounded (mask, coded losslessly); (2) try
priors (none, and the model's at the rates and lengths that promise most: the latents are quantised, then *decoded
again* by the decoder's own code); (3) code what is left with a residual coder at a step that leaves room for rounding
to the output type and for the decoder's slack between machines; (4) keep the smallest of the candidates, lossless
among them; (5) decode the very bytes, store the values that miss the bound verbatim, and decode again.

Chunk, little-endian: ``VC`` | u8 version | u8 mode | u32 CRC-32 of all else and of the field | u16 flags |
the sections that the flags announce, in the order of `_Section`, each a LEB128 length and its bytes | stream. In mode 0
(lossless) the stream is the shuffled, deflated bytes; in mode 1 the bitstream of the latents. The
checksum starts from a digest of the field, dtype and chunk shape (`seed_of`), so a chunk read under other metadata
than it was written with is an error, not another value.
"""

from __future__ import annotations

import enum
import json
import math
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from vcinr.coding import mask as side
from vcinr.coding import residual
from vcinr.coding.exponential import exponentiate
from vcinr.coding.restore import restore
from vcinr.errors import BoundError, CorruptError, InputError, ModelError
from vcinr.inr.model import Model
from vcinr.inr.ridge import linear_latents
from vcinr.quantise.refine import outside_bits, refine
from vcinr.quantise.state import Quantiser
from vcinr.signals import coordinates, normalise
from vcinr.signals.tiling import gather, unsplit

VERSION = 1
_MAGIC = b"VC"
_LOSSLESS, _LOSSY = 0, 1
MAX_VALUES = int(os.environ.get("VCINR_MAX_CHUNK_VALUES", 1 << 27))
"""Values that a chunk may declare: decoding takes up to 40 bytes of memory for each of them."""
_LARGEST = 1e30  # larger values are coded losslessly: means and differences of them may overflow


Kind = Literal["absolute", "relative", "psnr", "rate"]
Effort = Literal["fast", "best"]
"""How hard a writer tries; both keep the same promises, and nothing of it is stored."""


@dataclass(frozen=True)
class Bound:
    """What a chunk promises.

    absolute: |x - x^| <= value; relative: |x - x^| <= value * |x| at every point, zeros exact; psnr: at least
    `value` dB with peak `peak` over the chunk; rate: at most `value` bits per value. The first two hold for every
    valid value in the array's own dtype.
    """

    kind: Kind
    value: float
    peak: float = 1.0


class _Section(enum.IntFlag):
    EXTENT = 1
    MASK = 2
    SPECIALS = 4
    PRIOR = 8
    CONSTANT = 16
    RESIDUAL = 32
    EXCEPTIONS = 64
    LOG = 128


_SECTIONS = tuple(_Section)


@dataclass(frozen=True)
class Field:
    """What writer and reader of a field's chunks both know.

    variable: its name in the model, if any; signal_axes: the array axes that are a signal's grid, in the
    coordinate system's order; axes: their coordinate values (float64); model: the prior, if any, which sees
    (value - offset) / scale where `scaling` is (offset, scale); fill: the values that stand for missing besides
    NaN (CF ``_FillValue``, ``missing_value``); limits: CF's valid range, to which what is decoded is clipped, so that
    no value leaves it.
    """

    variable: str
    signal_axes: tuple[int, ...]
    axes: tuple[np.ndarray, ...]
    model: Model | None = None
    scaling: tuple[float, float] = (0.0, 1.0)
    fill: tuple[float | int, ...] = ()
    limits: tuple[float, float] | None = None

    @cached_property
    def _digests(self) -> dict[tuple[np.dtype, tuple[int, ...]], int]:
        """What `seed_of` has found."""
        return {}


@dataclass(frozen=True)
class Encoded:
    """A chunk's bytes and what was measured by decoding them.

    max_abs_error: over the valid values, in their own dtype; squared_error and valid: sum and count, for PSNR;
    mode: ``lossless``, ``residual``, ``prior`` or ``prior+residual``; parts: bytes by section.
    """

    data: bytes
    max_abs_error: float
    squared_error: float
    valid: int
    mode: str
    parts: dict[str, int]


@dataclass(frozen=True)
class _Prior:
    """What is subtracted before the residual coder: decoded latents, or a constant (`rate` None).

    sections and stream: how the chunk says it. slack: how far another machine's decoder may be off, in the numbers as
    stored.
    """

    rate: int | None
    values: np.ndarray
    sections: dict[_Section, bytes]
    stream: bytes
    slack: float


@dataclass(frozen=True)
class _Candidate:
    """One way to code a chunk: the sections it needs and its bitstream."""

    rate: int | None
    plan: residual.Plan | None
    sections: dict[_Section, bytes]
    stream: bytes

    @property
    def cost(self) -> int:
        return len(self.stream) + sum(1 + len(s) for s in self.sections.values())


def encode(
    values: np.ndarray, field: Field, bound: Bound | float | None, *, rate: int | None = None,
    chunk_shape: tuple[int, ...] | None = None, latents: np.ndarray | None = None, effort: Effort = "best",
) -> Encoded:  # fmt: skip
    """Compress one chunk.

    values: any real dtype and shape, all of a chunk of `chunk_shape` that lies inside the array; what is finite
    and not in `field.fill` is kept within `bound` (a number is an absolute one), everything else exactly. Without a
    bound the model's finest rate alone is used, and without a model too the chunk is stored losslessly. With `rate`
    the model's prior at that rate is the only one tried. `latents` are the model's for these values (`latents_of`),
    where they are known already. `effort` "fast" tries one prior and one plan, found from a sample; "best" looks for
    the fewest bytes. Raises ModelError when the model cannot be applied, BoundError for a rate too low to
    reach, InputError for a chunk of more than `MAX_VALUES`.
    """
    values = np.asarray(values)
    if effort not in get_args(Effort):
        raise InputError(f"effort is one of {', '.join(get_args(Effort))}, not {effort!r}")
    if latents is None:
        latents = latents_of(values, field)
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    shape = native.shape if chunk_shape is None else tuple(chunk_shape)
    check_size(shape, writing=True)
    if isinstance(bound, float | int):
        bound = Bound("absolute", float(bound))
    if bound is not None and bound.kind == "relative":
        latents = None  # the model predicts no logarithms
    offered = None
    if latents is not None:
        offered = _Latents(field, latents, gather(native, field.signal_axes).shape[1:], rate)
    run = partial(_encode, native, field, chunk_shape=shape, latents=offered, effort=effort)
    if bound is None or bound.kind in ("absolute", "relative"):
        return run(bound)
    kept = native[valid_values(native, field.fill)] if native.dtype.kind in "fiu" else native.ravel()[:0]
    spread = float(kept.max()) - float(kept.min()) if kept.size else 0.0
    spreads = 0.0 < spread < _LARGEST
    if bound.kind == "psnr":
        if not spreads or bound.peak >= 1e150:
            return run(Bound("absolute", 0.0))
        alone = 0 if offered is None or rate is not None else len(offered.rates)
        offset, scale = field.scaling
        ends = (np.array([kept.min(), kept.max()], np.float64) - offset) / scale
        return _search_psnr(run, bound, spread, alone, 0.0 if offered is None else offered.slack(ends))
    encoded = _search_rate(run, bound, spread, native) if spreads else run(Bound("absolute", 0.0))
    if effort == "fast" and 8 * len(encoded.data) > bound.value * native.size and spreads:
        encoded = _search_rate(partial(run, effort="best"), bound, spread, native)  # before it is given up
    if 8 * len(encoded.data) > bound.value * native.size > 0:
        raise BoundError(
            f"{native.size} values cannot be coded in {bound.value:g} bits each (at least "
            f"{8 * len(encoded.data) / native.size:.3g}); allow more or take larger chunks"
        )
    return encoded


def _search_psnr(run: Callable[..., Encoded], bound: Bound, spread: float, rates: int, slack: float) -> Encoded:
    """The coarsest absolute bound that still meets the PSNR, within a few per cent, or rate of the prior alone.

    slack: how far another machine's decoder of a prior may be off.
    """
    allowed = bound.peak**2 * 10 ** (-bound.value / 10)

    def room(encoded: Encoded) -> float:
        rms = math.sqrt(encoded.squared_error / max(1, encoded.valid))
        return allowed / max((rms + (slack if encoded.mode.startswith("prior") else 0.0)) ** 2, 1e-300)

    best, first, last = None, 0, rates
    while first < last:
        middle = (first + last) // 2
        encoded = run(None, alone=middle)
        if room(encoded) >= 1:
            best, last = encoded, middle
        else:
            first = middle + 1
    error, met = min(math.sqrt(3 * allowed), spread), False
    for _ in range(12):
        encoded = run(Bound("absolute", error), mean=True)
        ratio = room(encoded)
        met |= ratio >= 1
        if ratio >= 1 and (best is None or len(encoded.data) < len(best.data)):
            best = encoded
        if met and (ratio < 1.06 or error >= spread):
            break
        error = min(error * min(max(0.98 * math.sqrt(ratio), 0.25), 3.0), spread)
    return best or run(Bound("absolute", 0.0))


def psnr_db(peak: float, squared_error: float, count: int) -> float:
    """PSNR of a sum of squared errors over `count` values; without overflow."""
    return 20 * math.log10(peak) - 10 * math.log10(squared_error / count)


def _search_rate(run: Callable[[Bound], Encoded], bound: Bound, spread: float, values: np.ndarray) -> Encoded:
    """The finest absolute bound whose chunk is small enough, by bisection of its logarithm, or the coarsest."""
    allowed = bound.value * values.size / 8
    low, high = spread * 2.0**-40, spread
    best = run(Bound("absolute", high))
    if len(best.data) > allowed:
        return best
    for _ in range(14):
        middle = math.sqrt(low * high)
        encoded = run(Bound("absolute", middle))
        if len(encoded.data) <= allowed:
            best, high = encoded, middle
        else:
            low = middle
    return best


def _encode(
    native: np.ndarray, field: Field, bound: Bound | None, *, chunk_shape: tuple[int, ...],
    latents: _Latents | None, effort: Effort, alone: int | None = None, mean: bool = False,
) -> Encoded:  # fmt: skip
    """`encode` for a pointwise bound or none: then the model's prior `alone`, or else at its finest rate.

    mean: what counts is the mean squared error; the bound says how fine to be, and values may miss it.
    """
    seed = seed_of(field, native.dtype, chunk_shape)
    sections: dict[_Section, bytes] = {}
    if chunk_shape != native.shape:
        sections[_Section.EXTENT] = b"".join(_leb128(n) for n in native.shape)

    def exact() -> Encoded:
        data = _assemble(_LOSSLESS, sections, side.encode_lossless(native), seed)
        decoded = _cropped(data, native, field, chunk_shape)
        found = _compared(native, decoded, field.fill, bound)
        return _measured(data, native, decoded, found, field, "lossless", {"lossless": len(data)})

    if native.size == 0 or native.dtype.kind not in "fiu" or (bound is None and latents is None):
        return exact()
    signals = gather(native, field.signal_axes)
    valid, log = valid_values(signals, field.fill), {}
    tolerance: float | None = None
    if bound is not None and bound.kind == "relative":
        valid &= signals != 0
        with np.errstate(divide="ignore"):
            target = np.where(valid, np.log(np.abs(np.where(valid, signals, 1).astype(np.float64))), 0.0)
        log = {_Section.LOG: _signs(signals, valid)}
        tolerance = math.log1p(bound.value) - 1e-12
        if native.dtype.kind == "f":
            tolerance -= float(np.finfo(native.dtype).eps)
    else:
        target = (signals if valid.all() else np.where(valid, signals, 0)).astype(np.float64)
        if bound is not None:
            tolerance = _tolerance(bound.value, native.dtype, float(np.abs(target[valid]).max(initial=0.0)))
    coded = sections | log | _mask_sections(signals, valid)
    index = _index(native.shape, field)
    planes = residual.planes(index, target.shape[1:])
    trial = _Trial(target, valid, planes, residual.signal_counts(index), tolerance, mean)
    bound = None if mean else bound
    if tolerance is None:
        assert latents is not None
        candidate: _Candidate | None = _bare(latents.prior(trial, latents.rates[-1] if alone is None else alone))
    else:
        candidate = (_best if effort == "best" else _quick)(trial, latents)
    if candidate is None:
        return exact()
    coded |= candidate.sections
    data = _assemble(_LOSSY, coded, candidate.stream, seed)
    decoded = _cropped(data, native, field, chunk_shape)
    found = _compared(native, decoded, field.fill, bound)
    if found.missed.size:
        coded[_Section.EXCEPTIONS] = _exceptions(native, found.missed)
        data = _assemble(_LOSSY, coded, candidate.stream, seed)
        decoded = _cropped(data, native, field, chunk_shape)
        found = _compared(native, decoded, field.fill, bound)
    if len(data) > _SMALL[effort] * native.nbytes or native.nbytes < 1 << 16:
        lossless = exact()
        if len(lossless.data) <= len(data):
            return lossless
    names = [n for n, used in (("prior", candidate.rate), ("residual", candidate.plan)) if used is not None]
    parts = {s.name.lower(): len(b) for s, b in coded.items() if s.name} | {"stream": len(candidate.stream)}
    return _measured(data, native, decoded, found, field, "+".join(names) or "constant", parts)


_SMALL = {"best": 1 / 8, "fast": 1 / 2}  # of the values' own size: below it large chunks are not tried losslessly


def _cropped(data: bytes, values: np.ndarray, field: Field, chunk_shape: tuple[int, ...]) -> np.ndarray:
    """A chunk decoded as a reader would, cut to the part that lies inside the array."""
    return decode(data, chunk_shape, values.dtype, field)[tuple(slice(n) for n in values.shape)]


def decode(
    data: bytes, chunk_shape: tuple[int, ...], dtype: np.dtype, field: Field, *, padding: float | int = 0
) -> np.ndarray:
    """Decompress a chunk to ``chunk_shape`` of `dtype` in native byte order.

    A chunk that reaches beyond its array is filled there with `padding`.
    Raises CorruptError for bytes that are not a chunk or of another shape, ModelError when a prior is needed
    and the field has no model.
    """
    native, chunk_shape = np.dtype(dtype).newbyteorder("="), tuple(chunk_shape)
    check_size(chunk_shape)
    mode, sections, stream = _disassemble(data, seed_of(field, native, chunk_shape))
    shape = _extent(sections.get(_Section.EXTENT), chunk_shape)
    inner = _reconstruct(mode, sections, stream, shape, native, field)
    if shape == chunk_shape:
        return inner
    out = np.full(chunk_shape, padding, native)
    out[tuple(slice(n) for n in shape)] = inner
    return out


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


def seed_of(field: Field, dtype: np.dtype, chunk_shape: tuple[int, ...]) -> int:
    """CRC-32 of all that decoding a chunk depends on besides its bytes."""
    seed = field._digests.get((dtype, chunk_shape))
    if seed is not None:
        return seed
    known = (
        field.variable, field.signal_axes, [[float(v).hex() for v in axis] for axis in field.axes],
        field.model.sha256 if field.model else None, [float(v).hex() for v in field.scaling],
        [float(f).hex() if dtype.kind == "f" else str(f) for f in field.fill],
        None if field.limits is None else [float(v).hex() for v in field.limits],
        dtype.newbyteorder("<").str, chunk_shape,
    )  # fmt: skip
    seed = field._digests[dtype, chunk_shape] = zlib.crc32(json.dumps(known, separators=(",", ":")).encode())
    return seed


def _reconstruct(
    mode: int, sections: dict[_Section, bytes], stream: bytes, shape: tuple[int, ...], native: np.dtype, field: Field
) -> np.ndarray:
    """Values ``shape`` from the parts of a chunk."""
    count = math.prod(shape)
    if mode == _LOSSLESS:
        return side.decode_lossless(stream, count, native).reshape(shape)
    grid = tuple(shape[a] for a in field.signal_axes)
    n = count // max(1, math.prod(grid))
    planes, valid = residual.planes(_index(shape, field), grid), None
    if _Section.MASK in sections:
        valid = ~side.decode_mask(sections[_Section.MASK], (n, *grid))
    prior: np.ndarray | None = None
    if _Section.PRIOR in sections:
        if field.model is None:
            raise ModelError(f"variable {field.variable!r}: this chunk needs its model, which is not at hand")
        if not _applies(field, shape):
            raise CorruptError("chunk has a prior but not the grid of its field")
        quantiser = _quantiser(field.model)
        rate, coder = _rate(sections[_Section.PRIOR])
        z = quantiser.decode(coder, stream, *residual.signal_counts(_index(shape, field)), rate).reshape(n, -1)
        prior = _evaluated(field, field.model, quantiser.dequantise(z, rate), grid)
    constant = _number(sections[_Section.CONSTANT], "<f") if _Section.CONSTANT in sections else 0.0
    left: np.ndarray | None = None
    if _Section.RESIDUAL in sections:
        section = sections[_Section.RESIDUAL]
        step, plan = _number(section[:8], "<d"), residual.Plan.from_bytes(section[8:9])
        if step <= 0:
            raise CorruptError("residual step is malformed")
        there = None if valid is None else valid.reshape(planes)
        left = residual.decode(section[9:], planes, step, plan, there).reshape(n, *grid)
    signs = _read_signs(sections[_Section.LOG], (n, *grid)) if _Section.LOG in sections else None
    out = np.empty((n, *grid), native)
    if native in _RESTORED and signs is None:
        restore(prior, field.scaling, constant, left, _limits(native, field.limits), out)
    else:
        recon = np.empty(out.shape)
        restore(prior, field.scaling, constant, left, (-math.inf, math.inf), recon)
        if signs is not None:
            exponentiate(recon.reshape(-1))
            recon *= signs
        out[:] = _to_dtype(recon, native, field.limits)
    if valid is not None:
        specials = sections.get(_Section.SPECIALS, b"")
        out[~valid] = _decode_specials(specials, int((~valid).sum()), native)
    out = np.asarray(unsplit(out, shape, field.signal_axes), order="C")
    if _Section.EXCEPTIONS in sections:
        _apply_exceptions(out, sections[_Section.EXCEPTIONS])
    return out


_RESTORED = (np.dtype(np.float32), np.dtype(np.float64))  # types that are restored in one pass


def describe(data: bytes) -> dict[str, int | str | None]:
    """Mode and section sizes of a chunk, as it states them: its checksum, which needs the field, is not checked."""
    mode, sections, stream = _disassemble(data, None)
    if mode == _LOSSLESS:
        return {"mode": "lossless", "bytes": len(data)}
    sizes: dict[str, int | str | None] = {s.name.lower(): len(b) for s, b in sections.items() if s.name}
    rate = _rate(sections[_Section.PRIOR])[0] if _Section.PRIOR in sections else None
    return {"mode": "lossy", "bytes": len(data), "rate": rate, **sizes, "stream": len(stream)}


def _applies(field: Field, shape: tuple[int, ...]) -> bool:
    """Whether the field's model can be evaluated on a chunk of `shape`: it covers the whole grid."""
    if field.model is None or not field.model.quantiser:
        return False
    return tuple(shape[a] for a in field.signal_axes) == tuple(len(a) for a in field.axes)


def _index(shape: tuple[int, ...], field: Field) -> tuple[int, ...]:
    """Lengths of the axes that count signals."""
    return tuple(n for a, n in enumerate(shape) if a not in field.signal_axes)


def valid_values(signals: np.ndarray, fill: tuple[float | int, ...]) -> np.ndarray:
    """Where values are finite and none of the fill values: what a bound is kept for."""
    valid = np.isfinite(signals) if signals.dtype.kind == "f" else np.ones(signals.shape, bool)
    for value in fill:
        valid &= signals != np.asarray(value).astype(signals.dtype)
    return valid


def _evaluated(field: Field, model: Model, moved: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """The model's output ``[n, *grid]`` float32 for latents relative to the variable's phi_0."""
    return model.reconstruct(model.start(field.variable) + moved, _inputs(field, model))[..., 0].reshape(-1, *grid)


def _scaled(field: Field, evaluated: np.ndarray) -> np.ndarray:
    """The model's output in the data's units, float64."""
    offset, scale = field.scaling
    values = evaluated.astype(np.float64)
    values *= scale
    values += offset
    return values


def _inputs(field: Field, model: Model) -> np.ndarray:
    """The network's inputs on the field's grid; those of the last grid are kept."""
    return model.once("inputs", field.axes, lambda: coordinates.inputs(dict(model.system), field.axes))


def _quantiser(model: Model) -> Quantiser:
    """The model's quantiser, made once."""
    known = model.once("quantiser", (), lambda: Quantiser.from_tensors(model.quantiser))
    if known.offset.shape[1] != model.spec.latent:
        raise ModelError(f"model {model.sha256[:12]}: the quantiser is not of this network's latents")
    return known


def latents_of(values: np.ndarray, field: Field) -> np.ndarray | None:
    """The model's latents ``[n, d]`` of a chunk's signals, relative to phi_0; None where no model applies.

    Raises ModelError when torch, which an inner loop by gradient needs, is not installed.
    """
    model = field.model
    if model is None or not _applies(field, values.shape) or values.dtype.kind not in "fiu" or values.size == 0:
        return None
    offset, scale = field.scaling
    signals = gather(values, field.signal_axes)
    valid = valid_values(signals, field.fill)
    target = np.where(valid, signals, offset).astype(np.float64).reshape(len(signals), -1, 1)
    y, weight = normalise(target, None if valid.all() else valid.reshape(len(valid), -1), offset, scale)
    x = _inputs(field, model)
    variable = np.full(len(y), model.index(field.variable), np.int64)
    if model.linear:
        return linear_latents(model, x, y, weight, variable) - model.start(field.variable)
    try:
        from vcinr.meta.extract import find_latents
    except ImportError:
        raise ModelError(
            "compressing with this model needs torch for its inner loop: pip install 'vcinr[train]', "
            "or compress without a model"
        ) from None
    return find_latents(model, x, y, weight, variable) - model.start(field.variable)


def _best(trial: _Trial, latents: _Latents | None) -> _Candidate | None:
    """The smallest candidate; None when only lossless coding will do."""
    kept = trial.kept(trial.target)
    if not trial.possible:
        return None
    best = None if latents is None else _climb(trial, latents)
    if latents is None or latents.rate is None:
        mean, plain = _constants(kept)
        for value, plan in ((mean, residual.Plan()), (mean if plain is None else plain, residual.Plan("plain"))):
            prior = _constant(trial, value)
            if best is not None and trial.start_costs(prior, plan) > 1.2 * best.cost:
                continue
            candidate = trial(prior, plan)
            if _cost(candidate) < 1.2 * _cost(best):
                best = min(best, _refined(trial, prior, plan, candidate), key=_cost)
        for value in {mean, mean if plain is None else plain}:  # quickly tried; smaller at times where codes are large
            constant = _constant(trial, value)
            best = min(best, trial(constant, trial.fast_plan(constant)[0]), key=_cost)
    return best


def _quick(trial: _Trial, latents: _Latents | None) -> _Candidate | None:
    """One candidate: the model where it should take fewer bytes, else a constant; None as for `_best`."""
    if not trial.possible:
        return None
    choice = None if latents is None else latents.cheapest(trial)
    forced = latents is not None and latents.rate is not None

    def predicted() -> _Candidate | None:
        assert latents is not None and choice is not None
        plan = residual.Plan("plain") if choice.share < _RARE else residual.Plan("interpolated", False)
        return trial(latents.prior(trial, choice.rate, choice.length, refined=False), plan)

    if choice is not None and (forced or (choice.share < _RARE and choice.length <= _SHORT)):
        found = predicted()
        if found is not None or forced:
            return found
    mean, plain = _constants(trial.kept(trial.target))
    constant = _constant(trial, mean if plain is None else plain)
    plan, size = trial.fast_plan(constant)
    wins = choice is not None and choice.bits * (_SLOWER if choice.length > _SHORT else 1.0) < 8 * size
    return (predicted() if wins else None) or trial(constant, plan) or trial(constant, residual.Plan())


_RARE = 0.002  # of the values outside the bound: rows of zeros are coded in no time
_SHORT, _SLOWER = 16, 2.0
"""To decode more latents than so many takes longer than all else, so that they have to save this much."""


def _constants(kept: np.ndarray) -> tuple[float, float | None]:
    """The mean as a float32, and what many values are equal to, if anything."""
    return float(np.float32(kept.mean() if kept.size else 0.0)), _most_common(kept)


def _constant(trial: _Trial, value: float) -> _Prior:
    return _Prior(None, np.full(trial.target.shape, value), {_Section.CONSTANT: struct.pack("<f", value)}, b"", 0.0)


def _most_common(values: np.ndarray) -> float | None:
    """A float32 value that many are equal to exactly, if any: zero in a field of rain."""
    chosen, counts = np.unique(values[:: max(1, len(values) // 10_000)], return_counts=True)
    if not len(chosen) or counts.max() < 0.02 * counts.sum():
        return None
    value = float(chosen[np.argmax(counts)])
    return value if value == float(np.float32(value)) else None


@dataclass(frozen=True)
class _Trial:
    """Codes a chunk's signals `target` ``[n, *grid]`` under a prior and a plan, within `tolerance`.

    planes: as the residual coder sees them; signals: of how many times and levels; mean: as in `_encode`.
    """

    target: np.ndarray
    valid: np.ndarray
    planes: tuple[int, int, int, int]
    signals: tuple[int, int]
    tolerance: float | None
    mean: bool

    @cached_property
    def whole(self) -> bool:
        """Whether all values are valid."""
        return bool(self.valid.all())

    def kept(self, values: np.ndarray) -> np.ndarray:
        """The valid ones of `values` ``[n, *grid]``, in one dimension."""
        return values.ravel() if self.whole else values[self.valid]

    @cached_property
    def possible(self) -> bool:
        """Whether there is anything but lossless coding."""
        assert self.tolerance is not None
        kept = self.kept(self.target)
        return self.tolerance > 0 and (not kept.size or max(kept.max(), -kept.min()) <= _LARGEST)

    def __call__(self, prior: _Prior, plan: residual.Plan) -> _Candidate | None:
        """None when the values are too large for the step, or the prior's slack for the tolerance."""
        assert self.tolerance is not None
        left = self.target - prior.values
        room = self.tolerance - prior.slack
        if room <= 0:
            return None
        kept = self.kept(left)
        if not kept.size or max(kept.max(), -kept.min()) <= room:
            return _bare(prior)  # a residual could only add to it
        step, there = 2.0 * room, None if self.whole else self.valid.reshape(self.planes)
        if self.mean and plan.predictor == "plain":
            left = np.sign(left) * np.maximum(np.abs(left) - _DEAD * step, 0.0)
        try:
            data, _ = residual.encode(left.reshape(self.planes), step, plan, there)
        except OverflowError:
            return None
        section = {_Section.RESIDUAL: struct.pack("<d", step) + plan.to_bytes() + data}
        return _Candidate(prior.rate, plan, prior.sections | section, prior.stream)

    def fast_plan(self, prior: _Prior) -> tuple[residual.Plan, float]:
        """The fastest plan, and the bytes that it should take: no number of them where values are too large for it."""
        assert self.tolerance is not None
        there = None if self.whole else self.valid.reshape(self.planes)
        left = (self.target - prior.values).reshape(self.planes)
        try:
            return residual.fast_plan(left, 2.0 * (self.tolerance - prior.slack), there)
        except OverflowError:
            return residual.Plan(), math.inf

    def start_costs(self, prior: _Prior, plan: residual.Plan) -> float:
        """Bytes that the first quarter of the times takes: the whole takes more."""
        quarter = self.planes[0] // 4
        if quarter == 0:
            return 0.0
        target, valid, values = (v.reshape(self.planes)[:quarter] for v in (self.target, self.valid, prior.values))
        part = replace(self, target=target, valid=valid, planes=target.shape)
        return _cost(part(replace(prior, values=values), plan))


def _bare(prior: _Prior) -> _Candidate:
    """The prior alone."""
    return _Candidate(prior.rate, None, prior.sections, prior.stream)


class _Choice(NamedTuple):
    """Of a model's latents: bits that they and what they leave should take, rate, how many, what share they leave."""

    bits: float
    rate: int
    length: int
    share: float


@dataclass(frozen=True)
class _Latents:
    """The priors that a model offers for a chunk: its latents ``[n, d]`` at every rate.

    grid: of the signals; rate: the only one to be tried, if any; made: what `rounded` has made, for the next trial.
    """

    field: Field
    latents: np.ndarray
    grid: tuple[int, ...]
    rate: int | None
    made: dict[int, tuple[np.ndarray, np.ndarray]] = dataclass_field(default_factory=dict)

    @property
    def model(self) -> Model:
        """The field's."""
        assert self.field.model is not None
        return self.field.model

    @property
    def rates(self) -> list[int]:
        """Those to be tried; raises ModelError for one that the model does not have."""
        rates = _quantiser(self.model).rates
        if self.rate is None:
            return list(range(rates))
        if not 0 <= self.rate < rates:
            raise ModelError(f"the model has the rates 0 to {rates - 1}, not {self.rate}")
        return [self.rate]

    def slack(self, output: np.ndarray) -> float:
        """How far another machine's decoder may be off where the network gives `output`: rounding grows with it."""
        return self.model.slack * abs(self.field.scaling[1]) * max(1.0, float(np.abs(output).max(initial=0.0)))

    @property
    def lengths(self) -> list[int]:
        """How many latents may be enough, fewer and fewer to none, where they come in order of importance."""
        d = self.model.spec.latent
        return list(dict.fromkeys(d >> k for k in (2, 3, 4, 5, d.bit_length()))) if self.model.linear else []

    def rounded(self, rate: int, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The first `length` latents quantised at `rate`, and the model's output for them ``[n, *grid]`` float32."""
        if length is not None:
            z = self.rounded(rate)[0].copy()
            z[:, length:] = 0
            return z, self._output(z, rate)
        if rate not in self.made:
            z = _quantiser(self.model).quantise(self.latents, rate)
            found = z, self._output(z, rate)
            if found[1].size > _KEPT:
                return found
            self.made[rate] = found
        return self.made[rate]

    def prior(self, trial: _Trial, rate: int, length: int | None = None, *, refined: bool = True) -> _Prior:
        """The first `length` latents quantised at `rate` and decoded again.

        refined: for the tolerance there is, and coded best.
        """
        z, output = self.rounded(rate, length)
        if refined and (better := self._refined(trial, z, rate, length, output)) is not None:
            z, output = better, self._output(better, rate)
        coder, data = _quantiser(self.model).code(z.reshape(*trial.signals, -1), rate, quick=not refined)
        section = {_Section.PRIOR: bytes([rate << 3 | coder])}
        return _Prior(rate, _scaled(self.field, output), section, data, self.slack(output))

    def error(self, trial: _Trial, rate: int) -> float:
        """RMS error of the prior at `rate`."""
        missing = trial.kept(trial.target - _scaled(self.field, self.rounded(rate)[1]))
        return math.sqrt(float(np.square(missing).mean())) if missing.size else 0.0

    def cheapest(self, trial: _Trial) -> _Choice | None:
        """What should take the fewest bytes, by a sample of the values; None where all leave too much outside.

        A linear head's first few latents, unless all of them take far fewer bytes.
        """
        quantiser, model, points = _quantiser(self.model), self.model, math.prod(self.grid)
        chosen = slice(None, None, max(1, min(len(self.latents) * points // _SAMPLE, points // _SAMPLED)))
        target = trial.target.reshape(len(self.latents), -1)[:, chosen]
        valid = None if trial.whole else trial.valid.reshape(len(target), -1)[:, chosen]
        if not target.size or (valid is not None and not valid.any()):
            return None
        asked = trial.tolerance
        assert asked is not None
        evaluate, start = model.sampled(_inputs(self.field, model), chosen), model.start(self.field.variable)
        codes: dict[int, np.ndarray] = {}
        found: list[_Choice] = []

        def better(rate: int, length: int) -> bool:
            """Assess a choice; whether there is none better so far."""
            if rate not in codes:
                codes[rate] = quantiser.quantise(self.latents, rate)
            z = codes[rate].copy()
            z[:, length:] = 0
            output = evaluate(start + quantiser.dequantise(z, rate))[..., 0]
            tolerance = asked - self.slack(output)
            if tolerance <= 0:
                found.append(_Choice(math.inf, rate, length, 1.0))
                return False
            over = np.abs(target - _scaled(self.field, output)) / tolerance - 1.0
            outside = (over if valid is None else over[valid]).ravel()
            outside, counted = outside[outside > 0], outside.size
            bits = outside_bits(outside) * points / target.shape[1] + quantiser.bits(z[:, :length], rate)
            found.append(_Choice(bits, rate, length, len(outside) / counted))
            return found[-1] == min(found)

        rates, whole = self.rates, model.spec.latent
        short = min(whole, _SHORT) if model.linear else whole
        at = self._likely(rates, asked)
        better(rates[at], short)
        for way in (rates[at + 1 :], rates[:at][::-1]):
            next((rate for rate in way if not better(rate, short)), None)
        best = min(found)
        next((length for length in self.lengths if length < short and not better(best.rate, length)), None)
        best = min(found)
        if short < whole and better(best.rate, whole) and _SLOWER * found[-1].bits < best.bits:
            best = found[-1]
        return best if best.share <= _LOOSE or self.rate is not None else None

    def _likely(self, rates: list[int], tolerance: float) -> int:
        """Where in `rates` to begin: the first whose rounding is well within the tolerance."""
        units = [_quantiser(self.model).unit(rate) for rate in rates]
        if not self.model.linear or units[0] is None:
            return 0
        # Rounding by a step has an error of step / sqrt(12); the basis is orthonormal.
        noise = [abs(self.field.scaling[1]) * float(np.linalg.norm(u)) / math.sqrt(12) for u in units if u is not None]
        return next((k for k, error in enumerate(noise) if error < tolerance / 4), len(rates) - 1)

    def _output(self, z: np.ndarray, rate: int) -> np.ndarray:
        return _evaluated(self.field, self.model, _quantiser(self.model).dequantise(z, rate), self.grid)

    def _refined(
        self, trial: _Trial, z: np.ndarray, rate: int, length: int | None, output: np.ndarray
    ) -> np.ndarray | None:
        """Rate-distortion optimised codes, where the latents enter linearly and the bound is a loose one."""
        quantiser = _quantiser(self.model)
        unit = quantiser.unit(rate)
        if trial.tolerance is None or unit is None or not self.model.linear or self.model.spec.d_out != 1:
            return None
        left = np.where(trial.valid, trial.target - _scaled(self.field, output), 0.0).reshape(len(z), -1)
        if np.mean(np.abs(left) > trial.tolerance) > _LOOSE:
            return None
        _, psi = self.model.basis(_inputs(self.field, self.model))
        z, kept = z.copy(), slice(length)
        effect = self.field.scaling[1] * unit[kept, None] * psi[kept]
        bits, offset = quantiser.costs(rate)[kept], quantiser.offset[rate, kept]
        z[:, kept] = refine(z[:, kept], left, effect, bits, offset, trial.tolerance - self.slack(output))
        return z


_DEAD = 0.25
"""For a mean squared error, what is left counts as smaller by so much of a step: for a peaked distribution a quantiser
that rounds towards zero takes fewer bits (Sullivan 1996, uniform threshold quantisers with a dead zone)."""
_KEPT = 1 << 22  # numbers of a prior that are kept
_HOPELESS = 1.04  # times the bytes of the best: fewer latents still will not be better
_WORTH = 4  # bytes that it is worth to decode half as many latents, or no residual
_SAMPLE, _SAMPLED = 1 << 14, 64  # values that a rate is chosen by, and points of each signal at least
_LOOSE = 0.1  # of the values outside the bound: with more, rounding to the nearest is as good


def _climb(trial: _Trial, latents: _Latents) -> _Candidate | None:
    """The best of the model's priors: ordered by rate, their sizes have one minimum, or one worse on the way to it."""
    rates, tolerance = latents.rates, trial.tolerance
    assert tolerance is not None
    start, end = 0, len(rates) - 1
    while start < end:  # the coarsest rate whose error is well within the bound: near the best, as a rule
        middle = (start + end) // 2
        start, end = (middle + 1, end) if latents.error(trial, rates[middle]) > tolerance / 4 else (start, middle)
    plans = residual.Plan("plain"), residual.Plan("adaptive")
    priors = {start: latents.prior(trial, rates[start])}
    tried = {(start, plans[0]): trial(priors[start], plans[0])}
    if _cost(tried[start, plans[0]]) > 1.5 * len(priors[start].stream):
        tried[start, plans[1]] = trial(priors[start], plans[1])
    plan = min(plans, key=lambda p: _cost(tried.get((start, p))))
    for way in (-1, 1):
        k, best, worse = start + way, _cost(tried[start, plan]), 0
        while 0 <= k < len(rates) and worse < 2:
            priors[k] = latents.prior(trial, rates[k])
            tried[k, plan] = trial(priors[k], plan)
            worse = 0 if _cost(tried[k, plan]) < best else worse + 1
            best = min(best, _cost(tried[k, plan]))
            k += way
    (k, plan), candidate = min(tried.items(), key=lambda item: _cost(item[1]))
    if candidate is None:
        return None
    prior, others = priors[k], [p for p in plans if (k, p) not in tried]
    for length in latents.lengths:
        shorter = latents.prior(trial, rates[k], length)
        found = trial(shorter, plan)
        if _cost(found) > _HOPELESS * candidate.cost:
            break
        worth = -_WORTH if candidate.plan is None and found is not None and found.plan is not None else _WORTH
        if found is not None and found.cost <= candidate.cost + worth:
            prior, candidate = shorter, found
    if candidate.plan is None:
        return candidate
    return min([_refined(trial, prior, plan, candidate), *(trial(prior, p) for p in others)], key=_cost)


def _cost(candidate: _Candidate | None) -> float:
    return math.inf if candidate is None else candidate.cost


def _refined(
    trial: _Trial, prior: _Prior, plan: residual.Plan, best: _Candidate | None
) -> _Candidate | None:  # fmt: skip
    """The smallest stream found by changing one choice of the plan at a time; `best` is the one under `plan`."""
    if best is None or best.plan is None:
        return best
    for name, values in _CHOICES[plan.predictor].items():
        for value in values:
            change: dict[str, Any] = {name: value}
            candidate = trial(prior, replace(plan, **change))
            if _cost(candidate) >= _cost(best):
                break
            best, plan = candidate, replace(plan, **change)
    return best


_CHOICES: dict[str, dict[str, tuple[int | bool, ...]]] = {
    "plain": {"temporal": (False,)},
    "adaptive": {"temporal": (False,), "tighten": (1, 2, 4)},
}
"""Plan entries worth trying, in order, as long as each is better than the one before."""


def _signs(signals: np.ndarray, valid: np.ndarray) -> bytes:
    """Signs of the valid values: nothing if all are positive, one byte if all are negative, else a mask."""
    negative = valid & (signals < 0)
    if not negative.any():
        return b""
    return b"\1" if negative[valid].all() else b"\2" + side.encode_mask(negative)


def _read_signs(section: bytes, shape: tuple[int, ...]) -> np.ndarray:
    if section in (b"", b"\1"):
        return np.array(-1.0 if section else 1.0)
    if section[:1] != b"\2":
        raise CorruptError("signs are malformed")
    return np.where(side.decode_mask(section[1:], shape), -1.0, 1.0)


def _tolerance(abs_error: float, dtype: np.dtype, magnitude: float) -> float:
    """What the float64 reconstruction may be off so that the value in the output dtype is within the bound."""
    if dtype.kind in "iu":
        return math.floor(abs_error) + 0.5 - 1e-6 if abs_error >= 1 else -1.0
    info = np.finfo(dtype)
    top = min(magnitude + abs_error, float(info.max))
    rounding = 0.5 * (float(info.eps) * top + float(info.smallest_subnormal))
    return abs_error * (1 - 1e-12) - rounding


def _to_dtype(recon: np.ndarray, dtype: np.dtype, limits: tuple[float, float] | None) -> np.ndarray:
    recon = np.clip(recon, *_limits(dtype, limits), out=recon)
    if dtype.kind in "iu":
        info, rounded = np.iinfo(dtype), np.rint(recon)
        above, below = rounded >= float(info.max), rounded <= float(info.min)  # 2^63 - 1 is no float64
        out = np.where(above | below, 0.0, rounded).astype(dtype)
        out[above], out[below] = info.max, info.min
        return out
    return recon.astype(dtype)


def _limits(dtype: np.dtype, limits: tuple[float, float] | None) -> tuple[float, float]:
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


def _mask_sections(signals: np.ndarray, valid: np.ndarray) -> dict[_Section, bytes]:
    if valid.all():
        return {}
    hidden = signals[~valid]
    bits = hidden.view(f"u{hidden.dtype.itemsize}")
    same = bool((bits == bits[0]).all())
    body = b"\0" + hidden[:1].astype(hidden.dtype.newbyteorder("<")).tobytes() if same else None
    return {
        _Section.MASK: side.encode_mask(~valid),
        _Section.SPECIALS: body if body is not None else b"\1" + side.encode_lossless(hidden),
    }


def _decode_specials(data: bytes, count: int, dtype: np.dtype) -> np.ndarray:
    if data[:1] == b"\0" and len(data) == 1 + dtype.itemsize:
        one = np.frombuffer(data[1:], dtype.newbyteorder("<")).astype(dtype)
        return np.repeat(one, count)
    if data[:1] == b"\1":
        return side.decode_lossless(data[1:], count, dtype)
    raise CorruptError("values under the mask are malformed")


@dataclass(frozen=True)
class _Compared:
    """Values beside what they decode to: which count, the errors of those, and flat indices of what is missed.

    Missed are valid values that decode outside the bound, or to what stands for missing.
    """

    valid: np.ndarray
    errors: np.ndarray
    missed: np.ndarray


def _compared(
    values: np.ndarray, decoded: np.ndarray, fill: tuple[float | int, ...], bound: Bound | None
) -> _Compared:  # fmt: skip
    if values.dtype.kind not in "fiu":
        nowhere = np.zeros(values.shape, bool)
        return _Compared(nowhere, np.zeros(0), np.flatnonzero(nowhere))
    valid, errors = valid_values(values, fill), errors_of(values, decoded)
    wrong = ~valid_values(decoded, fill)
    if bound is not None:
        wrong |= errors > allowed_errors(values, bound)
    wrong &= valid
    return _Compared(valid, errors.ravel() if valid.all() else errors[valid], np.flatnonzero(wrong))


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


def _exceptions(values: np.ndarray, where: np.ndarray) -> bytes:
    gaps = np.diff(where, prepend=0).astype("<i8")
    chosen = values.ravel()[where]
    return struct.pack("<Q", len(where)) + side.deflate(
        gaps.tobytes() + chosen.astype(chosen.dtype.newbyteorder("<")).tobytes()
    )


def _apply_exceptions(out: np.ndarray, data: bytes) -> None:
    if len(data) < 8:
        raise CorruptError("exceptions are malformed")
    (count,) = struct.unpack_from("<Q", data)
    if count > out.size:
        raise CorruptError("more exceptions than values")
    body = side.inflate(data[8:], count * (8 + out.dtype.itemsize))
    where = np.cumsum(np.frombuffer(body[: 8 * count], "<i8"))
    if count and (where.min() < 0 or where.max() >= out.size):
        raise CorruptError("exception outside the chunk")
    out.reshape(-1)[where] = np.frombuffer(body[8 * count :], out.dtype.newbyteorder("<"))


def _measured(
    data: bytes, values: np.ndarray, decoded: np.ndarray, found: _Compared, field: Field, mode: str,
    parts: dict[str, int],
) -> Encoded:  # fmt: skip
    """What was written, by what was `decoded` from it; raises BoundError should the bound not hold after all."""
    worst = float(found.errors.max(initial=0.0))
    exact = values[~found.valid].tobytes() == decoded[~found.valid].tobytes()
    if not exact or found.missed.size:
        raise BoundError(
            f"variable {field.variable!r}: decoding gave {found.missed.size} values outside the bound, the largest "
            f"error being {worst:g}{'' if exact else ', and changed masked values'}; this is a defect of vcinr, "
            "nothing was written"
        )
    with np.errstate(over="ignore"):
        squared = float(np.square(found.errors).sum())
    return Encoded(data, worst, squared, found.errors.size, mode, parts)


def _assemble(mode: int, sections: dict[_Section, bytes], stream: bytes, seed: int) -> bytes:
    flags, body = 0, b""
    for section in _SECTIONS:
        if section in sections:
            flags |= section
            body += _leb128(len(sections[section])) + sections[section]
    head, rest = bytes([VERSION, mode]), struct.pack("<H", flags) + body + stream
    return _MAGIC + head + struct.pack("<I", zlib.crc32(rest, zlib.crc32(head, seed))) + rest


def _disassemble(data: bytes, seed: int | None) -> tuple[int, dict[_Section, bytes], bytes]:
    """Mode, sections and stream; the checksum is checked before anything is parsed."""
    if len(data) < 10 or data[:2] != _MAGIC:
        raise CorruptError("not a vcinr chunk")
    body = data[8:]
    if seed is not None and zlib.crc32(body, zlib.crc32(data[2:4], seed)) != struct.unpack("<I", data[4:8])[0]:
        raise CorruptError("checksum mismatch: the chunk or the array's metadata is damaged")
    if data[2] > VERSION:
        raise CorruptError(f"chunk of format version {data[2]}; this vcinr reads up to {VERSION}: upgrade it")
    (flags,) = struct.unpack_from("<H", body)
    if data[3] not in (_LOSSLESS, _LOSSY) or flags >= 2 * _SECTIONS[-1].value:
        raise CorruptError("chunk of an unknown mode")
    position, sections = 2, {}
    for section in _SECTIONS:
        if flags & section.value:
            length, position = _read_leb128(body, position)
            if length > len(body) - position:
                raise CorruptError("section is longer than its chunk")
            sections[section] = body[position : position + length]
            position += length
    return data[3], sections, body[position:]


def _extent(section: bytes | None, chunk_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The part of the chunk that lies inside the array."""
    if section is None:
        return chunk_shape
    shape, position = [], 0
    for full in chunk_shape:
        n, position = _read_leb128(section, position)
        if n > full:
            raise CorruptError("extent exceeds the chunk")
        shape.append(n)
    if position != len(section):
        raise CorruptError("extent is malformed")
    return tuple(shape)


def _rate(section: bytes) -> tuple[int, int]:
    """Rate of the model's quantiser and coder of the latents."""
    if len(section) != 1:
        raise CorruptError("section has a wrong length")
    return section[0] >> 3, section[0] & 7


def _number(section: bytes, layout: str) -> float:
    if len(section) != struct.calcsize(layout):
        raise CorruptError("section has a wrong length")
    (value,) = struct.unpack(layout, section)
    if not math.isfinite(value):
        raise CorruptError("section holds no finite number")
    return value


def _leb128(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _read_leb128(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise CorruptError("length is malformed")
