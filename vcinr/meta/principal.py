"""A linear head in its principal axes: an orthonormal basis whose latents are uncorrelated over the training data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vcinr.inr.siren import basis
from vcinr.inr.spec import InrSpec

_RANK = 1e-6  # singular values below this part of the largest count as zero


def principal_axes(
    spec: InrSpec, params: Mapping[str, np.ndarray], x: np.ndarray, phi: np.ndarray, variable: np.ndarray
) -> dict[str, np.ndarray]:
    """Change the basis of a linear head, without changing what the network represents.

    The new latents are phi' = T phi, sorted by their variance, and each variable's phi_0 is the mean of its latents.
    Because the new basis is orthonormal, the sum of the squared errors of a signal's latents is the mean squared error
    of the signal.

    Parameters
    ----------
    spec : InrSpec
        Shape of the network.
    params : mapping of str to numpy.ndarray
        Its parameters.
    x : numpy.ndarray
        ``[P, d_in]``: points on which the new basis is orthonormal.
    phi : numpy.ndarray
        ``[N, d]``: training latents.
    variable : numpy.ndarray
        ``[N]``: the row of phi_0 of each of them.

    Returns
    -------
    dict
        The parameters of the same network for the new latents.
    """
    psi = basis(spec, {k: v.astype(np.float64) for k, v in params.items()}, x.astype(np.float64))[1]
    flat = psi.reshape(-1, spec.latent)
    _, spread, axes = np.linalg.svd(flat / np.sqrt(len(psi)), full_matrices=False)
    spanned = spread > _RANK * spread[0]
    means = np.stack(
        [phi[variable == v].mean(0) if (variable == v).any() else p for v, p in enumerate(params["phi_0"])]
    )
    coordinates = (phi.astype(np.float64) - means[variable]) @ axes.T * spread
    rotation = np.linalg.svd(coordinates, full_matrices=True)[2]
    forward = rotation @ (spread[:, None] * axes)
    backward = (axes.T * np.where(spanned, 1.0 / np.where(spanned, spread, 1.0), 0.0)) @ rotation.T
    result = dict(params)
    last = spec.depth - 1
    for name in (f"siren.{last}.weight", f"siren.{last}.bias"):
        weights = params[name].astype(np.float64).reshape(spec.d_out, spec.latent + 1, -1)
        mixed = np.concatenate([weights[:, :1], np.einsum("jk,cjm->ckm", backward, weights[:, 1:])], axis=1)
        result[name] = mixed.reshape(params[name].shape).astype(np.float32)
    result["phi_0"] = (means @ forward.T).astype(np.float32)
    return result
