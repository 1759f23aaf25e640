"""Closed-form inner loop of a linear head: ridge regression of signals on the neural basis, in NumPy or torch."""

from __future__ import annotations

import numpy as np

from vcinr.inr.model import Model
from vcinr.inr.spec import Array, namespace
from vcinr.signals import fixed_points

RIDGE = 1e-5
"""Weight of the ridge, as a fraction of the mean diagonal of the normal equations."""


def ridge(base: Array, psi: Array, y: Array, weight: Array | None, start: Array) -> Array:
    """phi ``[B, d]`` that minimises mean(w (y - base - psi phi)^2) + ridge |phi - start|^2; exact, differentiable.

    base ``[Q]``, psi ``[Q, d]``, y ``[B, Q]``, weight ``[B, Q]`` or None, start ``[B, d]``; Q values of a signal.
    """
    xp = namespace(y)
    left = y - base - start @ psi.T
    if weight is None:
        normal = (psi.T @ psi / len(psi))[None]
    else:
        normal = xp.stack([psi.T @ (w[:, None] * psi) for w in weight]) / len(psi)
        left = left * weight
    d = psi.shape[-1]
    trace = xp.diagonal(normal, 0, -2, -1).sum(-1)
    unit = xp.eye(d, dtype=psi.dtype) if xp is np else xp.eye(d, dtype=psi.dtype, device=psi.device)
    normal = normal + (RIDGE * trace / d + 1e-12)[:, None, None] * unit
    return start + xp.linalg.solve(normal, (left @ psi / len(psi))[..., None])[..., 0]


def linear_latents(
    model: Model, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None, variable: np.ndarray
) -> np.ndarray:  # fmt: skip
    """`meta.extract.find_latents` for a model with a linear head, without torch; arguments as there."""
    base, psi = model.basis(x)
    if len(x) > model.encode_points:
        chosen = fixed_points(len(x), model.encode_points)
        y = y[:, chosen]
        weight = None if weight is None else weight[:, chosen]
        base = base.reshape(len(x), -1)[chosen].ravel()
        psi = psi.reshape(len(psi), len(x), -1)[:, chosen].reshape(len(psi), -1)
    spread = None if weight is None else np.repeat(weight, model.spec.d_out, axis=1).astype(np.float64)
    start = model.params["phi_0"][variable].astype(np.float64)
    flat = y.reshape(len(y), -1).astype(np.float64)
    return ridge(base.astype(np.float64), psi.T.astype(np.float64), flat, spread, start).astype(np.float32)
