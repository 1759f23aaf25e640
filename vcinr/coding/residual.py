"""Residual coder: prediction with error feedback on reconstructed values, and entropy coding under contexts.

An array ``[T, C, H, W]`` (times, levels, a plane) is coded plane by plane. Three predictors:

*adaptive*: a plane is refined from a single point by halving its lattice, first the centres of the cells, then the
midpoints of their edges. A point's prediction is the mean of its four nearest known points plus a linear
combination of how others, in this plane and in those before (earlier time, running mean, level below), differ from
such means; the weights solve a least-squares problem over what has been coded, weighted by the local scale, as
in lossless image coding (Wu, Barthel & Zhang 1998), but on *reconstructed* values at any quantisation.
*plain*: nothing is predicted, what is coded are the rounded values in raster order, a row of zeros as one decision.
Right for what a model has predicted already, and for sparse fields.
*interpolated*: for speed, see `interpolated`, whose streams are of a kind of their own.

Of the first two, the code, an integer multiple of a step, goes to `kernels.integer` under contexts made of the codes
around it. All that prediction and contexts use is decoded integers and float64 arithmetic (add, multiply, divide,
square root, in a fixed order, never fused), which IEEE 754 makes the same on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vcinr.coding import interpolated, kernels
from vcinr.errors import CorruptError

Predictor = Literal["plain", "adaptive", "interpolated"]
_PREDICTORS: tuple[Predictor, ...] = ("plain", "adaptive", "interpolated")


@dataclass(frozen=True)
class Plan:
    """Choices of the writer that the reader is told, in one byte.

    predictor: see above. temporal: whether planes of earlier times are looked at. tighten: on lattice level l (0 the
    finest) the step is divided by min((1 + tighten / 8)^l, 4). Streams of "interpolated" say such things themselves:
    choices, where the writer knows them already.
    """

    predictor: Predictor = "adaptive"
    temporal: bool = True
    tighten: int = 0
    choices: interpolated.Choices | None = None

    def to_bytes(self) -> bytes:
        """One byte."""
        if self.predictor == "interpolated":
            return bytes([_PREDICTORS.index(self.predictor)])
        return bytes([_PREDICTORS.index(self.predictor) | self.temporal << 2 | self.tighten << 3])

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Inverse of `to_bytes`; raises CorruptError."""
        if len(data) != 1 or data[0] >= 128 or data[0] & 3 >= len(_PREDICTORS) or (data[0] & 2 and data[0] != 2):
            raise CorruptError("residual plan is malformed")
        return cls(_PREDICTORS[data[0] & 3], bool(data[0] >> 2 & 1), data[0] >> 3)


def planes(index: tuple[int, ...], grid: tuple[int, ...]) -> tuple[int, int, int, int]:
    """An array's index axes and then its grid axes as times, levels and a plane.

    The last two of all are the plane (of a grid of one axis with the index axis before it), what comes right before
    them are levels, all else times.
    """
    shape = (1, 1, 1, 1, *index, *grid)
    times, levels, height, width = math.prod(shape[:-3]), shape[-3], shape[-2], shape[-1]
    return (levels, 1, height, width) if times == 1 else (times, levels, height, width)


def signal_counts(index: tuple[int, ...]) -> tuple[int, int]:
    """Times and levels of the signals that `index` axes count, as `planes` has them of a grid of two axes."""
    return planes(index, (1, 1))[:2]


def encode(
    values: np.ndarray, step: float, plan: Plan, valid: np.ndarray | None = None
) -> tuple[bytes, np.ndarray]:  # fmt: skip
    """Code float64 `values` ``[T, C, H, W]`` so that each is within step / 2 of its reconstruction.

    Returns the bitstream and the reconstruction. Points outside `valid` (bool, same shape) cost nothing and are
    reconstructed as predicted. Raises OverflowError when a value is too large for the step (the caller stores
    the chunk losslessly).
    """
    if plan.predictor == "interpolated":
        return interpolated.encode(values, step, valid, plan.choices)
    coder = _coder(plan)
    recon = np.zeros(values.shape)
    data, fits = _run(
        coder, np.empty(0, np.uint8), np.require(values, np.float64, ["C", "W"]), recon, step, plan, valid, True
    )
    if not fits:
        raise OverflowError("residual too large for its step")
    return kernels.stream(coder, data), recon


def decode(
    data: bytes, shape: tuple[int, int, int, int], step: float, plan: Plan, valid: np.ndarray | None = None
) -> np.ndarray:
    """Exact inverse of `encode`: the reconstruction, float64. Raises CorruptError."""
    if plan.predictor == "interpolated":
        return interpolated.decode(data, shape, step)
    coder, recon = _coder(plan), np.zeros(shape)
    stream = kernels.open_stream(coder, data)
    _run(coder, stream, recon, recon, step, plan, valid, False)
    kernels.check_end(coder, stream)
    return recon


def _coder(plan: Plan) -> kernels.Coder:
    return kernels.coder(kernels.PLAIN_CONTEXTS if plan.predictor == "plain" else kernels.CONTEXTS, kernels.CONTEXTS)


def fast_plan(values: np.ndarray, step: float, valid: np.ndarray | None = None) -> tuple[Plan, float]:
    """The interpolated plan for these values, and the bytes that it should take, by a sample.

    Arguments as those of `encode`.
    """
    there = np.ones((1, 1, 1, 1), bool) if valid is None else valid
    choices, bits = interpolated.choose(np.require(values, np.float64, ["C"]), step, there)
    return Plan("interpolated", False, choices=choices), bits / 8


def _run(
    coder: kernels.Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, step: float, plan: Plan,
    valid: np.ndarray | None, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    if recon.size == 0:
        return (kernels.reserve(coder.state, data, 0) if writing else data), True
    there = np.ones((1, 1, 1, 1), bool) if valid is None else np.require(valid, bool, ["C", "W"])
    if plan.predictor == "plain":
        return kernels.plain(coder, data, values, recon, there, step, plan.temporal, writing)
    sizes = interpolated.lattice_steps(step, plan.tighten, 64)
    return kernels.adaptive(coder, data, values, recon, there, sizes, plan.temporal, writing)
