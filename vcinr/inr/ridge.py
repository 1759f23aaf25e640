"""The closed-form inner loop of a linear head: ridge regression of signals on the neural basis, in NumPy or torch."""

from __future__ import annotations

import hashlib

import numpy as np

from vcinr.inr.spec import Array, namespace

RIDGE = 1e-5
"""Weight of the ridge, as a fraction of the mean diagonal of the normal equations."""


def ridge(base: Array, psi: Array, y: Array, weight: Array | None, start: Array) -> Array:
    """Fit the latents of a linear head to signals, exactly; differentiable where the arrays are torch tensors.

    Parameters
    ----------
    base, psi : array
        The output where all latents are zero ``[Q]``, and the functions that they multiply ``[Q, d]``, at the Q values
        of a signal.
    y : array
        Signals ``[B, Q]``.
    weight : array or None
        Weights w of the values ``[B, Q]``, which average to 1 over each signal; None stands for 1 everywhere.
    start : array
        Latents ``[B, d]`` that the ridge pulls towards.

    Returns
    -------
    array
        phi ``[B, d]``, which minimises mean(w (y - base - psi phi)^2) + ridge |phi - start|^2.

    Notes
    -----
    This is ridge regression (Hoerl and Kennard 1970, equation 2.1) about `start`. The normal matrix depends on the
    weights but not on the values, so signals with equal weights, such as maps with one land mask, share one solve.
    """
    if weight is None:
        return _solved(base, psi, y, None, start)
    groups = same_rows(weight)
    parts = [_solved(base, psi, y[rows], weight[rows[0]], start[rows]) for rows in groups]
    return namespace(y).concatenate(parts)[np.argsort(np.concatenate(groups))]


def same_rows(weight: Array) -> list[np.ndarray]:
    """Group equal rows of an array ``[B, Q]``.

    Returns
    -------
    list of numpy.ndarray
        Sorted indices of equal rows, one array for each distinct row, in order of first appearance.
    """
    rows = weight if isinstance(weight, np.ndarray) else weight.detach().cpu().numpy()
    groups: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(hashlib.blake2b(row.tobytes()).digest(), []).append(i)
    return [np.array(indices) for indices in groups.values()]


def _solved(base: Array, psi: Array, y: Array, weight: Array | None, start: Array) -> Array:
    """`ridge` for signals that all have the same weights ``[Q]``, or none."""
    xp = namespace(y)
    error = y - base - start @ psi.T
    d = psi.shape[-1]
    unit = xp.eye(d, dtype=psi.dtype) if xp is np else xp.eye(d, dtype=psi.dtype, device=psi.device)
    weighted = psi if weight is None else weight[:, None] * psi
    normal = psi.T @ weighted / len(psi)
    normal = normal + (RIDGE * xp.diagonal(normal).sum() / d + 1e-12) * unit  # 1e-12: solvable even where psi is 0
    return start + xp.linalg.solve(normal, (error @ weighted / len(psi)).T).T


def projection(base: np.ndarray, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Express `ridge` without weights by matrix products: phi = y @ onto + start @ pull - shift.

    Parameters
    ----------
    base, psi : numpy.ndarray
        As in `ridge`, float64.

    Returns
    -------
    onto, pull, shift : numpy.ndarray
        float32 ``[Q, d]``, float64 ``[d, d]`` and float64 ``[d]``.
    """
    unit = np.eye(psi.shape[1])
    normal = psi.T @ psi / len(psi)
    onto = np.linalg.solve(normal + (RIDGE * np.trace(normal) / len(unit) + 1e-12) * unit, psi.T / len(psi)).T
    return onto.astype(np.float32), unit - psi.T @ onto, base @ onto
