"""Finding the latents of a scene: gradient steps through the renderer, from a start that the silhouettes give.

The inner loop has two parts. First the field itself descends. Then its latents are refined under the quantiser: at
every step the field is coded and decoded by the model, the views of what a decoder will have are compared with the
given ones, and the gradient moves the field that is coded (a straight-through estimator, Bengio et al. 2013), which is
also drawn towards what is decoded. The step sizes are learned, one for the levels and one for the colours of every step
(`Pace`; Meta-SGD, Li et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vcinr.errors import InputError
from vcinr.patches import coder
from vcinr.patches.model import PatchModel
from vcinr.scenes import kernels
from vcinr.scenes.field import (
    BOX_STEPS,
    FEATURES,
    FINE,
    LEVELS,
    Camera,
    Frame,
    box_of,
    empty_cells,
    gathered,
    grid_of,
    joined,
    rays_of,
    within,
)

_WHITE = 253  # values from here on are ground
_BATCH = 6000  # rays of a step
_PER_VERTEX = 3  # samples of the silhouettes' hull along a side of a vertex's cell
_COARSE_HULL = 64  # samples along a side of the frame, to find the box
_SMOOTH = 0.003  # weight of squared differences between neighbours, for a thousand rays
_DRAWN = 0.1  # share of its distance from the decoded field by which a field is drawn to it in a step
_MOMENTUM, _MEMORY = 0.9, 0.99  # of gradients and of their squares (Adam)
_FLOOR = 1e-5  # of the root of the mean square gradient
_RECHOSEN = 10  # steps after which likely experts are looked for anew

Decode = Callable[[np.ndarray, int], np.ndarray]


class Pace(NamedTuple):
    """Step sizes of the inner loop, float64 ``[K, 2]``: of levels and of colours.

    Attributes
    ----------
    descent : numpy.ndarray
        Of the field.
    refinement : numpy.ndarray
        Of the field under the quantiser.
    """

    descent: np.ndarray
    refinement: np.ndarray


def usual_pace(descent: int = 60, refinement: int = 80) -> Pace:
    """Step sizes to begin with; they fall to zero along the second half of each part."""

    def fall(steps: int, first: float) -> np.ndarray:
        share = np.minimum(1.0, 2.0 * (1 - np.arange(steps) / max(1, steps)))
        return np.repeat(first * share[:, None], 2, 1)

    return Pace(fall(descent, 0.08), fall(refinement, 0.016))


def pace_of(model: PatchModel, origin: str) -> tuple[Pace, int, int]:
    """The step sizes, the coarse cells along a side and the rate that a model states.

    Raises
    ------
    InputError
        For a model that is not of scenes; it names `origin`.
    """
    facts = model.provenance
    try:
        if facts["method"] != "scenes" or model.features != FEATURES:
            raise ValueError
        pace = Pace(*(np.array(facts["pace"][part], np.float64).reshape(-1, 2) for part in Pace._fields))
        return pace, int(facts["coarse"]), int(facts["rate"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{origin}: a model that was not trained on scenes; train one with `vcinr train ... --kind scenes`"
        ) from None


@dataclass(frozen=True, eq=False)
class Views:
    """The given views of a scene.

    Attributes
    ----------
    images : numpy.ndarray
        uint8 ``[V, height, width, 3]``.
    poses : numpy.ndarray
        float64 ``[V, 4, 4]``.
    camera : Camera
        Their camera.
    name : str
        What messages begin with.
    """

    images: np.ndarray
    poses: np.ndarray
    camera: Camera
    name: str


@dataclass(frozen=True, eq=False)
class Fitted:
    """A scene's field.

    Attributes
    ----------
    cells : numpy.ndarray
        float64 ``[C, C, C, 11]``.
    box : numpy.ndarray
        uint8 ``[6]``.
    agreement : dict of str to numpy.ndarray
        By the part of the inner loop, float64 ``[K, 2]``: the cosine of the angle between each step and the gradient
        after it, which says whether a longer step would have been better (positive) or a shorter one.
    """

    cells: np.ndarray
    box: np.ndarray
    agreement: dict[str, np.ndarray] = field(default_factory=dict)


def frame_of(poses: np.ndarray, camera: Camera, name: str) -> Frame:
    """The cube around the place that cameras look at, as large as what all of them see.

    Parameters
    ----------
    poses : numpy.ndarray
        ``[V, 4, 4]``: of all cameras of all scenes of an archive.
    camera : Camera
        Their camera.
    name : str
        What an error begins with.

    Raises
    ------
    InputError
        For cameras that do not look at one place.
    """
    back, at = poses[:, :3, 2], poses[:, :3, 3]
    across = np.eye(3) - back[:, :, None] * back[:, None, :]
    normal, side = across.sum(0), (across @ at[:, :, None]).sum(0)[:, 0]
    if np.linalg.cond(normal) > 1e6:
        raise InputError(f"{name}: its cameras look in one direction; give views of the object from several sides")
    centre = np.linalg.solve(normal, side)
    distance = float(((at - centre) * back).sum(1).min())
    if distance <= 0:
        raise InputError(f"{name}: its cameras look away from each other; give views of an object, seen from outside")
    tangent = min(camera.width / 2 / camera.fl_x, camera.height / 2 / camera.fl_y)
    half = distance * tangent / (1 + tangent * tangent) ** 0.5
    return Frame(tuple(float(v) for v in centre - half), 2 * half)  # type: ignore[arg-type]


def silhouettes(images: np.ndarray) -> np.ndarray:
    """Which pixels show the object and not the white ground, bool ``[V, height, width]``."""
    return np.asarray((images < _WHITE).any(-1))


def hull(masks: np.ndarray, views: Views, axes: list[np.ndarray]) -> np.ndarray:
    """Which points of a grid no view shows as ground, bool ``[X, Y, Z]``; `axes` are the points' coordinates."""
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    camera, kept = views.camera, np.ones(len(points), bool)
    for mask, pose in zip(masks, views.poses, strict=True):
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        depth = np.minimum(local[:, 2], -1e-9)
        x = np.floor(camera.cx - camera.fl_x * local[:, 0] / depth)
        y = np.floor(camera.cy + camera.fl_y * local[:, 1] / depth)
        inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height) & (local[:, 2] < 0)
        seen = np.ones(len(points), bool)
        seen[inside] = mask[y[inside].astype(np.int64), x[inside].astype(np.int64)]
        kept &= seen
    return kept.reshape([len(axis) for axis in axes])


def box_around(views: Views, masks: np.ndarray, frame: Frame) -> np.ndarray:
    """The box of the object on the frame's lattice, uint8 ``[6]``: its least and greatest coordinates."""
    wide = masks.copy()  # by a pixel, so that nothing thin is lost between samples
    wide[:, 1:] |= masks[:, :-1]
    wide[:, :-1] |= masks[:, 1:]
    wide[:, :, 1:] |= masks[:, :, :-1]
    wide[:, :, :-1] |= masks[:, :, 1:]
    step = frame.side / _COARSE_HULL
    samples = [corner + (np.arange(_COARSE_HULL) + 0.5) * step for corner in frame.corner]
    kept = hull(wide, views, samples)
    box = np.empty(6, np.uint8)
    for axis in range(3):
        where = np.flatnonzero(kept.any(tuple(a for a in range(3) if a != axis)))
        first, last = (where[0], where[-1]) if where.size else (0, _COARSE_HULL - 1)
        low, high = (first - 0.5) / _COARSE_HULL, (last + 1.5) / _COARSE_HULL
        box[axis] = np.clip(np.floor(BOX_STEPS * low), 0, BOX_STEPS - 1)
        box[3 + axis] = np.clip(np.ceil(BOX_STEPS * high), int(box[axis]) + 1, BOX_STEPS)
    return box


def start(views: Views, masks: np.ndarray, box: np.ndarray, frame: Frame, coarse: int) -> np.ndarray:
    """The field from which the inner loop starts: the silhouettes' hull, of the mean colour."""
    low, high = box_of(box, frame)
    vertices = FINE * coarse
    cell = (high - low) / (vertices - 1)
    sub = (np.arange(vertices * _PER_VERTEX) - (_PER_VERTEX - 1) / 2) / _PER_VERTEX
    share = hull(masks, views, [low[a] + cell[a] * sub for a in range(3)]).astype(np.float64)
    for _ in range(3):
        for axis in range(3):
            share = _blurred(share, axis)
    share = share.reshape(vertices, _PER_VERTEX, vertices, _PER_VERTEX, vertices, _PER_VERTEX).mean((1, 3, 5))
    mean = views.images[masks].mean(0) / 255 if masks.any() else np.ones(3)
    colours = np.broadcast_to(mean, (coarse, coarse, coarse, 3))
    return joined(np.clip(2 * share - 1, -1, 1), colours)


def _blurred(values: np.ndarray, axis: int) -> np.ndarray:
    """Means of neighbours along an axis, with weights 1, 2 and 1."""
    n = values.shape[axis]
    wide = np.pad(values, [(1, 1) if a == axis else (0, 0) for a in range(3)], "edge")
    before, here, after = (np.take(wide, np.arange(s, s + n), axis) for s in range(3))
    return (before + 2 * here + after) / 4


class Rays:
    """The rays of a scene's views, in cells of its grid, and the gradient of their errors.

    Parameters
    ----------
    views : Views
        The views.
    box, frame
        Where the field lies.
    vertices : int
        Of its grid of levels, along a side.
    """

    def __init__(self, views: Views, box: np.ndarray, frame: Frame, vertices: int) -> None:
        low, high = box_of(box, frame)
        pairs = [within(*rays_of(views.camera, pose), low, high, vertices) for pose in views.poses]
        self.origins = np.concatenate([origins for origins, _ in pairs])
        self.rays = np.concatenate([rays for _, rays in pairs])
        self.colours = views.images.reshape(-1, 3) / 255
        longest = int(2 * 3 * vertices / kernels.STRIDE)
        self._room: tuple[Any, ...] = (
            np.empty((longest, 3), np.int64), np.empty((longest, 14)), np.empty(3), np.empty(3),
        )  # fmt: skip

    def through(self, cells: np.ndarray) -> np.ndarray:
        """Numbers of the rays that come near a field's surface or through it; errors of the others never change."""
        grid = grid_of(cells)
        near = ~empty_cells(grid, kernels.REACH)
        block = np.full(grid.shape, -1.0)
        n = near.shape
        for c in range(8):
            i, j, k = c >> 2, (c >> 1) & 1, c & 1
            block[i : n[0] + i, j : n[1] + j, k : n[2] + k, 0][near] = 1.0
        seen = np.empty((len(self.rays), 4))
        kernels.render(block, empty_cells(block), self.origins, self.rays, seen, np.empty(8))
        return np.flatnonzero(seen[:, 3] < 1)

    def gradient(self, cells: np.ndarray, chosen: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean squared error of some rays, and its gradient in the field's numbers."""
        grid = grid_of(cells)
        slope = np.zeros_like(grid)
        total = kernels.gradient(
            grid, empty_cells(grid, kernels.REACH), self.origins[chosen], self.rays[chosen], self.colours[chosen],
            slope, *self._room,
        )  # fmt: skip
        slope /= len(chosen)
        return total / (3 * len(chosen)), joined(slope[..., 0], gathered(slope[..., 1:], len(cells)))


def _descend(
    rays: Rays, cells: np.ndarray, pace: np.ndarray, rng: np.random.Generator, decode: Decode | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Take the steps of a part of the inner loop; returns the field and the agreement of steps (`Fitted`)."""
    near = rays.through(cells)
    agreement = np.zeros((len(pace), 2))
    if not near.size:
        return cells, agreement
    cells, known = cells.copy(), cells
    mean, square = np.zeros_like(cells), np.zeros_like(cells)
    order, at = rng.permutation(near), 0
    step = np.zeros_like(cells)
    for k, sizes in enumerate(pace):
        known = cells if decode is None else decode(cells, k)
        if at + _BATCH > len(order):
            order, at = rng.permutation(near), 0
        slope = rays.gradient(known, order[at : at + _BATCH])[1] * (len(near) / 1000)
        at += _BATCH
        if decode is None:
            slope += _SMOOTH * _roughness(cells)
        for part, some in enumerate((slice(None, LEVELS), slice(LEVELS, None))):
            if k:
                agreement[k - 1, part] = _cosine(slope[..., some], step[..., some])
        mean = _MOMENTUM * mean + (1 - _MOMENTUM) * slope
        square = _MEMORY * square + (1 - _MEMORY) * slope * slope
        step = mean / (1 - _MOMENTUM ** (k + 1)) / (np.sqrt(square / (1 - _MEMORY ** (k + 1))) + _FLOOR)
        cells[..., :LEVELS] -= sizes[0] * step[..., :LEVELS]
        cells[..., LEVELS:] -= sizes[1] * step[..., LEVELS:]
        if decode is not None:
            cells += _DRAWN * (known - cells)
        np.clip(cells[..., :LEVELS], -1, 1, out=cells[..., :LEVELS])
        np.clip(cells[..., LEVELS:], 0, 1, out=cells[..., LEVELS:])
    return cells, agreement


def _roughness(cells: np.ndarray) -> np.ndarray:
    """Half the gradient of the sum of squared differences between neighbours, of levels and of colours."""
    levels = cells[..., :LEVELS]
    colours = cells[..., LEVELS:]
    c = len(cells)
    fine = levels.reshape(c, c, c, FINE, FINE, FINE).transpose(0, 3, 1, 4, 2, 5).reshape((FINE * c,) * 3)
    return joined(_laplacian(fine), _laplacian(colours))


def _laplacian(values: np.ndarray) -> np.ndarray:
    result = np.zeros_like(values)
    for axis in range(3):
        rise = np.diff(values, axis=axis)
        after = [slice(1, None) if a == axis else slice(None) for a in range(values.ndim)]
        before = [slice(None, -1) if a == axis else slice(None) for a in range(values.ndim)]
        result[tuple(after)] += rise
        result[tuple(before)] -= rise
    return result


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / lengths if lengths > 0 else 0.0


def fit(views: Views, frame: Frame, coarse: int, pace: Pace, seed: int = 0) -> Fitted:
    """Find the field of a scene by the first part of the inner loop.

    Parameters
    ----------
    views : Views
        The given views.
    frame : Frame
        In which its box lies.
    coarse : int
        C, coarse cells along a side.
    pace : Pace
        Step sizes.
    seed : int
        Of the order of rays.
    """
    masks = silhouettes(views.images)
    box = box_around(views, masks, frame)
    first = start(views, masks, box, frame, coarse)
    rays = Rays(views, box, frame, FINE * coarse)
    cells, agreement = _descend(rays, first, pace.descent, np.random.default_rng(seed))
    return Fitted(cells, box, {"descent": agreement})


def refine(
    views: Views, fitted: Fitted, frame: Frame, pace: Pace, model: PatchModel, rate: int, seed: int = 0
) -> Fitted:
    """Refine the field of a scene under the quantiser, by the second part of the inner loop.

    Parameters
    ----------
    views, fitted, frame, pace, seed
        As for `fit`, and what it returns.
    model : PatchModel
        By which the field is coded.
    rate : int
        The step of its latents.

    Returns
    -------
    Fitted
        The field that is to be coded.
    """
    likely: list[np.ndarray] = []

    def decode(cells: np.ndarray, step: int) -> np.ndarray:
        if step % _RECHOSEN == 0:
            likely[:] = coder.likely_experts(model, scaled(model, cells[None]), rate)
        return coded(model, cells[None], rate, likely)[1][0]

    rays = Rays(views, fitted.box, frame, FINE * len(fitted.cells))
    cells, agreement = _descend(rays, fitted.cells, pace.refinement, np.random.default_rng(seed + 1), decode)
    return Fitted(cells, fitted.box, {**fitted.agreement, "refinement": agreement})


def scaled(model: PatchModel, cells: np.ndarray) -> np.ndarray:
    """Fields in the model's units."""
    offset, scale = model.scaling("field")
    return (cells - offset) / scale


def coded(
    model: PatchModel, cells: np.ndarray, rate: int, likely: list[np.ndarray] | None = None
) -> tuple[bytes, np.ndarray]:
    """The stream of fields ``[n, C, C, C, 11]``, and what a decoder makes of it."""
    values = scaled(model, cells)
    stream, decoded = coder.encode(model, values, rate, likely or coder.likely_experts(model, values, rate))
    offset, scale = model.scaling("field")
    return stream, decoded * scale + offset
