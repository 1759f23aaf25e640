"""A linear head: latents are coefficients of basis functions, as with EOFs, but the basis is a neural network."""

from __future__ import annotations

from vcinr.inr.conditioning.base import Conditioning
from vcinr.inr.spec import Array, InrSpec


class LinearHead(Conditioning):
    """f(x; phi) = psi_0(x) + sum_k phi_k psi_k(x), where the psi are the outputs of a SIREN that is not modulated.

    The inner loop is a ridge solve (:mod:`vcinr.inr.ridge`), and decoding is a matrix product.
    """

    title = "neural basis"
    linear = True

    def outputs(self, spec: InrSpec) -> int:
        """Number of functions: psi_0 and the d functions of the latents, for each feature."""
        return spec.d_out * (spec.latent + 1)

    def output(self, spec: InrSpec, modulation: Array, h: Array, weight: Array, bias: Array) -> Array:
        """psi_0 + psi phi."""
        return combine(h @ weight.T + bias, spec.d_out, modulation)


def combine(rows: Array, d_out: int, phi: Array) -> Array:
    """Add up psi_0 + psi phi.

    Parameters
    ----------
    rows : array
        Functions ``[B or 1, P, d_out * (d + 1)]``: of each feature psi_0, then the d functions psi.
    d_out : int
        Number of features.
    phi : array
        Latents ``[B, d]``.

    Returns
    -------
    array
        Features ``[B, P, d_out]``.
    """
    rows = rows.reshape(*rows.shape[:2], d_out, phi.shape[-1] + 1)
    return rows[..., 0] + (rows[..., 1:] * phi[:, None, None]).sum(-1)
