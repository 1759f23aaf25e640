"""Low-rank soft gates on the hidden weights, the conditioning of VC-INR."""

from __future__ import annotations

import numpy as np

from vcinr.inr.conditioning.base import Conditioning, mapping, mapping_parameters, mapping_shapes
from vcinr.inr.spec import Array, InrSpec, Params, namespace


class LowRankGates(Conditioning):
    """sin(omega_0 ((G * W) h + b)), where G = sigmoid(U V^T) gates the hidden weights W element by element.

    Schwarz et al. 2023, section 3. A residual network that all signals share maps phi to the factors U and V,
    ``[m, rank]`` each, of all layers but the first and the last, which are not modulated.
    """

    title = "VC-INR"
    weight_gain = 2.0  # the mean gate is 1/2

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial parameters of the mapping from phi to U and V."""
        params = mapping_parameters(rng, spec, "gates", self._size(spec))
        # U V^T must not start at zero, where the gradients of both factors vanish. The bias gives it unit scale.
        params["gates.out.bias"] = rng.standard_normal(self._size(spec)) * spec.rank**-0.25
        return params

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the mapping's parameters."""
        return mapping_shapes(spec, "gates", self._size(spec))

    def _size(self, spec: InrSpec) -> int:
        """How many numbers U and V of all modulated layers have."""
        return (spec.depth - 2) * 2 * spec.width * spec.rank

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> Array:
        """The gates G of all modulated layers, ``[L - 2, B, m, m]``."""
        uv = mapping(spec, params, "gates", spec.mapping_blocks, phi)
        uv = uv.reshape(phi.shape[0], spec.depth - 2, 2, spec.width, spec.rank)
        uv = uv.swapaxes(0, 1)
        product = uv[:, :, 0] @ uv[:, :, 1].swapaxes(-1, -2)
        return 0.5 * (1.0 + namespace(product).tanh(0.5 * product))

    def layer(self, modulation: Array, index: int, h: Array, weight: Array, bias: Array) -> Array:
        """(G * W) h + b; in the first layer W h + b."""
        return super().layer(modulation, index, h, modulation[index - 1] * weight if index else weight, bias)
