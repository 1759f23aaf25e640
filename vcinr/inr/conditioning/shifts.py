"""Shifts of all sine layers, to which the latent is mapped: the conditioning of COIN++ and Functa."""

from __future__ import annotations

import numpy as np

from vcinr.inr.conditioning.base import Conditioning, mapping, mapping_parameters, mapping_shapes
from vcinr.inr.spec import Array, InrSpec, Params


class Shifts(Conditioning):
    """sin(omega_0 (W h + b + s)), where a linear map of phi gives the shifts s of all sine layers.

    Dupont et al. 2022a (COIN++), section 3.2; Dupont et al. 2022b (Functa), section 3.1, which is the same with the
    inner loop `meta-sgd`. Both start from phi_0 = 0. With a `mapping_width` above 0 the map is a residual network.
    """

    title = "shift modulations"

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial parameters of the map from phi to the shifts."""
        params = mapping_parameters(rng, spec, "shifts", size(spec))
        params["shifts.out.weight"] = params["shifts.out.weight"] / spec.omega_0  # the scale of W h + b
        return params

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the map's parameters."""
        return mapping_shapes(spec, "shifts", size(spec))

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> Array:
        """The shifts of all sine layers, ``[L - 1, B, 1, m]``."""
        return by_layer(spec, mapping(spec, params, "shifts", spec.mapping_blocks, phi))

    def layer(self, modulation: Array, index: int, h: Array, weight: Array, bias: Array) -> Array:
        """W h + b + s."""
        return super().layer(modulation, index, h, weight, bias) + modulation[index]


def size(spec: InrSpec) -> int:
    """Number of shifts of all sine layers together."""
    return (spec.depth - 1) * spec.width


def by_layer(spec: InrSpec, shifts: Array) -> Array:
    """Arrange shifts ``[B, (L - 1) * m]`` by layer: ``[L - 1, B, 1, m]``."""
    return shifts.reshape(-1, spec.depth - 1, 1, spec.width).swapaxes(0, 1)
