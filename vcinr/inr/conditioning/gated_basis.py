"""Gates and a linear head together: the basis itself adapts to the signal."""

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
    """f(x; phi) = psi_0(x; g) + sum_k c_k psi_k(x; g), phi = (g, c): g gates the hidden weights, c is the head's.

    g is found by gradient steps and c by a ridge solve inside each of them (the inner loop `projected`).
    """

    title = "gated basis"
    weight_gain = LowRankGates.weight_gain

    def training(self, spec: InrSpec) -> InrSpec:
        """As asked for; raises ConfigError unless both parts of phi have numbers."""
        if not 0 < spec.gating < spec.latent:
            raise ConfigError(f"inr.gating: {spec.gating} of {spec.latent} latents; leave some to either part")
        return spec

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Those of the gates."""
        return _GATES.initialise(_gating(spec), rng)

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Those of the gates."""
        return _GATES.shapes(_gating(spec))

    def check(self, spec: InrSpec, params: Params) -> None:
        """Either part of phi has numbers."""
        if not 0 < spec.gating < spec.latent:
            raise ValueError(f"gating is {spec.gating} of {spec.latent} latents")

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> tuple[Array, Array]:
        """Gates of g, and c."""
        return _GATES.modulate(_gating(spec), params, phi[:, : spec.gating]), phi[:, spec.gating :]

    def layer(self, modulation: tuple[Array, Array], index: int, h: Array, weight: Array, bias: Array) -> Array:
        """That of the gates."""
        return _GATES.layer(modulation[0], index, h, weight, bias)

    def outputs(self, spec: InrSpec) -> int:
        """psi_0 and one for each number of c, for each feature."""
        return spec.d_out * (spec.latent - spec.gating + 1)

    def output(self, spec: InrSpec, modulation: tuple[Array, Array], h: Array, weight: Array, bias: Array) -> Array:
        """psi_0 + psi c."""
        return combine(h @ weight.T + bias, spec.d_out, modulation[1])


def _gating(spec: InrSpec) -> InrSpec:
    return replace(spec, latent=spec.gating)
