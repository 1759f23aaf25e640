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
    d = psi.shape[-1]
    unit = xp.eye(d, dtype=psi.dtype) if xp is np else xp.eye(d, dtype=psi.dtype, device=psi.device)
    if weight is None:  # one system for all
        normal = psi.T @ psi / len(psi)
        normal = normal + (RIDGE * xp.diagonal(normal).sum() / d + 1e-12) * unit
        return start + xp.linalg.solve(normal, (left @ psi / len(psi)).T).T
    normal = xp.stack([psi.T @ (w[:, None] * psi) for w in weight]) / len(psi)
    trace = xp.diagonal(normal, 0, -2, -1).sum(-1)
    normal = normal + (RIDGE * trace / d + 1e-12)[:, None, None] * unit
    return start + xp.linalg.solve(normal, ((left * weight) @ psi / len(psi))[..., None])[..., 0]


def linear_latents(
    model: Model, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None, variable: np.ndarray
) -> np.ndarray:  # fmt: skip
    """`meta.extract.find_latents` for a model with a linear head, without torch; arguments as there."""
    start = model.params["phi_0"][variable].astype(np.float64)
    if weight is None:
        chosen, onto, kept, shift = _projection(model, x)
        return y[:, chosen].reshape(len(y), -1) @ onto + (start @ kept - shift).astype(np.float32)
    chosen, base, psi = _part(model, x)
    spread = np.repeat(weight[:, chosen], model.spec.d_out, axis=1).astype(np.float64)
    flat = y[:, chosen].reshape(len(y), -1).astype(np.float64)
    return ridge(base, psi, flat, spread, start).astype(np.float32)


def _part(model: Model, x: np.ndarray) -> tuple[np.ndarray | slice, np.ndarray, np.ndarray]:
    """Points that an encoder looks at, and base ``[Q]`` and psi ``[Q, d]`` there, float64."""
    base, psi = (a.astype(np.float64) for a in model.basis(x))
    if len(x) <= model.encode_points:
        return slice(None), base, psi.T
    chosen = fixed_points(len(x), model.encode_points)
    base = base.reshape(len(x), -1)[chosen].ravel()
    return chosen, base, psi.reshape(len(psi), len(x), -1)[:, chosen].reshape(len(psi), -1).T


def _projection(model: Model, x: np.ndarray) -> tuple[np.ndarray | slice, np.ndarray, np.ndarray, np.ndarray]:
    """`ridge` where nothing is masked, as y @ onto + start @ kept - shift, that of the last grid being kept.

    Points looked at; onto ``[Q, d]`` float32, kept ``[d, d]``, shift ``[d]``.
    """

    def made() -> tuple[np.ndarray | slice, np.ndarray, np.ndarray, np.ndarray]:
        chosen, base, psi = _part(model, x)
        unit = np.eye(psi.shape[1])
        normal = psi.T @ psi / len(psi)
        onto = np.linalg.solve(normal + (RIDGE * np.trace(normal) / len(unit) + 1e-12) * unit, psi.T / len(psi)).T
        return chosen, onto.astype(np.float32), unit - psi.T @ onto, base @ onto

    return model.once("projection", (x,), made)
