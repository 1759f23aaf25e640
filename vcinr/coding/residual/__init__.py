"""Residual coders: what a prior leaves, ``[T, C, H, W]`` (times, levels, a plane), to bytes and back.

Each coder is a file of this folder that keeps the contract `ResidualCoder`; `CODERS` lists them. Neither the search for
the smallest chunk nor the decoder knows a coder by name.
"""

from __future__ import annotations

import numpy as np

from vcinr.coding.neighbours import Positions
from vcinr.coding.residual import adaptive, interpolated, nearest, plain
from vcinr.coding.residual.base import Plan, ResidualCoder, planes, signal_counts
from vcinr.errors import CorruptError

__all__ = [
    "CODERS",
    "Plan",
    "ResidualCoder",
    "coder_of",
    "decode",
    "encode",
    "pack",
    "planes",
    "signal_counts",
    "unpack",
]

CODERS: tuple[ResidualCoder, ...] = (plain.CODER, adaptive.CODER, interpolated.CODER, nearest.CODER)
"""In the order of their numbers in the plan byte (docs/format.md)."""
_LATER = 3  # in the plan byte: the coder's own number follows
_BY_NAME = {coder.name: coder for coder in CODERS}


def coder_of(plan: Plan) -> ResidualCoder:
    """The coder that a plan names."""
    return _BY_NAME[plan.coder]


def pack(plan: Plan) -> bytes:
    """A plan as bytes.

    Of the first byte, bits 0 and 1 are the coder; where it states them, bit 2 is `temporal`, bits 3 to 6 are `tighten`,
    and bit 7 is `brief`, which only coders that predict may have.
    Coders from number 3 on have the byte 3 and then their number.
    """
    coder = coder_of(plan)
    number = CODERS.index(coder)
    if number >= _LATER:
        return bytes([_LATER, number])
    if not coder.states_plan:
        return bytes([number])
    return bytes([number | plan.temporal << 2 | plan.tighten << 3 | plan.brief << 7])


def unpack(data: bytes) -> tuple[Plan, int]:
    """Inverse of `pack` for data that begin with a plan.

    Returns
    -------
    plan : Plan
        The plan.
    size : int
        How many bytes it takes.

    Raises
    ------
    CorruptError
        For bytes that `pack` cannot have made, such as those of a later version.
    """
    if not data:
        raise CorruptError("residual plan is malformed")
    number, rest, size = data[0] & 3, data[0] >> 2, 1
    if number == _LATER:
        number, size = int.from_bytes(data[1:2]), 2  # a LEB128 number, of which all below 128 are one byte
        if rest or number < _LATER:
            raise CorruptError("residual plan is malformed")
        if number >= len(CODERS):
            raise CorruptError("the chunk has a residual coder that this vcinr does not know: upgrade it")
    coder, brief = CODERS[number], rest >> 5 == 1
    if coder.states_plan and (coder.predicts or not brief):
        return Plan(coder.name, bool(rest & 1), rest >> 1 & 15, brief), size
    if rest:
        raise CorruptError("residual plan is malformed")
    return CODERS[number].first, size


def encode(
    values: np.ndarray, step: float, plan: Plan, valid: np.ndarray | None = None, positions: Positions | None = None
) -> tuple[bytes, np.ndarray]:
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
    positions : Positions, optional
        Where the points of a plane lie: as many as H W, or as W, and then H counts levels. Only coders that need them
        look at them, and cannot do without.

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
    coder = coder_of(plan)
    if not coder.needs_positions:
        return coder.encode(values, step, plan, valid)
    if positions is None:
        raise ValueError(f"the residual coder {coder.name!r} needs the positions of the points")
    return coder.encode(values, step, plan, valid, positions)


def decode(
    data: bytes, shape: tuple[int, int, int, int], step: float, plan: Plan, valid: np.ndarray | None = None,
    positions: Positions | None = None,
) -> np.ndarray:  # fmt: skip
    """Decode a bitstream.

    Parameters
    ----------
    data : bytes
        From `encode`.
    shape : tuple of int
        (T, C, H, W) of the values.
    step, plan, valid, positions
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
    coder = coder_of(plan)
    if not coder.needs_positions:
        return coder.decode(data, shape, step, plan, valid)
    if positions is None:
        raise CorruptError("a chunk needs the positions of its points, and its array names none")
    return coder.decode(data, shape, step, plan, valid, positions)
