"""The adaptive residual coder: the smallest streams, by prediction whose weights follow the data.

A plane is refined from a single point by halving its lattice: first the centres of the cells, then the midpoints of
their edges. A point is predicted as the mean of its four nearest known points, plus a linear combination of how other
known points differ from such means, in this plane and in others (of the time before, the mean over all earlier times,
the level below). The weights solve a least-squares problem over the points coded so far, weighted by the local scale,
as in lossless image coding (Wu, Barthel & Zhang 1998); here, on *reconstructed* values at any step. What is far back
counts ever less; how soon is a choice of the plan.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from vcinr.coding import kernels
from vcinr.coding.residual import contexts
from vcinr.coding.residual.base import Plan, ResidualCoder, lattice_steps

_LEVELS = 64  # more than a plane of any size has


def _convert(
    coder: kernels.Coder, data: np.ndarray, values: np.ndarray, recon: np.ndarray, mask: np.ndarray, step: float,
    plan: Plan, writing: bool,
) -> tuple[np.ndarray, bool]:  # fmt: skip
    sizes = lattice_steps(step, plan.tighten, _LEVELS)
    return kernels.adaptive(coder, data, values, recon, mask, sizes, plan.temporal, plan.brief, writing)


CODER = ResidualCoder(
    "adaptive",
    partial(contexts.encode, _convert, kernels.CONTEXTS),
    partial(contexts.decode, _convert, kernels.CONTEXTS),
    Plan("adaptive"),
    {"temporal": (False,), "tighten": (1, 2, 4), "brief": (True,)},
)
