"""Simpler shapes: volumes of bits that need fewer bytes and overlap with the original ones as much as is asked.

What is changed is chosen by its price (rate-distortion optimisation). The price of a change is the bits that it saves
under a model of `vcinr.coding.bits`, against how much less the shape overlaps with the original:

- *Rate.* Each voxel has a context of `_NEIGHBOURS` earlier voxels and of its mirror images along x and z. How often a
  voxel was 1 in its context, in all shapes of the array as they are, gives its cost; the voxel itself is left out, and
  what is rare leans on its six nearest neighbours. So a change is judged by the costs of about twenty voxels.
- *Distortion.* The reciprocal of the IoU, so that a shape which has lost much already is spared.

A sweep tries four kinds of changes in turn: to drop a body that nothing connects to others; to shift a face, which is a
patch of voxels in a plane with the same neighbours before and behind; to shift an edge, which is a run of voxels in a
row with the same neighbours beside it; and to flip a single voxel. No body vanishes as a whole shape: what is left
always overlaps with the original.

Decoders know nothing of this. Costs are integers, so that the same shapes are made on every processor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vcinr.coding.coarse import sums_in_blocks
from vcinr.compiled import inner, outer

_BORDER: Any = 2
"""Voxels around a volume, as far as neighbours reach; they count 0 and are never changed."""
_NEIGHBOURS: Any = 16
_BEFORE = (
    (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 1, -1), (1, 0, -1), (1, -1, 0), (0, 0, 2),
    (0, 2, 0), (2, 0, 0), (1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1),
)  # fmt: skip
"""How many planes, rows and columns before a voxel its neighbours lie, the nearest first."""
_MIRROR_X: Any = 1 << 16
_MIRROR_Z: Any = 1 << 17
_ITSELF: Any = 1 << 18
"""Bits of a context besides those of the neighbours: the mirrored voxels, where they come earlier, and the voxel."""
_NEAREST = 64  # contexts of the six nearest neighbours
_TRUST = 2.0  # voxels that the nearest neighbours count as, in a context
_BIT: Any = 1024  # the cost of a bit
_ALONE, _EDGE, _FACE, _BODY = 0, 1, 2, 3
"""Kinds of changes."""


class _Grid(NamedTuple):
    """What the volumes of an array share; a place is a flat index into a volume with its border.

    Attributes
    ----------
    inside : numpy.ndarray
        bool: whether a place is no border.
    mirror : numpy.ndarray
        int32 ``[2, places]``: the mirror image of a place along x, and along z.
    step : numpy.ndarray
        int64 ``[3]``: from a place to the next one along z, y, x.
    before : numpy.ndarray
        int64 ``[_NEIGHBOURS]``: from a place back to its neighbours.
    """

    inside: np.ndarray
    mirror: np.ndarray
    step: np.ndarray
    before: np.ndarray


class _Volume(NamedTuple):
    """One volume and its scratch, an element for each place.

    Attributes
    ----------
    solid : numpy.ndarray
        uint8: the voxels as they are.
    ones, size : numpy.ndarray
        int32: voxels of the original in this place that are 1, and all of them.
    context : numpy.ndarray
        int32: the context of each voxel, with the voxel itself.
    change : numpy.ndarray
        int32: bits in which contexts would change; all 0 between trials.
    border : numpy.ndarray
        int32: places at which changes may begin.
    touched, chosen : numpy.ndarray
        int32: places whose contexts would change, and places whose voxels would.
    seen : numpy.ndarray
        int64: the last round of a search in which a place was found.
    total : numpy.ndarray
        int64 ``[3]``: voxels in the intersection with the original and in the union, and rounds of searches.
    """

    solid: np.ndarray
    ones: np.ndarray
    size: np.ndarray
    context: np.ndarray
    change: np.ndarray
    border: np.ndarray
    touched: np.ndarray
    chosen: np.ndarray
    seen: np.ndarray
    total: np.ndarray


class Simplifier:
    """Shapes that are made simpler, sweep by sweep.

    Parameters
    ----------
    original : numpy.ndarray
        bool ``[N, D, H, W]``: the shapes.
    factor : int
        Voxels along each axis that share a value; from 1 on.

    Attributes
    ----------
    cells : numpy.ndarray
        bool ``[N, d, h, w]``: the shapes as they are, a cell for each block of voxels. First they are those of about
        the highest IoU; one may be set, too.
    """

    def __init__(self, original: np.ndarray, factor: int) -> None:
        self._ones = sums_in_blocks(original, factor)
        self._size = sums_in_blocks(np.ones((1, *original.shape[1:]), bool), factor)[0]
        self.cells = _best_cells(self._ones, self._size)
        self._grid = _grid_of(self._size.shape)
        places = self._grid.inside.size
        self._volume = _Volume(
            solid=np.zeros(places, np.uint8), ones=np.zeros(places, np.int32), size=np.zeros(places, np.int32),
            context=np.zeros(places, np.int32), change=np.zeros(places, np.int32), border=np.zeros(places, np.int32),
            touched=np.zeros(places, np.int32), chosen=np.zeros(places, np.int32), seen=np.zeros(places, np.int64),
            total=np.zeros(3, np.int64),
        )  # fmt: skip
        self._inside(self._volume.size)[:] = self._size

    def _inside(self, places: np.ndarray) -> np.ndarray:
        """The elements that are no border, as a view ``[d, h, w]``."""
        within = slice(_BORDER, -_BORDER)
        return places.reshape([n + 2 * _BORDER for n in self._size.shape])[within, within, within]

    def sweep(self, weight: float) -> None:
        """Change what is cheaper changed.

        Parameters
        ----------
        weight : float
            The bits that a growth of 1 / IoU by 1 is worth, in each shape.
        """
        count = np.zeros(2 * _ITSELF, np.int64)
        for cells in self.cells:
            self._inside(self._volume.solid)[:] = cells
            _count_contexts(self._grid, self._volume, count)
        costs = _costs(count)
        for cells, ones in zip(self.cells, self._ones, strict=True):
            if ones.any():
                self._inside(self._volume.solid)[:] = cells
                self._inside(self._volume.ones)[:] = ones
                _sweep(self._grid, self._volume, costs[0], costs[1], _BIT * weight)
                cells[:] = self._inside(self._volume.solid) != 0


def _best_cells(ones: np.ndarray, size: np.ndarray) -> np.ndarray:
    """For each shape the cells that make about the highest IoU, at least one of a shape that is not empty."""
    cells = np.zeros(ones.shape, bool)
    for i, of_shape in enumerate(ones):
        share, total = of_shape / np.maximum(size, 1), int(of_shape.sum())
        if total == 0:
            continue
        least = 0.5
        for _ in range(4):
            # A cell more lets the IoU grow if the share of ones in it is above IoU / (1 + IoU).
            cells[i] = share >= min(least, float(share.max()))
            within = int(of_shape[cells[i]].sum())
            least = within / (within + total + int((size - of_shape)[cells[i]].sum()))
    return cells


def _grid_of(lengths: tuple[int, ...]) -> _Grid:
    """What volumes of these lengths share."""
    bordered = tuple(n + 2 * _BORDER for n in lengths)
    places = np.arange(np.prod(bordered, dtype=np.int64), dtype=np.int32).reshape(bordered)
    inside = np.zeros(bordered, bool)
    inside[tuple(slice(_BORDER, _BORDER + n) for n in lengths)] = True
    step = np.array([bordered[1] * bordered[2], bordered[2], 1])
    mirror = np.stack([places[:, :, ::-1].ravel(), places[::-1].ravel()])
    return _Grid(inside.ravel(), mirror, step, np.array(_BEFORE) @ step)


def _costs(count: np.ndarray) -> np.ndarray:
    """The cost int32 ``[2, contexts]`` of each voxel in its context: of one more, and of one that is counted there."""
    voxels = count.reshape(2, -1).astype(np.float64)
    nearest = voxels.reshape(2, -1, _NEAREST).sum(1) + 0.4
    prior = _TRUST * np.tile(nearest / nearest.sum(0), (1, voxels.shape[1] // _NEAREST))
    total = voxels.sum(0)
    more = np.log2((total + _TRUST) / (voxels + prior))
    counted = np.log2((np.maximum(total - 1, 0) + _TRUST) / (np.maximum(voxels - 1, 0) + prior))
    return np.rint(_BIT * np.stack([more.ravel(), counted.ravel()])).astype(np.int32)


@inner()
def _find_contexts(g: _Grid, v: _Volume) -> None:
    """Fill `v.context`. Most voxels are 0, so each 1 is written to the contexts that it is part of."""
    for p in range(v.solid.size):
        v.context[p] = 0
    for p in range(v.solid.size):
        if v.solid[p] != 0:
            v.context[p] |= _ITSELF
            for k in range(_NEIGHBOURS):
                v.context[p + g.before[k]] |= 1 << k
            if g.mirror[0, p] > p:
                v.context[g.mirror[0, p]] |= _MIRROR_X
            if g.mirror[1, p] > p:
                v.context[g.mirror[1, p]] |= _MIRROR_Z


@outer
def _count_contexts(g: _Grid, v: _Volume, count: np.ndarray) -> None:
    """Add the contexts of a volume's voxels to `count`."""
    _find_contexts(g, v)
    for p in range(v.solid.size):
        if g.inside[p]:
            count[v.context[p]] += 1


@outer
def _sweep(g: _Grid, v: _Volume, more: np.ndarray, counted: np.ndarray, weight: float) -> None:
    """Try all changes of a volume; `more` and `counted` are costs, see `_costs`."""
    _find_contexts(g, v)
    v.total[0] = v.total[1] = 0
    for p in range(v.solid.size):
        v.total[0] += v.ones[p] if v.solid[p] != 0 else 0
        v.total[1] += v.size[p] if v.solid[p] != 0 else v.ones[p]
    for kind in (_BODY, _FACE, _EDGE, _ALONE):
        begins = _find_border(g, v)
        for axis in range(3 if kind in (_EDGE, _FACE) else 1):
            v.total[2] += 1
            for i in range(begins):
                chosen = _choose(g, v, v.border[i], kind, axis)
                if chosen > 0:
                    _try(g, v, chosen, more, counted, weight)


@inner()
def _find_border(g: _Grid, v: _Volume) -> int:
    """Fill `v.border` with places whose voxels differ from a neighbour or are wrong; returns how many they are."""
    n = 0
    for p in range(v.solid.size):
        if g.inside[p]:
            pattern = _pattern(g, v, p)
            if (pattern != 0 and pattern != 0x7F) or _is_wrong(v, p):
                v.border[n] = p
                n += 1
    return n


@inner()
def _is_wrong(v: _Volume, p: int) -> bool:
    """Whether a cell has another value than most of its voxels in the original."""
    return 2 * v.ones[p] > v.size[p] if v.solid[p] == 0 else 2 * v.ones[p] < v.size[p]


@inner()
def _pattern(g: _Grid, v: _Volume, p: int) -> int:
    """A voxel, in bit 0, and its two neighbours along each axis, in bits 1 and 2, 3 and 4, 5 and 6."""
    return (
        int(v.solid[p]) | int(v.solid[p - g.step[0]]) << 1 | int(v.solid[p + g.step[0]]) << 2
        | int(v.solid[p - g.step[1]]) << 3 | int(v.solid[p + g.step[1]]) << 4
        | int(v.solid[p - 1]) << 5 | int(v.solid[p + 1]) << 6
    )  # fmt: skip


@inner()
def _unlike(pattern: int, mask: int) -> int:
    """How many of the neighbours in a mask have another value than the voxel."""
    other, count = (pattern ^ (0x7F if pattern & 1 else 0)) & mask, 0
    for k in range(1, 7):
        count += other >> k & 1
    return count


@inner()
def _choose(g: _Grid, v: _Volume, p: int, kind: int, axis: int) -> int:
    """Fill `v.chosen` with the places of the change that begins at `p`; returns how many they are.

    There are none where the change can hardly save anything, as one in the middle of a flat face: unless the cell has
    another value than most of its voxels have.
    """
    value, pattern = v.solid[p], _pattern(g, v, p)
    wrong = _is_wrong(v, p)
    v.chosen[0] = p
    along = 0b110 << 2 * axis
    if kind == _ALONE:
        return 1 if wrong or _unlike(pattern, 0x7E) >= 2 else 0
    if kind == _EDGE:
        across, step = 0x7F & ~along, g.step[axis]
        if g.inside[p - step] and (_pattern(g, v, p - step) ^ pattern) & across == 0:
            return 0  # it begins earlier
        if not wrong and _unlike(pattern, across) < 2:
            return 0
        n = 1
        while g.inside[p + n * step] and (_pattern(g, v, p + n * step) ^ pattern) & across == 0:
            v.chosen[n] = p + n * step
            n += 1
        return n if n > 1 else 0
    if v.seen[p] == v.total[2] or (kind == _BODY and value == 0):
        return 0
    mask = 1 if kind == _BODY else along | 1
    if kind == _FACE and not wrong and _unlike(pattern, along) == 0:
        return 0
    v.seen[p] = v.total[2]
    done, n = 0, 1
    while done < n:
        for beside in range(3):
            if kind == _BODY or beside != axis:
                for step in (-g.step[beside], g.step[beside]):
                    q = v.chosen[done] + step
                    if g.inside[q] and v.seen[q] != v.total[2] and (_pattern(g, v, q) ^ pattern) & mask == 0:
                        v.seen[q] = v.total[2]
                        v.chosen[n] = q
                        n += 1
        done += 1
    return n if n > 1 else 0


@inner()
def _try(g: _Grid, v: _Volume, chosen: int, more: np.ndarray, counted: np.ndarray, weight: float) -> None:
    """Flip the voxels in `v.chosen` if this lowers bits + weight / IoU."""
    within, union = v.total[0], v.total[1]
    for j in range(chosen):
        p = v.chosen[j]
        if v.solid[p] != 0:
            within -= v.ones[p]
            union -= v.size[p] - v.ones[p]
        else:
            within += v.ones[p]
            union += v.size[p] - v.ones[p]
    if within <= 0:
        return
    touched = 0
    for j in range(chosen):
        p = v.chosen[j]
        for k in range(_NEIGHBOURS + 3):
            if k < _NEIGHBOURS:
                q, bit = p + g.before[k], 1 << k
            elif k == _NEIGHBOURS:
                q, bit = p, _ITSELF
            else:
                q = g.mirror[k - _NEIGHBOURS - 1, p]
                bit = _MIRROR_X if k == _NEIGHBOURS + 1 else _MIRROR_Z
                if q <= p:
                    continue
            if g.inside[q]:
                if v.change[q] == 0:
                    v.touched[touched] = q
                    touched += 1
                v.change[q] |= bit
    cost = 0
    for j in range(touched):
        q = v.touched[j]
        cost += more[v.context[q] ^ v.change[q]] - counted[v.context[q]]
    better = cost + weight * (union / within - v.total[1] / v.total[0]) < 0.0
    for j in range(touched):
        q = v.touched[j]
        if better:
            v.context[q] ^= v.change[q]
        v.change[q] = 0
    if better:
        v.total[0], v.total[1] = within, union
        for j in range(chosen):
            v.solid[v.chosen[j]] ^= 1
