"""Latents that enter linearly in the last layer: a neural EOF basis."""

from __future__ import annotations

from vcinr.inr.conditioning.base import Conditioning
from vcinr.inr.spec import Array, InrSpec


class LinearHead(Conditioning):
    """f(x; phi) = psi_0(x) + sum_k phi_k psi_k(x), psi the outputs of an unmodulated SIREN.

    The inner loop is a ridge solve (:mod:`vcinr.inr.ridge`), encoding a projection, decoding a matrix product.
    """

    title = "neural basis"
    linear = True

    def outputs(self, spec: InrSpec) -> int:
        """psi_0 and the d others, for each feature."""
        return spec.d_out * (spec.latent + 1)

    def output(self, spec: InrSpec, modulation: Array, h: Array, weight: Array, bias: Array) -> Array:
        """psi_0 + psi phi."""
        return combine(h @ weight.T + bias, spec.d_out, modulation)


def combine(rows: Array, d_out: int, phi: Array) -> Array:
    """psi_0 + psi phi ``[B, P, d_out]`` of rows ``[B or 1, P, d_out * (d + 1)]`` and phi ``[B, d]``."""
    rows = rows.reshape(*rows.shape[:2], d_out, phi.shape[-1] + 1)
    return rows[..., 0] + (rows[..., 1:] * phi[:, None, None]).sum(-1)
