"""What residual coders share: the contract they keep, the plan that names one, and how arrays become planes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Plan:
    """Which residual coder codes a chunk, and how: the writer's choices, of which a coder looks at its own.

    Attributes
    ----------
    coder : str
        Name of the coder.
    temporal : bool
        Whether planes of earlier times are used.
    tighten : int
        How much finer the steps of coarse levels are: on lattice level l (0 is the finest) the step is divided by
        min((1 + tighten / 8)^l, 4).
    brief : bool
        Whether the weights of a prediction follow the last points more closely, and forget earlier ones sooner: for
        fields that change their texture from place to place.
    choices : object, optional
        For a coder whose streams say everything themselves: choices that the writer has made already.
    """

    coder: str = "adaptive"
    temporal: bool = True
    tighten: int = 0
    brief: bool = False
    choices: Any = None


Encode = Callable[..., "tuple[bytes, np.ndarray]"]
"""(values, step, plan, mask), and the positions for a coder that needs them, to the stream and the reconstruction."""
Decode = Callable[..., np.ndarray]
"""(stream, shape, step, plan, mask), and the positions for a coder that needs them, to the reconstruction."""
Estimate = Callable[[np.ndarray, float, "np.ndarray | None"], "tuple[Plan, float]"]


@dataclass(frozen=True)
class ResidualCoder:
    """The contract of a residual coder, which its file in this folder states as `CODER`.

    Attributes
    ----------
    name : str
        As in plans.
    encode, decode : callable
        As `vcinr.coding.residual.encode` and `decode`, which call them.
    first : Plan
        What a search tries first.
    variations : mapping
        Entries of the plan and values worth trying instead, in order, each as long as it is better than the one before.
    predicts : bool
        Whether the coder predicts values from others. Without prediction it suits what a model has predicted already,
        and sparse fields.
    states_plan : bool
        Whether the reader is told `temporal`, `tighten` and `brief` beside the coder's number; else its streams say
        everything.
    needs_positions : bool
        Whether `encode` and `decode` take, as one more argument, the positions of the points of a plane
        (`vcinr.coding.neighbours.Positions`). It can be used only where they are known.
    estimate : callable, optional
        For a fast coder: from values, step and mask, as of `encode`, to a plan and an estimate of the bytes that it
        takes. It raises OverflowError as `encode` does.
    """

    name: str
    encode: Encode
    decode: Decode
    first: Plan
    variations: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    predicts: bool = True
    states_plan: bool = True
    needs_positions: bool = False
    estimate: Estimate | None = None


def planes(index: tuple[int, ...], grid: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The shape of an array seen as planes.

    Parameters
    ----------
    index : tuple of int
        Lengths of its index axes.
    grid : tuple of int
        Lengths of its grid axes.

    Returns
    -------
    tuple of int
        (T, C, H, W): times, levels and a plane. The last two axes of all are the plane (so a grid of one axis takes the
        index axis before it), the axis before them is levels, and all other axes together are times. A single time of
        several levels counts as several times of one level.
    """
    shape = (1, 1, 1, 1, *index, *grid)
    times, levels, height, width = math.prod(shape[:-3]), shape[-3], shape[-2], shape[-1]
    return (levels, 1, height, width) if times == 1 else (times, levels, height, width)


def signal_counts(index: tuple[int, ...]) -> tuple[int, int]:
    """(T, C), the times and levels of signals with these index axes, as `planes` has them for a grid of two axes."""
    return planes(index, (1, 1))[:2]


def lattice_steps(step: float, tighten: int, count: int) -> np.ndarray:
    """Steps of the lattice levels.

    Parameters
    ----------
    step : float
        Step of the finest level.
    tighten : int
        See `Plan`.
    count : int
        Number of levels.

    Returns
    -------
    numpy.ndarray
        float64 ``[count]``, the finest level first: step / min((1 + tighten / 8)^level, 4).
    """
    sizes, factor = [], 1.0
    for _ in range(count):
        sizes.append(step / factor)
        factor = min(factor * (1.0 + tighten / 8.0), 4.0)
    return np.array(sizes)
