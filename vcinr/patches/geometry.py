"""The geometry of patches: which points around a patch are known when it is coded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcinr.patches import kernels


@dataclass(frozen=True)
class Geometry:
    """The size of patches, and how far around a patch its prediction looks. Axes are z, y, x; a missing one has size 1.

    Patches are coded row by row, so the known points around one are those in patches of lower z, of equal z and lower
    y, or of equal z and y and lower x.

    Parameters
    ----------
    size : (int, int, int)
        Lengths of a patch.
    back, ahead : (int, int, int)
        How far the prediction looks along each axis, before the patch's first and beyond its last point.
    motion : int
        How far along y and x the points of earlier z may be displaced, each patch by its own displacement, so that the
        prediction follows what moves. 0 for none; otherwise patches have length 1 along z.
    group : int
        For motion, length of the groups of planes (the frames of a video) of which the last is coded first and then
        the middle ones, each looking at the planes before and after it (`vcinr.patches.frames`); `back` and `ahead` are
        then of the patch's own plane alone. 0 to code planes in order, each looking at the one before.
    margin : int
        With groups, how far along y and x one looks around the displaced patch in another plane.
    finer : tuple of int
        With groups, what is added to the rate of the first plane, of the last ones of groups, and of those in the
        middle after each halving: planes that others look at are coded more finely.
    """

    size: tuple[int, int, int]
    back: tuple[int, int, int]
    ahead: tuple[int, int, int]
    motion: int = 0
    group: int = 0
    margin: int = 0
    finer: tuple[int, ...] = ()

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where the known points around a patch lie, from its first point: int64 ``[C, 3]``."""
        axes = [range(-b, n + a) for n, b, a in zip(self.size, self.back, self.ahead, strict=True)]
        return np.array([o for o in itertools.product(*axes) if self._before(o)], np.int64).reshape(-1, 3)

    def _before(self, offset: tuple[int, ...]) -> bool:
        """Whether a point is in a patch that is coded earlier."""
        return tuple(o // n for o, n in zip(offset, self.size, strict=True)) < (0, 0, 0)

    @cached_property
    def near(self) -> np.ndarray:
        """For each of the C points all of them, the nearest first: int64 ``[C, C]``."""
        near = np.empty((len(self.offsets),) * 2, np.int64)
        for j, offset in enumerate(self.offsets):  # one by one, which takes less memory than all at once
            near[j] = np.argsort(np.square(self.offsets - offset).sum(-1), kind="stable")
        return near

    def seen(self, planes: int) -> int:
        """Number of points that are seen around a patch in its own plane and in so many others, with groups."""
        height, width = (n + 2 * self.margin for n in self.size[1:])
        return len(self.offsets) + planes * height * width

    @property
    def points(self) -> int:
        """Number of points of a patch."""
        return self.size[0] * self.size[1] * self.size[2]

    def padded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of a signal, z y x, when it is extended to whole patches."""
        return tuple(-(-n // s) * s for n, s in zip(shape, self.size, strict=True))


def extended(signal: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Extend a signal ``[Z, Y, X, F]`` to whole patches by repeating its last values."""
    shape = geometry.padded(signal.shape[:3])
    return np.pad(signal, [*((0, n - m) for n, m in zip(shape, signal.shape[:3], strict=True)), (0, 0)], "edge")


def usual(axes: int) -> Geometry:
    """The geometry that is taken where none is given, for signals of one to three axes."""
    if axes == 1:
        return Geometry((1, 1, 128), (0, 0, 256), (0, 0, 0))
    if axes == 2:
        return Geometry((1, 8, 8), (0, 2, 2), (0, 0, 8))
    return Geometry((4, 4, 4), (2, 2, 2), (0, 2, 2))


def three(lengths: tuple[int, ...], fill: int) -> tuple[int, int, int]:
    """Lengths of one to three axes as those of z, y and x."""
    padded = (*[fill] * (3 - len(lengths)), *lengths)
    return padded[0], padded[1], padded[2]


def shifts(signal: np.ndarray, geometry: Geometry) -> np.ndarray | None:
    """The displacements of a signal's patches, int64 ``[nz, ny, nx, 2]``.

    None where the geometry has no motion from plane to plane.
    """
    if not geometry.motion or geometry.group:
        return None
    return kernels.shifts_of(
        np.array(geometry.size, np.int64), geometry.motion, np.ascontiguousarray(signal, np.float64)
    )


def windows(
    signal: np.ndarray, geometry: Geometry, index: np.ndarray, middle: np.ndarray, moved: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What a decoder knows around patches, and what they hold; the same as `kernels.patches` has it.

    Parameters
    ----------
    signal : numpy.ndarray
        float32 ``[Z, Y, X, F]``, of whole patches.
    geometry : Geometry
        Size of the patches.
    index : numpy.ndarray
        ``[N, 3]``: which patches.
    middle : numpy.ndarray
        ``[F]``: the mean around a patch that has nothing around it.
    moved : numpy.ndarray, optional
        The displacements of the signal's patches, from `shifts`.

    Returns
    -------
    around, target : numpy.ndarray
        float32 ``[N, C F]`` and ``[N, Q]``, less the mean around.
    """
    size, features = np.array(geometry.size), signal.shape[-1]
    corner = index * size
    places = corner[:, None] + geometry.offsets  # [N, C, 3]
    if moved is not None:
        places[..., 1:] += moved[tuple(index.T)][:, None] * (geometry.offsets[:, :1] < 0)
    known = ((places >= 0) & (places < np.array(signal.shape[:3]))).all(-1)
    if not known.all():
        for row in np.flatnonzero(~known.all(1) & known.any(1)):
            first = known[row][geometry.near].argmax(1)  # of each point, the nearest known one
            places[row] = places[row][geometry.near[np.arange(len(first)), first]]
    lonely = ~known.any(1)
    places[lonely] = 0
    z, y, x = np.moveaxis(places, -1, 0)
    around = signal[z, y, x]  # [N, C, F]
    mean = around.mean(1) if around.shape[1] else np.zeros((len(index), features), np.float32)
    mean[lonely] = middle
    around = around - mean[:, None]
    around[lonely] = 0
    grid = np.stack(np.meshgrid(*map(np.arange, geometry.size), indexing="ij"), -1).reshape(-1, 3)
    z, y, x = np.moveaxis(corner[:, None] + grid, -1, 0)
    target = signal[z, y, x] - mean[:, None]
    return around.reshape(len(index), -1), target.reshape(len(index), -1)


_AT_ONCE = 1 << 13  # patches that are looked at together


def parts(count: int) -> Iterator[slice]:
    """Cut `count` patches into runs that take little memory."""
    for first in range(0, count, _AT_ONCE):
        yield slice(first, first + _AT_ONCE)
