"""The plain residual coder: nothing is predicted, rounded values are coded in raster order.

A row of zeros takes one decision. This suits what a model has predicted already, and sparse fields.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from vcinr.coding import kernels
from vcinr.coding.residual import contexts
from vcinr.coding.residual.base import Plan, ResidualCoder


def _convert(
    coder: kernels.Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, mask: np.ndarray, step: float,
    plan: Plan, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    return kernels.plain(coder, data, values, recon, mask, step, plan.temporal, writing)


CODER = ResidualCoder(
    "plain",
    partial(contexts.encode, _convert, kernels.PLAIN_CONTEXTS),
    partial(contexts.decode, _convert, kernels.PLAIN_CONTEXTS),
    Plan("plain"),
    {"temporal": (False,)},
    predicts=False,
)
