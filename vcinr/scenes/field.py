"""The radiance field of a scene: how its numbers are laid out, where it lies, and what a camera sees of it.

A scene has a box, cut into C^3 coarse cells. Each has 11 features: the levels of its 2 by 2 by 2 vertices, and one
colour. The levels are a grid of (2 C)^3 vertices that spans the box; the colours are one of C^3 vertices that spans it,
too, interpolated linearly to the vertices of the levels.

From numbers to views the arithmetic is elementwise + - * / and square roots of float64, so views are the same on every
processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vcinr.scenes import kernels

FINE = 2
"""Vertices of levels along a side of a coarse cell."""
LEVELS = FINE**3
FEATURES = LEVELS + 3
"""Numbers of a coarse cell: levels and a colour."""
DIMS = ("x", "y", "z")
"""Names of the field's axes, which are the world's."""
BOX_STEPS = 255
"""A box lies on a lattice of so many steps along each side of the frame."""


class Camera(NamedTuple):
    """What all cameras of a scene share, in pixels.

    Attributes
    ----------
    height, width : int
        Size of a view.
    fl_x, fl_y : float
        Focal lengths.
    cx, cy : float
        Where the optical axis meets the view, from its left and upper edge.
    """

    height: int
    width: int
    fl_x: float
    fl_y: float
    cx: float
    cy: float


class Frame(NamedTuple):
    """The cube in which the boxes of all scenes of an archive lie.

    Attributes
    ----------
    corner : tuple of float
        Its corner with the least coordinates, in the world's units.
    side : float
        Length of its sides.
    """

    corner: tuple[float, float, float]
    side: float


def rays_of(camera: Camera, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rays through the middles of a view's pixels, in the world's coordinates.

    Parameters
    ----------
    camera : Camera
        How the camera sees.
    pose : numpy.ndarray
        float64 ``[4, 4]``: the camera's axes (x right, y up, z backwards) and place, in the convention of NeRF.

    Returns
    -------
    origins, rays : numpy.ndarray
        float64 ``[height * width, 3]``, row by row from above.
    """
    column, row = np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5
    x = np.tile((column - camera.cx) / camera.fl_x, camera.height)
    y = np.repeat((camera.cy - row) / camera.fl_y, camera.width)
    rays = np.stack([x * pose[a, 0] + y * pose[a, 1] - pose[a, 2] for a in range(3)], 1)
    return np.broadcast_to(pose[:3, 3], rays.shape), rays


def within(
    origins: np.ndarray, rays: np.ndarray, low: np.ndarray, high: np.ndarray, vertices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rays in cells of a box's grid of levels, of length 1; the box reaches from `low` to `high`."""
    cell = (high - low) / (vertices - 1)
    start, along = (origins - low) / cell, rays / cell
    x, y, z = along.T
    length = np.sqrt(x * x + y * y + z * z)
    return np.ascontiguousarray(start), along / length[:, None]


def box_of(box: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a box, float64 ``[3]`` each, from its place on the lattice, uint8 ``[6]``."""
    corner = np.array(frame.corner)
    low, high = box[:3].astype(np.float64), box[3:].astype(np.float64)
    return corner + low * frame.side / BOX_STEPS, corner + high * frame.side / BOX_STEPS


def split(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels ``[2 C, 2 C, 2 C]`` and colours ``[C, C, C, 3]`` of the numbers of coarse cells ``[C, C, C, 11]``."""
    c = len(cells)
    levels = cells[..., :LEVELS].reshape(c, c, c, FINE, FINE, FINE).transpose(0, 3, 1, 4, 2, 5)
    return levels.reshape(FINE * c, FINE * c, FINE * c), cells[..., LEVELS:]


def joined(levels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Inverse of `split`."""
    c = len(colours)
    within_cells = levels.reshape(c, FINE, c, FINE, c, FINE).transpose(0, 2, 4, 1, 3, 5).reshape(c, c, c, LEVELS)
    return np.concatenate([within_cells, colours], -1)


def places(coarse: int, fine: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `fine` vertices the coarse one before it, and how far it lies towards the next."""
    at = np.arange(fine) * (coarse - 1) / (fine - 1)
    before = np.minimum(at.astype(np.int64), max(0, coarse - 2))
    return before, at - before


def spread(colours: np.ndarray, fine: int) -> np.ndarray:
    """Interpolate colours ``[C, C, C, 3]`` to ``[fine, fine, fine, 3]``."""
    before, share = places(len(colours), fine)
    after = np.minimum(before + 1, len(colours) - 1)
    for axis in range(3):
        part = share.reshape([-1 if a == axis else 1 for a in range(4)])
        colours = np.take(colours, before, axis) * (1 - part) + np.take(colours, after, axis) * part
    return colours


def gathered(slope: np.ndarray, coarse: int) -> np.ndarray:
    """The transpose of `spread`: gradients in fine colours as those in coarse ones."""
    before, share = places(coarse, len(slope))
    matrix = np.zeros((coarse, len(slope)))
    matrix[before, np.arange(len(slope))] = 1 - share
    matrix[np.minimum(before + 1, coarse - 1), np.arange(len(slope))] += share
    for axis in range(3):
        slope = np.moveaxis(np.tensordot(matrix, slope, (1, axis)), 0, axis)
    return slope


def grid_of(cells: np.ndarray) -> np.ndarray:
    """The field at the vertices of the levels, float64 ``[2 C, 2 C, 2 C, 4]``: level, red, green and blue."""
    levels, colours = split(np.asarray(cells, np.float64))
    return np.concatenate([levels[..., None], spread(colours, len(levels))], -1)


def empty_cells(grid: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Which cells of a grid have no opacity anywhere; see `kernels.find_empty`."""
    empty = np.empty(tuple(n - 1 for n in grid.shape[:3]), bool)
    kernels.find_empty(grid, margin, empty)
    return empty


def views(
    cells: np.ndarray, box: np.ndarray, frame: Frame, camera: Camera, poses: Sequence[np.ndarray] | np.ndarray
) -> np.ndarray:
    """Render views of a scene.

    Parameters
    ----------
    cells : numpy.ndarray
        ``[C, C, C, 11]``: the field's numbers.
    box : numpy.ndarray
        uint8 ``[6]``: its box.
    frame : Frame
        The frame of the box.
    camera : Camera
        How the cameras see.
    poses : sequence of numpy.ndarray
        float64 ``[V, 4, 4]``, as for `rays_of`.

    Returns
    -------
    numpy.ndarray
        uint8 ``[V, height, width, 3]``, on white.
    """
    grid = grid_of(cells)
    empty = empty_cells(grid)
    low, high = box_of(box, frame)
    result = np.empty((len(poses), camera.height, camera.width, 3), np.uint8)
    for shown, pose in zip(result, poses, strict=True):
        origins, rays = within(*rays_of(camera, pose), low, high, len(grid))
        seen = np.empty((len(rays), 4))
        kernels.render(grid, empty, origins, rays, seen, np.empty(8))
        colours = np.clip(np.rint(255 * seen[:, :3]), 0, 255)
        shown[:] = np.nan_to_num(colours).astype(np.uint8).reshape(shown.shape)
    return result
