"""The residual coder of scattered points: meshes, curvilinear grids, stations; it needs their positions.

Points are coded from coarse to fine, in the order of `vcinr.coding.neighbours`. Each is predicted by a plane through
its nearest known points, plus a linear combination of how these differ from the plane, of how far *their* values were
from the planes through their neighbours, and of what is known at this point and around it of other planes (of the time
before, the mean over all earlier times, the level below). The weights solve the same least-squares problems as those of
the adaptive coder, and codes have the same contexts.

Points that are masked in all planes are left out of the geometry, so land costs nothing and predicts nothing.

The stream: u8 choices (bit 0 `temporal`, bits 1 to 4 `tighten`; no others), then a binary stream.
"""

from __future__ import annotations

import numpy as np

from vcinr.coding import kernels
from vcinr.coding.neighbours import KINDS, Neighbours, Positions
from vcinr.coding.residual import contexts
from vcinr.coding.residual.base import Plan, ResidualCoder, lattice_steps
from vcinr.errors import CorruptError

_FINEST = 4  # pairs of kinds that have a step of their own; two halves of the points are a level of a lattice


def _scattered(shape: tuple[int, ...], points: int) -> tuple[int, int, int]:
    """(T, C, N) of planes ``[T, C, H, W]`` of N points: H W = N, or else W = N, and then rows are levels."""
    times, levels, height, width = shape
    if height * width == points:
        return times, levels, points
    if width != points:
        raise ValueError(f"{points} positions for planes of {height} x {width} points")
    return (height, 1, points) if times * levels == 1 else (times * levels, height, points)


def _kept(valid: np.ndarray | None, points: int) -> np.ndarray | None:
    """Which points are valid anywhere; None for all."""
    if valid is None:
        return None
    kept = np.zeros(points, bool)
    for plane in np.asarray(valid).reshape(-1, points):
        kept |= plane
    return None if kept.all() else kept


def _of(positions: Positions, kept: np.ndarray | None) -> Neighbours:
    return positions.neighbours if kept is None else Positions(positions.points[kept]).neighbours


def _sizes(step: float, tighten: int) -> np.ndarray:
    """Step of each kind of points; those that coincide have the finest."""
    levels = lattice_steps(step, tighten, _FINEST)
    return np.array([*(levels[kind // 2] for kind in range(KINDS)), levels[0]])


def _convert(
    coder: kernels.Coder, data: np.ndarray, values: np.ndarray, mask: np.ndarray, step: float, plan: Plan,
    points: Neighbours, writing: bool,
) -> tuple[np.ndarray, np.ndarray, bool]:  # fmt: skip
    """The buffer, the reconstruction, and whether all values fit."""
    recon = np.zeros(values.shape)
    if recon.size == 0:  # all points are masked
        return kernels.reserve(coder.state, data, 0) if writing else data, recon, True
    arrays = points.order, points.near, points.weight, points.kind, points.squared
    sizes = _sizes(step, plan.tighten)
    data, fits = kernels.nearest(coder, data, values, recon, mask, arrays, sizes, plan.temporal, plan.brief, writing)
    return data, recon, fits


def _encode(
    values: np.ndarray, step: float, plan: Plan, valid: np.ndarray | None, positions: Positions
) -> tuple[bytes, np.ndarray]:
    coder, buffer, recon = (
        kernels.coder(kernels.CONTEXTS, kernels.CONTEXTS),
        np.empty(0, np.uint8),
        np.zeros(values.shape),
    )
    choices = bytes([plan.temporal | plan.tighten << 1 | plan.brief << 5])
    if recon.size == 0:
        return choices + kernels.stream(coder, kernels.reserve(coder.state, buffer, 0)), recon
    shape = _scattered(values.shape, len(positions.points))
    kept = _kept(valid, shape[-1])
    part = slice(None) if kept is None else kept
    given = np.require(values.reshape(shape)[..., part], np.float64, ["C", "W"])
    mask = contexts.mask_of(None if valid is None else np.asarray(valid).reshape(shape)[..., part])
    data, out, fits = _convert(coder, buffer, given, mask, step, plan, _of(positions, kept), True)
    if not fits:
        raise OverflowError("residual too large for its step")
    recon.reshape(shape)[..., part] = out
    return choices + kernels.stream(coder, data), recon


def _decode(
    data: bytes, shape: tuple[int, int, int, int], step: float, plan: Plan, valid: np.ndarray | None,
    positions: Positions,
) -> np.ndarray:  # fmt: skip
    if not data or data[0] >= 64:
        raise CorruptError("the choices of a residual of scattered points are malformed")
    plan = Plan(plan.coder, bool(data[0] & 1), data[0] >> 1 & 15, bool(data[0] >> 5))
    coder, recon = kernels.coder(kernels.CONTEXTS, kernels.CONTEXTS), np.zeros(shape)
    stream = kernels.open_stream(coder, data[1:])
    if recon.size:
        try:
            scattered = _scattered(shape, len(positions.points))
        except ValueError as error:
            raise CorruptError(str(error)) from None
        kept = _kept(valid, scattered[-1])
        part = slice(None) if kept is None else kept
        mask = contexts.mask_of(None if valid is None else np.asarray(valid).reshape(scattered)[..., part])
        empty = np.zeros((*scattered[:2], scattered[2] if kept is None else int(kept.sum())))
        _, out, _ = _convert(coder, stream, empty, mask, step, plan, _of(positions, kept), False)
        recon.reshape(scattered)[..., part] = out
    kernels.check_end(coder, stream)
    return recon


CODER = ResidualCoder(
    "nearest",
    _encode,
    _decode,
    Plan("nearest"),
    {"temporal": (False,), "tighten": (1, 2, 4), "brief": (True,)},
    states_plan=False,
    needs_positions=True,
)
