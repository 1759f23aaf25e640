"""Lossy coding of shapes: how simple, and at which resolution, so that a goal is met in few bytes.

What is decoded is an array of bits like the original. It is made simpler (`vcinr.coding.simplify`), whole or as coarse
copies of one value for a block of voxels, until it has lost as much of the overlap as the goal allows, or takes as few
bytes. Then it is coded without loss. A thorough search tries all resolutions, a fast one begins at the coarsest and
takes the first that serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcinr.codec.promise import Effort, ious
from vcinr.coding import lossless
from vcinr.coding.bits import items_of, possible
from vcinr.coding.coarse import coarse_shape, grown
from vcinr.coding.simplify import Simplifier

_FACTORS = (8, 4, 2, 1)
_FIRST_WEIGHT, _LAST_WEIGHT = 32768.0, 1.0
"""Bits that 1 / IoU is worth in the first sweep, which changes little, and below which sweeps save nothing more."""
_HALVINGS = {"best": 4, "fast": 1}
"""How often the last step of the weight is halved, so that a goal is met closely."""


@dataclass(frozen=True, eq=False)
class Shapes:
    """Shapes that have been made simpler.

    Attributes
    ----------
    original : numpy.ndarray
        The shapes as they were.
    cells : numpy.ndarray
        What is coded, of their dtype, ``[N, d, h, w]``.
    factor : int
        How many voxels along each axis share a cell.
    """

    original: np.ndarray
    cells: np.ndarray
    factor: int

    @cached_property
    def stream(self) -> bytes:
        """They as `vcinr.coding.lossless` codes them."""
        if self.factor == 1:
            return lossless.encode(self.cells.reshape(self.original.shape))
        return lossless.encode_coarse(self.cells, self.factor)

    @cached_property
    def iou(self) -> float:
        """The mean IoU with the original."""
        return float(ious(self.original, grown(self.cells, self.original.shape, self.factor)).mean())


def is_solid(values: np.ndarray) -> bool:
    """Whether values are shapes: truth values, or integers that are 0 or 1."""
    if values.dtype.kind in "iu" and values.size:
        return bool(values.min() >= 0) and bool(values.max() <= 1)
    return values.dtype.kind in "biu"


def for_iou(values: np.ndarray, goal: float, effort: Effort) -> Shapes | None:
    """The smallest shapes whose mean IoU with the original is at least `goal`.

    Parameters
    ----------
    values : numpy.ndarray
        The shapes; `is_solid`.
    goal : float
        The mean over the shapes of the array, as `vcinr.codec.promise.ious` counts them; from 0 to 1.
    effort : {"best", "fast"}
        How thoroughly resolutions and weights are searched.

    Returns
    -------
    Shapes or None
        None where only the original serves, or bits of such a shape cannot be coded.
    """
    best: Shapes | None = None
    for simplifier, make in _resolutions(values):
        found: Shapes | None = None
        for shapes in _ever_simpler(simplifier, make, lambda shapes: shapes.iou < goal, effort):
            if shapes.iou >= goal:
                found = shapes
        if found is not None and (best is None or len(found.stream) < len(best.stream)):
            best = found
        if best is not None and effort == "fast":
            break
    return best


def for_bytes(values: np.ndarray, allowed: float, effort: Effort) -> Shapes | None:
    """The shapes of the highest mean IoU whose stream has at most `allowed` bytes; as `for_iou`, else."""
    best: Shapes | None = None
    for simplifier, make in _resolutions(values):
        coarser = best
        for shapes in _ever_simpler(simplifier, make, lambda shapes: len(shapes.stream) <= allowed, effort):
            if coarser is not None and shapes.iou <= coarser.iou:
                break  # simpler ones are worse still
            if len(shapes.stream) <= allowed and (best is None or shapes.iou > best.iou):
                best = shapes
        if best is not None and best is coarser and effort == "fast":
            break
    return best


def _resolutions(values: np.ndarray) -> Iterator[tuple[Simplifier, Callable[[np.ndarray], Shapes]]]:
    """For each resolution, from coarse to fine, what makes shapes simpler, and from its cells the shapes."""
    original = (values != 0).reshape(items_of(values.shape))
    if not original.any():
        return
    longest = max(original.shape[1:])
    for factor in _FACTORS:
        if (factor > 1 and factor >= longest) or not possible(coarse_shape(values.shape, factor)):
            continue

        def make(cells: np.ndarray, factor: int = factor) -> Shapes:
            return Shapes(values, cells.astype(values.dtype), factor)

        yield Simplifier(original, factor), make


def _ever_simpler(
    simplifier: Simplifier, make: Callable[[np.ndarray], Shapes], crossed: Callable[[Shapes], bool], effort: Effort
) -> Iterator[Shapes]:
    """Make shapes simpler and simpler until they have crossed a limit; then go back, and cross it by smaller steps."""
    shapes = make(simplifier.cells)
    yield shapes
    if crossed(shapes):
        return
    kept, weight = simplifier.cells.copy(), _FIRST_WEIGHT
    while weight >= _LAST_WEIGHT:
        simplifier.sweep(weight)
        shapes = make(simplifier.cells)
        yield shapes
        if crossed(shapes):
            break
        kept, weight = simplifier.cells.copy(), weight / 2
    else:
        return
    low, high = weight, 2 * weight
    for _ in range(_HALVINGS[effort]):
        simplifier.cells[:] = kept
        middle = math.sqrt(low * high)
        simplifier.sweep(middle)
        shapes = make(simplifier.cells)
        yield shapes
        if crossed(shapes):
            low = middle
        else:
            kept, high = simplifier.cells.copy(), middle
