"""Tiles of signals: a model that learned from tiles of one size applies to signals of any size, tile by tile.

A signal's grid is cut from its first point on. The last tiles along an axis have what is left of it, and may be shorter
than the others. They hold no points but the signal's own, so nothing has to be made up beyond its ends.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from vcinr.signals.domain import Grid


@dataclass(frozen=True)
class Part:
    """A box of a grid that consists of tiles of one shape.

    Attributes
    ----------
    start : tuple of int
        The box's first point, by its index along each axis.
    counts : tuple of int
        Numbers of tiles along each axis.
    shape : tuple of int
        Lengths of a tile.
    of_all : tuple of int
        Numbers of tiles along each axis of the whole grid.
    first : tuple of int
        The box's first tile, by its index along each axis of the whole grid.
    """

    start: tuple[int, ...]
    counts: tuple[int, ...]
    shape: tuple[int, ...]
    of_all: tuple[int, ...]
    first: tuple[int, ...]

    @property
    def domain(self) -> Grid:
        """The points of one of its tiles, whose coordinates are their indices within the tile."""
        return Grid(tuple(np.arange(n, dtype=np.float64) for n in self.shape))

    def rows(self, signals: int) -> np.ndarray:
        """Indices of the box's tiles, for so many signals, among the tiles of the whole grids, all in C order."""
        every = np.arange(signals * math.prod(self.of_all)).reshape(signals, *self.of_all)
        ends = (f + c for f, c in zip(self.first, self.counts, strict=True))
        return every[(slice(None), *map(slice, self.first, ends))].ravel()

    def cut(self, signals: np.ndarray) -> np.ndarray:
        """Cut the box of signals ``[n, features, *grid]`` into tiles ``[n * tiles, features, *shape]``, in C order."""
        n, features = signals.shape[:2]
        d = len(self.shape)
        pairs = itertools.chain(*zip(self.counts, self.shape, strict=True))
        apart = signals[self._box].reshape(n, features, *pairs)
        ordered = apart.transpose(0, *range(2, 2 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2))
        return ordered.reshape(n * math.prod(self.counts), features, *self.shape)

    def put(self, tiles: np.ndarray, signals: np.ndarray) -> None:
        """Inverse of `cut`: write tiles into the box of signals."""
        n, features = signals.shape[:2]
        d = len(self.shape)
        apart = tiles.reshape(n, *self.counts, features, *self.shape)
        pairs = itertools.chain(*((1 + k, 2 + d + k) for k in range(d)))
        box = signals[self._box]
        box[...] = apart.transpose(0, 1 + d, *pairs).reshape(box.shape)

    @property
    def _box(self) -> tuple[slice, ...]:
        ends = (s + c * n for s, c, n in zip(self.start, self.counts, self.shape, strict=True))
        return (slice(None), slice(None), *map(slice, self.start, ends))


def parts_of(grid: tuple[int, ...], tile: tuple[int, ...]) -> list[Part]:
    """Cut a grid into boxes of whole tiles and of shorter ones: up to two along each axis, so eight at most for three.

    Parameters
    ----------
    grid : tuple of int
        Lengths of the grid.
    tile : tuple of int
        Lengths of a whole tile.
    """
    of_all = tuple(-(-n // t) for n, t in zip(grid, tile, strict=True))
    along = []  # of each axis: start, number and length of the whole tiles, then of the shorter one
    for n, t in zip(grid, tile, strict=True):
        whole, rest = divmod(n, t)
        along.append([run for run in ((0, whole, t), (whole * t, 1, rest)) if run[1] * run[2]])
    parts = []
    for runs in itertools.product(*along):
        start, counts, shape = (tuple(values) for values in zip(*runs, strict=True))
        first = tuple(s // t for s, t in zip(start, tile, strict=True))
        parts.append(Part(start, counts, shape, of_all, first))
    return parts


def tiles_in(grid: tuple[int, ...], tile: tuple[int, ...]) -> int:
    """Number of tiles into which a grid is cut."""
    return math.prod(-(-n // t) for n, t in zip(grid, tile, strict=True))
