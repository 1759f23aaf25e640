"""What the adaptive and the raster coder share: codes under contexts, by the kernels of `vcinr.coding.kernels`.

The code of a point, an integer multiple of a step, is coded by `kernels.integer` under contexts of the codes around it.
Prediction and contexts use decoded integers and float64 arithmetic alone (add, multiply, divide, square root, in a
fixed order, never fused), which IEEE 754 makes the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vcinr.coding import kernels
from vcinr.coding.residual.base import Plan

Convert = Callable[
    [kernels.Coder, np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, Plan, bool], tuple[np.ndarray, bool]
]
"""Writes values, or reads them: (coder, buffer, values, reconstruction, mask, step, plan, writing) to the buffer, and
whether all values fit their steps."""


def encode(
    convert: Convert, contexts: int, values: np.ndarray, step: float, plan: Plan, valid: np.ndarray | None
) -> tuple[bytes, np.ndarray]:
    """Code values as of `vcinr.coding.residual.encode` with a kernel that needs so many `contexts`."""
    coder, recon, buffer = kernels.coder(contexts, kernels.CONTEXTS), np.zeros(values.shape), np.empty(0, np.uint8)
    if recon.size == 0:
        return kernels.stream(coder, kernels.reserve(coder.state, buffer, 0)), recon
    values = np.require(values, np.float64, ["C", "W"])
    data, fits = convert(coder, buffer, values, recon, mask_of(valid), step, plan, True)
    if not fits:
        raise OverflowError("residual too large for its step")
    return kernels.stream(coder, data), recon


def decode(
    convert: Convert, contexts: int, data: bytes, shape: tuple[int, int, int, int], step: float, plan: Plan,
    valid: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    """Inverse of `encode`; raises CorruptError for bytes that no encoder makes."""
    coder, recon = kernels.coder(contexts, kernels.CONTEXTS), np.zeros(shape)
    stream = kernels.open_stream(coder, data)
    if recon.size:
        convert(coder, stream, recon, recon, mask_of(valid), step, plan, False)
    kernels.check_end(coder, stream)
    return recon


def mask_of(valid: np.ndarray | None) -> np.ndarray:
    """Where values count, for a kernel: a single True stands for everywhere."""
    return np.ones((1, 1, 1, 1), bool) if valid is None else np.require(valid, bool, ["C", "W"])
