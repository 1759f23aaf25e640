"""Residual coder: multi-level interpolation with error feedback, context-modelled tokens, one ANS bitstream.

A 3-D array ``[n, *grid]`` (any rank) is refined from a coarse lattice to full resolution, level by level and
axis by axis, as in SZ3 (Liang et al. 2022): points half-way between known ones are predicted from them by
linear or cubic interpolation of *reconstructed* values, and the prediction error is coded as an integer
multiple of a step. Prediction is elementwise float64 (add, multiply), identical on every machine; contexts and
tables depend on decoded integers alone, so no float decides how the bitstream is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vcinr.coding import tokens
from vcinr.coding.ans import Reader, Writer
from vcinr.errors import CorruptError

Index = tuple[slice, ...]
Exchange = Callable[[Index, np.ndarray, float, np.ndarray], np.ndarray]
"""Code or decode the integers at an index, given prediction, step and contexts; returns the integers."""

_CONTEXTS = 12
_BLOCK = 4096


@dataclass(frozen=True)
class Plan:
    """Choices of the writer that the reader is told: one byte each.

    spread: prior scale of the tables. axes: which axes are interpolated (bit k for axis k); the others are
    batch axes. cubic: interpolation order. tighten: level l (0 the finest) uses the step divided by
    min((1 + tighten / 8)**l, 4). reference: subtract the mean of the slices before (see `_walk`).
    """

    spread: int
    axes: int
    cubic: bool
    tighten: int
    reference: bool

    def to_bytes(self) -> bytes:
        """Four bytes."""
        return bytes([self.spread, self.axes, self.cubic | self.reference << 1, self.tighten])

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Inverse of `to_bytes`; raises CorruptError."""
        if len(data) != 4 or data[0] == 0 or data[2] > 3:
            raise CorruptError("residual plan is malformed")
        return cls(data[0], data[1], bool(data[2] & 1), data[3], bool(data[2] >> 1))


@dataclass(frozen=True)
class _Pass:
    """Points refined together: `target` indexes them; offsets are the interpolation stride along `axis`."""

    target: Index
    axis: int
    stride: int
    level: int


def _passes(shape: tuple[int, ...], axes: int) -> tuple[Index, list[_Pass], int]:
    """Anchor lattice, the passes in coding order, and the number of levels."""
    active = [k for k in range(len(shape)) if axes >> k & 1 and shape[k] > 1]
    levels = max((int(shape[k] - 1).bit_length() for k in active), default=0)
    known = [slice(None)] * len(shape)
    for k in active:
        known[k] = slice(0, None, 1 << levels)
    anchor = tuple(known)
    passes = []
    for level in range(levels, 0, -1):
        stride = 1 << (level - 1)
        for k in active:
            if stride < shape[k]:
                target = list(known)
                target[k] = slice(stride, None, 2 * stride)
                passes.append(_Pass(tuple(target), k, stride, level))
            known[k] = slice(0, None, stride)
    return anchor, passes, levels


def _predict(recon: np.ndarray, p: _Pass, cubic: bool) -> np.ndarray:
    """Interpolated values at the pass's targets; beyond the edge the one neighbour there is stands in."""
    axis, s, n = p.axis, p.stride, recon.shape[p.axis]
    at = np.arange(s, n, 2 * s)
    lines = list(p.target)
    lines[axis] = slice(None)
    known = recon[tuple(lines)]

    def take(index: np.ndarray) -> np.ndarray:
        return np.take(known, index, axis=axis)

    right = np.where(at + s < n, at + s, at - s)
    prediction = 0.5 * (take(at - s) + take(right))
    if cubic:
        inner = np.flatnonzero((at - 3 * s >= 0) & (at + 3 * s < n))
        if inner.size:
            where = at[inner]
            near = take(where - s) + take(where + s)
            far = take(where - 3 * s) + take(where + 3 * s)
            index: list[slice | np.ndarray] = [slice(None)] * recon.ndim
            index[axis] = inner
            prediction[tuple(index)] = 0.5625 * near - 0.0625 * far
    return prediction


def _contexts(magnitude: np.ndarray, p: _Pass) -> np.ndarray:
    """Context of every target, from the coded magnitudes at the neighbours it was predicted from."""
    axis, s, n = p.axis, p.stride, magnitude.shape[p.axis]
    at = np.arange(s, n, 2 * s)
    lines = list(p.target)
    lines[axis] = slice(None)
    known = magnitude[tuple(lines)]
    total = np.take(known, at - s, axis=axis) + np.take(known, np.where(at + s < n, at + s, at - s), axis=axis)
    # Neighbours across the other axes are known along the same lines.
    spread = 2 * total
    for other in range(known.ndim):
        if other != axis and known.shape[other] > 1:
            moved = np.moveaxis(total, other, 0)
            into = np.moveaxis(spread, other, 0)
            into[1:] += moved[:-1]
            into[:-1] += moved[1:]
    return np.minimum(_bit_length(spread), _CONTEXTS - 1)


def _bit_length(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, np.frexp(values.astype(np.float64))[1], 0)


def _blocks(size: int) -> Iterator[slice]:
    start, length = 0, 256
    while start < size:
        yield slice(start, start + length)
        start += length
        length = min(2 * length, _BLOCK)


def encode(writer: Writer, values: np.ndarray, step: float, plan: Plan, valid: np.ndarray | None = None) -> np.ndarray:
    """Code float64 `values` so that each is within step / 2 of its reconstruction; returns the reconstruction.

    Points outside `valid` (bool, same shape) cost nothing and are reconstructed as predicted. Raises
    OverflowError when a value is too large for the step (the caller stores the chunk losslessly).
    """
    adaptive = tokens.Adaptive(2 * _CONTEXTS, plan.spread)

    def put(index: Index, prediction: np.ndarray, size: float, contexts: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # told apart below
            scaled = np.rint((values[index] - prediction) / size)
        inside = slice(None) if valid is None else valid[index].ravel()
        flat, flat_contexts = scaled.ravel()[inside], contexts.ravel()[inside]
        if flat.size and not np.abs(flat).max() < tokens.LIMIT:
            raise OverflowError("residual too large for its step")
        flat = flat.astype(np.int64)
        for block in _blocks(flat.size):
            part, where = flat[block], flat_contexts[block]
            for context in np.unique(where):
                used = tokens.write(writer, part[where == context], adaptive.table(context))
                adaptive.update(context, used)
        return _spread(flat, inside, prediction.shape)

    return _walk(values.shape, step, plan, put)


def decode(
    reader: Reader, shape: tuple[int, ...], step: float, plan: Plan, valid: np.ndarray | None = None
) -> np.ndarray:
    """Exact inverse of `encode`: the reconstruction, float64."""
    adaptive = tokens.Adaptive(2 * _CONTEXTS, plan.spread)

    def get(index: Index, prediction: np.ndarray, _size: float, contexts: np.ndarray) -> np.ndarray:
        inside = slice(None) if valid is None else valid[index].ravel()
        flat_contexts = contexts.ravel()[inside]
        codes = np.empty(flat_contexts.size, np.int64)
        for block in _blocks(codes.size):
            where = flat_contexts[block]
            part = np.empty(where.size, np.int64)
            for context in np.unique(where):
                chosen = where == context
                part[chosen], used = tokens.read(reader, int(chosen.sum()), adaptive.table(context))
                adaptive.update(context, used)
            codes[block] = part
        return _spread(codes, inside, prediction.shape)

    return _walk(shape, step, plan, get)


def _spread(codes: np.ndarray, inside: np.ndarray | slice, shape: tuple[int, ...]) -> np.ndarray:
    """Codes of the valid points back at their places, zero elsewhere."""
    whole = np.zeros(int(np.prod(shape, dtype=np.int64)), np.int64)
    whole[inside] = codes
    return whole.reshape(shape)


def _walk(shape: tuple[int, ...], step: float, plan: Plan, exchange: Exchange) -> np.ndarray:
    """The order of coding shared by writer and reader.

    With a reference, the slices of axis 0 are coded in batches of 1, 1, 2, 4, ... and each batch is taken as
    the difference from the mean of all before it: a climatology that needs no side information.
    """
    if not plan.reference or shape[0] < 2:
        recon = np.zeros(shape)
        _refine(recon, np.zeros(shape[1:]), 0, step, plan, exchange)
        return recon
    recon, total, start, count = np.zeros(shape), np.zeros(shape[1:]), 0, 1
    while start < shape[0]:
        batch = recon[start : start + count]
        _refine(batch, total / max(start, 1), start, step, plan, exchange)
        for one in batch:  # in this order on every machine
            total += one
        start += len(batch)
        count = start
    return recon


def _refine(recon: np.ndarray, reference: np.ndarray, start: int, step: float, plan: Plan, exchange: Exchange) -> None:
    """Fill `recon`, slices `start` on of axis 0; interpolation acts on differences from `reference`."""
    difference, magnitude = np.zeros(recon.shape), np.zeros(recon.shape, np.int64)
    reference = np.broadcast_to(reference, recon.shape)
    anchor, passes, levels = _passes(recon.shape, plan.axes)

    def size_at(level: int) -> float:
        return step / min((1.0 + plan.tighten / 8.0) ** level, 4.0)

    def run(target: Index, prediction: np.ndarray, size: float, contexts: np.ndarray) -> np.ndarray:
        whole = prediction + reference[target]
        first = target[0]
        index = (slice((first.start or 0) + start, start + recon.shape[0], first.step), *target[1:])
        codes = exchange(index, whole, size, contexts)
        recon[target] = whole + codes * size
        difference[target] = recon[target] - reference[target]
        return codes

    shape = difference[anchor].shape
    run(anchor, np.zeros(shape), size_at(levels), np.full(shape, _CONTEXTS - 1))
    # Anchors are absolute values, not prediction errors: they say nothing of the local scale.
    for p in passes:
        contexts = _contexts(magnitude, p) + (_CONTEXTS if p.level == 1 else 0)
        codes = run(p.target, _predict(difference, p, plan.cubic), size_at(p.level - 1), contexts)
        magnitude[p.target] = np.minimum(np.abs(codes), 1 << 20)
