"""Residual coders: what a prior leaves, ``[T, C, H, W]`` (times, levels, a plane), to bytes and back.

Each coder is a file of this folder that keeps the contract `ResidualCoder`; `CODERS` lists them. Neither the search for
the smallest chunk nor the decoder knows a coder by name.
"""

from __future__ import annotations

import numpy as np

from vcinr.coding.residual import adaptive, interpolated, plain
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

CODERS: tuple[ResidualCoder, ...] = (plain.CODER, adaptive.CODER, interpolated.CODER)
"""In the order of their numbers in the plan byte (docs/format.md)."""
_BY_NAME = {coder.name: coder for coder in CODERS}


def coder_of(plan: Plan) -> ResidualCoder:
    """The coder that a plan names."""
    return _BY_NAME[plan.coder]


def pack(plan: Plan) -> bytes:
    """A plan as one byte: bits 0 and 1 the coder; where it states them, bit 2 `temporal` and bits 3 to 6 `tighten`."""
    coder = coder_of(plan)
    number = CODERS.index(coder)
    return bytes([number | plan.temporal << 2 | plan.tighten << 3 if coder.states_plan else number])


def unpack(data: bytes) -> Plan:
    """Inverse of `pack`; raises CorruptError for bytes that it cannot have made, such as those of a later version."""
    if len(data) != 1 or data[0] >= 128:
        raise CorruptError("residual plan is malformed")
    number, rest = data[0] & 3, data[0] >> 2
    if number >= len(CODERS):
        raise CorruptError("the chunk has a residual coder that this vcinr does not know: upgrade it")
    if CODERS[number].states_plan:
        return Plan(CODERS[number].name, bool(rest & 1), rest >> 1)
    if rest:
        raise CorruptError("residual plan is malformed")
    return CODERS[number].first


def encode(values: np.ndarray, step: float, plan: Plan, valid: np.ndarray | None = None) -> tuple[bytes, np.ndarray]:
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
    return coder_of(plan).encode(values, step, plan, valid)


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
    return coder_of(plan).decode(data, shape, step, plan, valid)
