"""Residual coder: prediction from reconstructed values, and entropy coding under contexts.

Residuals ``[T, C, H, W]`` (times, levels, a plane) are coded plane by plane, with one of three predictors:

*adaptive*
    A plane is refined from a single point by halving its lattice: first the centres of the cells, then the midpoints of
    their edges. A point is predicted as the mean of its four nearest known points, plus a linear combination of how
    other known points differ from such means, in this plane and in others (of the time before, the mean over all
    earlier times, the level below). The weights solve a least-squares problem over the points coded so far, weighted by
    the local scale, as in lossless image coding (Wu, Barthel & Zhang 1998); here, on *reconstructed* values at any
    step.
*plain*
    Nothing is predicted. Rounded values are coded in raster order, and a row of zeros takes one decision. This suits
    what a model has predicted already, and sparse fields.
*interpolated*
    For speed; it has a bitstream of its own, see `vcinr.coding.interpolated`.

With the first two, the code of a point, an integer multiple of a step, is coded by `kernels.integer` under contexts of
the codes around it. Prediction and contexts use decoded integers and float64 arithmetic alone (add, multiply, divide,
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
    """The writer's choices, which the reader is told in one byte.

    Attributes
    ----------
    predictor : str
        ``plain``, ``adaptive`` or ``interpolated``, see above.
    temporal : bool
        Whether planes of earlier times are used.
    tighten : int
        How much finer the steps of coarse levels are: on lattice level l (0 is the finest) the step is divided by
        min((1 + tighten / 8)^l, 4).
    choices : Choices, optional
        For ``interpolated``, whose streams say such things themselves: choices that the writer has made already.
    """

    predictor: Predictor = "adaptive"
    temporal: bool = True
    tighten: int = 0
    choices: interpolated.Choices | None = None

    def to_bytes(self) -> bytes:
        """The plan as one byte."""
        if self.predictor == "interpolated":
            return bytes([_PREDICTORS.index(self.predictor)])
        return bytes([_PREDICTORS.index(self.predictor) | self.temporal << 2 | self.tighten << 3])

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Inverse of `to_bytes`; raises CorruptError for bytes that it cannot have made."""
        if len(data) != 1 or data[0] >= 128 or data[0] & 3 >= len(_PREDICTORS) or (data[0] & 2 and data[0] != 2):
            raise CorruptError("residual plan is malformed")
        return cls(_PREDICTORS[data[0] & 3], bool(data[0] >> 2 & 1), data[0] >> 3)


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


def encode(
    values: np.ndarray, step: float, plan: Plan, valid: np.ndarray | None = None
) -> tuple[bytes, np.ndarray]:  # fmt: skip
    """Code values so that each is within step / 2 of its reconstruction.

    Parameters
    ----------
    values : numpy.ndarray
        float64 ``[T, C, H, W]``.
    step : float
        Step of the quantiser; finer on coarse levels, see `Plan`.
    plan : Plan
        How to code them.
    valid : numpy.ndarray, optional
        bool, of the same shape. Other points cost nothing and are reconstructed as predicted.

    Returns
    -------
    data : bytes
        The bitstream.
    recon : numpy.ndarray
        The reconstruction.

    Raises
    ------
    OverflowError
        Where a value is too large for the step; the caller then stores the chunk losslessly.
    """
    if plan.predictor == "interpolated":
        return interpolated.encode(values, step, valid, plan.choices)
    coder = _coder(plan)
    recon = np.zeros(values.shape)
    data, fits = _convert(
        coder, np.empty(0, np.uint8), np.require(values, np.float64, ["C", "W"]), recon, step, plan, valid, True
    )
    if not fits:
        raise OverflowError("residual too large for its step")
    return kernels.stream(coder, data), recon


def decode(
    data: bytes, shape: tuple[int, int, int, int], step: float, plan: Plan, valid: np.ndarray | None = None
) -> np.ndarray:
    """Decode a bitstream.

    Parameters
    ----------
    data : bytes
        From `encode`.
    shape : tuple of int
        (T, C, H, W) of the values.
    step, plan, valid
        As in `encode`.

    Returns
    -------
    numpy.ndarray
        The reconstruction, float64, bit for bit that of `encode`.

    Raises
    ------
    CorruptError
        For bytes that no encoder makes.
    """
    if plan.predictor == "interpolated":
        return interpolated.decode(data, shape, step)
    coder, recon = _coder(plan), np.zeros(shape)
    stream = kernels.open_stream(coder, data)
    _convert(coder, stream, recon, recon, step, plan, valid, False)
    kernels.check_end(coder, stream)
    return recon


def _coder(plan: Plan) -> kernels.Coder:
    """A coder with as many contexts as the predictor needs."""
    return kernels.coder(kernels.PLAIN_CONTEXTS if plan.predictor == "plain" else kernels.CONTEXTS, kernels.CONTEXTS)


def fast_plan(values: np.ndarray, step: float, valid: np.ndarray | None = None) -> tuple[Plan, float]:
    """The interpolated plan for values, chosen from a sample.

    Parameters
    ----------
    values, step, valid
        As in `encode`.

    Returns
    -------
    plan : Plan
        It has the predictor ``interpolated``.
    size : float
        Estimate of the bytes that it takes.
    """
    mask = np.ones((1, 1, 1, 1), bool) if valid is None else valid
    choices, bits = interpolated.choose(np.require(values, np.float64, ["C"]), step, mask)
    return Plan("interpolated", False, choices=choices), bits / 8


def _convert(
    coder: kernels.Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, step: float, plan: Plan,
    valid: np.ndarray | None, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """Write values, or read them into `recon`; returns the buffer, and whether all values fit their steps."""
    if recon.size == 0:
        return (kernels.reserve(coder.state, data, 0) if writing else data), True
    mask = np.ones((1, 1, 1, 1), bool) if valid is None else np.require(valid, bool, ["C", "W"])
    if plan.predictor == "plain":
        return kernels.plain(coder, data, values, recon, mask, step, plan.temporal, writing)
    sizes = interpolated.lattice_steps(step, plan.tighten, 64)
    return kernels.adaptive(coder, data, values, recon, mask, sizes, plan.temporal, writing)
