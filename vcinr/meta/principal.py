"""A linear head in its principal axes: an orthonormal basis whose latents are uncorrelated over the training data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vcinr.inr.siren import basis
from vcinr.inr.spec import InrSpec

_RANK = 1e-6


def principal_axes(
    spec: InrSpec, params: Mapping[str, np.ndarray], x: np.ndarray, phi: np.ndarray, variable: np.ndarray
) -> dict[str, np.ndarray]:
    """Parameters of the same network for latents phi' = T phi, without any change of what it represents.

    x ``[P, d_in]``: points on which the new basis is orthonormal, so that an error of the latents is, squared and
    summed, the mean squared error of the signal; phi ``[N, d]`` and variable ``[N]``: training latents and rows of
    phi_0. The new latents are in order of their variance, and each variable's phi_0 is its mean.
    """
    psi = basis(spec, {k: v.astype(np.float64) for k, v in params.items()}, x.astype(np.float64))[1]
    flat = psi.reshape(-1, spec.latent)
    _, size, axes = np.linalg.svd(flat / np.sqrt(len(psi)), full_matrices=False)
    known = size > _RANK * size[0]
    means = np.stack(
        [phi[variable == v].mean(0) if (variable == v).any() else p for v, p in enumerate(params["phi_0"])]
    )
    coordinates = (phi.astype(np.float64) - means[variable]) @ axes.T * size
    rotation = np.linalg.svd(coordinates, full_matrices=True)[2]
    forward = rotation @ (size[:, None] * axes)
    back = (axes.T * np.where(known, 1.0 / np.where(known, size, 1.0), 0.0)) @ rotation.T
    result = dict(params)
    last = spec.depth - 1
    for name in (f"siren.{last}.weight", f"siren.{last}.bias"):
        rows = params[name].astype(np.float64).reshape(spec.d_out, spec.latent + 1, -1)
        mixed = np.concatenate([rows[:, :1], np.einsum("jk,cjm->ckm", back, rows[:, 1:])], axis=1)
        result[name] = mixed.reshape(params[name].shape).astype(np.float32)
    result["phi_0"] = (means @ forward.T).astype(np.float32)
    return result
