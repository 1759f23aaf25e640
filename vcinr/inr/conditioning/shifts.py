"""COIN++ and Functa: shifts of every sine layer, a map of the latent."""

from __future__ import annotations

import numpy as np

from vcinr.inr.conditioning.base import Conditioning, mapping, mapping_parameters, mapping_shapes
from vcinr.inr.spec import Array, InrSpec, Params


class Shifts(Conditioning):
    """sin(omega_0 (W h + b + s)), the shifts s of all sine layers a linear map of phi.

    Dupont et al. 2022a (COIN++), section 3.2; Dupont et al. 2022b (Functa), section 3.1: the same with the
    inner loop `meta-sgd` and phi_0 at zero. With a mapping_width the map is a residual network.
    """

    title = "shift modulations"

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The map of phi to the shifts of every sine layer."""
        params = mapping_parameters(rng, spec, "shifts", size(spec))
        params["shifts.out.weight"] = params["shifts.out.weight"] / spec.omega_0  # W h + b is of that scale too
        return params

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Shapes of `initialise`'s parameters."""
        return mapping_shapes(spec, "shifts", size(spec))

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> Array:
        """Shifts ``[L - 1, B, 1, m]``."""
        return by_layer(spec, mapping(spec, params, "shifts", spec.mapping_blocks, phi))

    def layer(self, modulation: Array, index: int, h: Array, weight: Array, bias: Array) -> Array:
        """W h + b + s."""
        return super().layer(modulation, index, h, weight, bias) + modulation[index]


def size(spec: InrSpec) -> int:
    """Shifts of all sine layers."""
    return (spec.depth - 1) * spec.width


def by_layer(spec: InrSpec, shifts: Array) -> Array:
    """``[B, (L - 1) * m]`` to ``[L - 1, B, 1, m]``."""
    return shifts.reshape(-1, spec.depth - 1, 1, spec.width).swapaxes(0, 1)
