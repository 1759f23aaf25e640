"""What was decoded, put together in one pass: the prior in the data's units, plus a constant, plus the residual.

Compiled, because a pass over the values for each operation takes longer than decoding what a model predicts well.
"""

from __future__ import annotations

import numpy as np

from vcinr.compiled import outer


def restore(
    prior: np.ndarray | None, scaling: tuple[float, float], constant: float, left: np.ndarray | None,
    limits: tuple[float, float], out: np.ndarray,
) -> None:  # fmt: skip
    """Fill `out`, float32 or float64, with prior * scale + offset + constant + left, clipped to `limits`.

    prior: float32, or None for 0; scaling: (offset, scale); left: float64, or None; all as large as `out`, which is
    contiguous. The sums are taken in float64, in this order.
    """
    offset, scale = scaling
    none = np.empty(0, np.float32), np.empty(0)
    _restore(
        none[0] if prior is None else prior.reshape(-1), scale, offset, constant,
        none[1] if left is None else left.reshape(-1), limits[0], limits[1], out.reshape(-1),
    )  # fmt: skip


@outer
def _restore(
    prior: np.ndarray, scale: float, offset: float, constant: float, left: np.ndarray, low: float, high: float,
    out: np.ndarray,
) -> None:  # fmt: skip
    predicted, corrected = prior.size > 0, left.size > 0
    for i in range(out.size):
        x = 0.0
        if predicted:
            x = np.float64(prior[i]) * scale + offset
        if constant != 0.0:
            x += constant
        if corrected:
            x += left[i]
        x = low if x < low else x
        out[i] = high if x > high else x
