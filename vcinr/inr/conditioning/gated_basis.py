"""Gates together with a linear head: the basis itself adapts to each signal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vcinr.errors import ConfigError
from vcinr.inr.conditioning.base import Conditioning
from vcinr.inr.conditioning.gates import LowRankGates
from vcinr.inr.conditioning.linear import combine
from vcinr.inr.spec import Array, InrSpec, Params

_GATES = LowRankGates()


class GatedBasis(Conditioning):
    """f(x; phi) = psi_0(x; g) + sum_k c_k psi_k(x; g) with phi = (g, c).

    The first `gating` latents g gate the hidden weights, and the others, c, are the coefficients of the head. The inner
    loop `projected` finds g by gradient steps, and c by a ridge solve in each of them.
    """

    title = "gated basis"
    weight_gain = LowRankGates.weight_gain

    def training(self, spec: InrSpec) -> InrSpec:
        """The shape as asked for; raises ConfigError where one of the two parts of phi would be empty."""
        if not 0 < spec.gating < spec.latent:
            raise ConfigError(f"inr.gating: {spec.gating} of {spec.latent} latents; leave some to either part")
        return spec

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial parameters of the gates."""
        return _GATES.initialise(_gating(spec), rng)

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the gates' parameters."""
        return _GATES.shapes(_gating(spec))

    def check(self, spec: InrSpec, params: Params) -> None:
        """Raise ValueError where one of the two parts of phi is empty."""
        if not 0 < spec.gating < spec.latent:
            raise ValueError(f"gating is {spec.gating} of {spec.latent} latents")

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> tuple[Array, Array]:
        """The gates that g gives, and c."""
        return _GATES.modulate(_gating(spec), params, phi[:, : spec.gating]), phi[:, spec.gating :]

    def layer(self, modulation: tuple[Array, Array], index: int, h: Array, weight: Array, bias: Array) -> Array:
        """The gated layer."""
        return _GATES.layer(modulation[0], index, h, weight, bias)

    def outputs(self, spec: InrSpec) -> int:
        """Number of functions: psi_0 and one for each number of c, for each feature."""
        return spec.d_out * (spec.latent - spec.gating + 1)

    def output(self, spec: InrSpec, modulation: tuple[Array, Array], h: Array, weight: Array, bias: Array) -> Array:
        """psi_0 + psi c."""
        return combine(h @ weight.T + bias, spec.d_out, modulation[1])


def _gating(spec: InrSpec) -> InrSpec:
    """The shape of a network whose latents are g alone."""
    return replace(spec, latent=spec.gating)
