"""Coding of signals patch by patch, many signals in one stream."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from vcinr.coding import kernels
from vcinr.errors import CorruptError
from vcinr.patches import frames
from vcinr.patches import kernels as patch_kernels
from vcinr.patches.geometry import extended, parts, shifts, windows
from vcinr.patches.model import RATES, PatchModel, bits_of, step_of
from vcinr.patches.priming import Start, set_off, start_of

LIKELY = 2
"""Number of experts that an encoder tries in full for each patch."""


def encode(
    model: PatchModel, signals: np.ndarray, rate: int, likely: list[np.ndarray] | None = None
) -> tuple[bytes, np.ndarray]:
    """Encode signals.

    Parameters
    ----------
    model : PatchModel
        The model.
    signals : numpy.ndarray
        float64 ``[n, Z, Y, X, F]``, in the model's units.
    rate : int
        Which step, see `step_of`.
    likely : list of numpy.ndarray, optional
        For each signal the experts to try, from `likely_experts`. Default: all of them, which takes longer.

    Returns
    -------
    stream : bytes
        The bitstream.
    decoded : numpy.ndarray
        float64, of the signals' shape: what a decoder will have.
    """
    coders, data = _coders(model), np.empty(1 << 16, np.uint8)
    decoded = np.empty(signals.shape)
    for i, signal in enumerate(signals):
        data, decoded[i] = _write(model, coders, data, signal, None if likely is None else likely[i], rate)
    return kernels.stream(coders[0][0], data), decoded


def learn_starts(model: PatchModel, signals: np.ndarray, rates: Sequence[int]) -> tuple[Start, ...]:
    """Learn where coders should start: where they are after coding signals.

    Parameters
    ----------
    model : PatchModel
        A model without starts.
    signals : numpy.ndarray
        ``[n, Z, Y, X, F]``, in the model's units.
    rates : sequence of int
        At which steps signals are coded; those of the last ones count most.

    Returns
    -------
    tuple of Start
        As in `PatchModel`.
    """
    coders, data = _coders(model), np.empty(1 << 16, np.uint8)
    for rate in rates:
        for signal in signals:
            (likely,) = likely_experts(model, signal[None], rate)
            data, _ = _write(model, coders, data, signal, likely, rate)
    return tuple(start_of(coder) for three in coders for coder in three)


def _write(
    model: PatchModel, coders: tuple[frames.Coders, ...], data: np.ndarray, signal: np.ndarray,
    likely: np.ndarray | None, rate: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Write a signal; returns the buffer, which may be a larger one, and what a decoder will have."""
    target = np.ascontiguousarray(extended(signal, model.geometry), np.float64)
    out = np.zeros(target.shape)
    experts = _all(model, target.shape) if likely is None else likely
    data = _code(model, coders, data, target, experts, out, rate, True)
    return data, out[tuple(slice(n) for n in signal.shape)]


def decode(model: PatchModel, stream: bytes, shape: tuple[int, ...], rate: int) -> np.ndarray:
    """Inverse of `encode`.

    Parameters
    ----------
    model : PatchModel
        The model.
    stream : bytes
        The bitstream.
    shape : tuple of int
        The signals' shape (n, Z, Y, X, F).
    rate : int
        Which step.

    Returns
    -------
    numpy.ndarray
        float64, the same on every machine.

    Raises
    ------
    CorruptError
        For bytes that no encoder makes.
    """
    coders = _coders(model)
    data = kernels.open_stream(coders[0][0], stream)
    decoded = np.empty(shape)
    nothing, no_experts = np.zeros((0, 0, 0, 0)), np.zeros((0, 0, 0, 0), np.int64)
    for i in range(shape[0]):
        out = np.zeros((*model.geometry.padded(shape[1:4]), shape[4]))
        _code(model, coders, data, nothing, no_experts, out, rate, False)
        decoded[i] = out[tuple(slice(n) for n in shape[1:])]
    kernels.check_end(coders[0][0], data)
    if not np.isfinite(decoded).all():
        raise CorruptError("patches are not made of numbers")
    return decoded


def likely_experts(model: PatchModel, signals: np.ndarray, rate: int) -> list[np.ndarray]:
    """Find the experts that should suit each patch best, judged by the signals themselves around it.

    Parameters
    ----------
    model, signals, rate
        As in `encode`.

    Returns
    -------
    list of numpy.ndarray
        For each signal int64 ``[nz, ny, nx, L]``, the best first; with groups of the first plane alone.
    """
    result = []
    for signal in signals[:, :1] if model.geometry.group else signals:
        target = np.ascontiguousarray(extended(signal, model.geometry), np.float32)
        if len(model.basis) <= LIKELY:
            result.append(_all(model, target.shape))
            continue
        counts = _counts(model, target.shape)
        found = np.empty((math.prod(counts), LIKELY), np.int64)
        for part, around, values in _windows(model, target):
            costs = bits_of(around, values, zip(model.predict, model.basis, strict=True), step_of(rate))
            found[part] = np.argsort(costs, axis=0, kind="stable")[:LIKELY].T
        result.append(found.reshape(*counts, LIKELY))
    return result


def analysed(model: PatchModel, signal: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Find the expert that suits each patch best, and its latents, with the signal itself around each patch.

    Parameters
    ----------
    model : PatchModel
        The model.
    signal : numpy.ndarray
        ``[Z, Y, X, F]``, in the model's units.
    step : float
        The step of the latents, by which bits are judged.

    Returns
    -------
    expert : numpy.ndarray
        int64 ``[nz, ny, nx]``.
    latents : numpy.ndarray
        float32 ``[nz, ny, nx, Q]``.
    """
    target = np.ascontiguousarray(extended(signal, model.geometry), np.float32)
    counts, q = _counts(model, target.shape), model.basis.shape[1]
    expert, latents = np.empty(math.prod(counts), np.int64), np.empty((math.prod(counts), q), np.float32)
    for part, around, values in _windows(model, target):
        costs = bits_of(around, values, zip(model.predict, model.basis, strict=True), step)
        expert[part] = costs.argmin(0)
        for k, (predict, basis) in enumerate(zip(model.predict, model.basis, strict=True)):
            own = np.flatnonzero(expert[part] == k)
            latents[part.start + own] = (values[own] - around[own] @ predict) @ basis.T
    return expert.reshape(counts), latents.reshape(*counts, q)


def _windows(model: PatchModel, target: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Of runs of a signal's patches: which they are, and what is around and in them (`vcinr.patches.geometry`)."""
    counts = _counts(model, target.shape)
    index = np.stack(np.unravel_index(np.arange(math.prod(counts)), counts), 1)
    moved = shifts(target, model.geometry)
    for part in parts(len(index)):
        yield part, *windows(target, model.geometry, index[part], model.middle, moved)


def _counts(model: PatchModel, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of patches along the axes of a signal of whole patches."""
    return tuple(n // s for n, s in zip(shape[:3], model.geometry.size, strict=True))


def _all(model: PatchModel, shape: tuple[int, ...]) -> np.ndarray:
    """All experts, for every patch of a signal of `shape`."""
    experts = len(model.basis)
    return np.broadcast_to(np.arange(experts), (*_counts(model, shape), experts)).copy()


def _code(
    model: PatchModel, coders: tuple[frames.Coders, ...], data: np.ndarray, target: np.ndarray, likely: np.ndarray,
    out: np.ndarray, rate: int, writing: bool,
) -> np.ndarray:  # fmt: skip
    """Code a signal, with arguments as of `vcinr.patches.kernels.patches`; raises CorruptError for an unknown rate."""
    g, step = model.geometry, step_of(rate)
    sets = model.writing if writing else model.reading
    if not g.group:
        return patch_kernels.patches(coders[0], data, sets[0], target, likely, out, step, writing)
    steps = tuple(step_of(max(0, min(RATES - 1, rate + finer))) for finer in g.finer)
    return frames.code(coders, data, sets, g, target, likely, out, steps, writing)


def _coders(model: PatchModel) -> tuple[frames.Coders, ...]:
    """New coders of the latents' codes, the experts and the numbers of codes for each set of experts.

    They share a stream.
    """
    first = kernels.coder(patch_kernels.CONTEXTS)

    def another() -> kernels.Coder:
        return patch_kernels.sharing(first, kernels.coder(patch_kernels.CONTEXTS))

    coders = (first, another(), another()), *((another(), another(), another()) for _ in model.later)
    for coder, start in zip((coder for three in coders for coder in three), model.starts, strict=False):
        set_off(coder, start)
    return coders
