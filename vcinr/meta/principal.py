"""A linear head in its principal axes: an orthonormal basis whose latents are uncorrelated over the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    spread, axes = _orthonormal(spec, params, x)
    means = np.stack(
        [phi[variable == v].mean(0) if (variable == v).any() else p for v, p in enumerate(params["phi_0"])]
    )
    coordinates = (phi.astype(np.float64) - means[variable]) @ axes.T * spread
    # All d directions are needed. They are there without full matrices unless there are fewer signals than latents.
    rotation = np.linalg.svd(coordinates, full_matrices=len(coordinates) < spec.latent)[2]
    return _turned(spec, params, means, spread, axes, rotation)


@dataclass(frozen=True)
class Moments:
    """Sums over latents about each variable's phi_0, all float64. Those of parts of the signals are added up.

    Attributes
    ----------
    count : numpy.ndarray
        ``[V]``: number of signals of each variable.
    first : numpy.ndarray
        ``[V, d]``: sums of latents.
    second : numpy.ndarray
        ``[d, d]``: sums of products of two latents, over all variables.
    """

    count: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def none(cls, variables: int, latents: int) -> Moments:
        """Those of no signal."""
        return cls(np.zeros(variables), np.zeros((variables, latents)), np.zeros((latents, latents)))

    def add(self, moved: np.ndarray, variable: np.ndarray) -> None:
        """Add signals, given by their latents less phi_0 ``[N, d]`` and the rows of phi_0 ``[N]``."""
        moved = moved.astype(np.float64)
        np.add.at(self.count, variable, 1.0)
        np.add.at(self.first, variable, moved)
        self.second[...] += moved.T @ moved


def principal_axes_by_moments(
    spec: InrSpec, params: Mapping[str, np.ndarray], x: np.ndarray, moments: Moments
) -> dict[str, np.ndarray]:
    """`principal_axes` from sums over the latents instead of the latents themselves.

    The directions are eigenvectors of the covariance: the same but for rounding, and for the signs of latents.
    """
    spread, axes = _orthonormal(spec, params, x)
    shift = moments.first / np.maximum(moments.count, 1.0)[:, None]
    covariance = moments.second - moments.first.T @ shift
    into = spread[:, None] * axes
    rotation = np.linalg.eigh(into @ covariance @ into.T)[1].T[::-1]
    return _turned(spec, params, params["phi_0"] + shift, spread, axes, rotation)


def _orthonormal(
    spec: InrSpec, params: Mapping[str, np.ndarray], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Lengths ``[d]`` and directions ``[d, d]``, as rows, of an orthonormal basis of what the latents multiply."""
    psi = basis(spec, {k: v.astype(np.float64) for k, v in params.items()}, x.astype(np.float64))[1]
    flat = psi.reshape(-1, spec.latent)
    return np.linalg.svd(flat / np.sqrt(len(psi)), full_matrices=False)[1:]


def _turned(
    spec: InrSpec, params: Mapping[str, np.ndarray], means: np.ndarray, spread: np.ndarray, axes: np.ndarray,
    rotation: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The parameters for latents that are rotated within the orthonormal basis, and whose phi_0 is `means`."""
    spanned = spread > _RANK * spread[0]
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
