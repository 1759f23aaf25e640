"""What the network asks of a conditioning."""

from __future__ import annotations

import numpy as np

from vcinr.inr.residual import residual_network, residual_parameters, residual_shapes
from vcinr.inr.spec import Array, InrSpec, Params


class Conditioning:
    """How a latent modulation phi enters the shared network; stateless. This one does not let it in at all.

    All of it works on NumPy arrays and torch tensors alike (see :mod:`vcinr.inr.spec`), but for `relax` and
    `finish`, which belong to training. Shapes: B signals, P points, m width, d latent size, L layers.
    """

    title: str
    """What tables call a network of this conditioning."""
    weight_gain = 1.0
    """Factor on the initial hidden weights that undoes the conditioning's mean attenuation."""
    linear = False
    """Whether the output is affine in phi on a basis that all signals share: the inner loop has a closed form."""

    def training(self, spec: InrSpec) -> InrSpec:
        """The shape to be trained, where `spec` is what was asked for; raises ConfigError where it cannot be."""
        return spec

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The conditioning's own parameters at the start of training."""
        return {}

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Name and shape of its parameters in a finished model, known without making them."""
        return {}

    def check(self, spec: InrSpec, params: Params) -> None:
        """Raise ValueError for parameters of a finished model that have the right shapes and yet make no sense."""

    def relax(self, spec: InrSpec, params: Params, rng: np.random.Generator | None) -> tuple[Params, Array | float]:
        """Parameters as one training step sees them, with noise from `rng` if any, and what is added to its loss."""
        return params, 0.0

    def finish(self, spec: InrSpec, params: dict[str, np.ndarray]) -> tuple[InrSpec, dict[str, np.ndarray]]:
        """Shape and parameters of the finished model."""
        return spec, params

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> Array:
        """phi ``[B, d]`` to whatever `layer` and `output` take."""
        return phi

    def layer(self, modulation: Array, index: int, h: Array, weight: Array, bias: Array) -> Array:
        """Pre-activation ``[B or 1, P, m]`` of sine layer `index`, 0 to L - 2, from ``h`` ``[B or 1, P, *]``."""
        return h @ weight.swapaxes(-1, -2) + bias

    def outputs(self, spec: InrSpec) -> int:
        """Rows of the last layer."""
        return spec.d_out

    def output(self, spec: InrSpec, modulation: Array, h: Array, weight: Array, bias: Array) -> Array:
        """Features ``[B, P, d_out]`` from the last hidden layer ``[B or 1, P, m]``."""
        return h @ weight.T + bias


def mapping(spec: InrSpec, params: Params, prefix: str, blocks: int, phi: Array) -> Array:
    """phi ``[B, d]`` to modulations: one linear map, or linear, residual blocks, linear."""
    if spec.mapping_width:
        phi = phi @ params[f"{prefix}.in.weight"].T + params[f"{prefix}.in.bias"]
        phi = residual_network(params, f"{prefix}.block", blocks, phi)
    return phi @ params[f"{prefix}.out.weight"].T + params[f"{prefix}.out.bias"]


def mapping_parameters(
    rng: np.random.Generator, spec: InrSpec, prefix: str, out: int
) -> dict[str, np.ndarray]:  # fmt: skip
    """Initial parameters of `mapping` to `out` numbers: unit gain, and a bias of zero."""
    n, params = spec.mapping_width, {}
    if n:
        params = {
            f"{prefix}.in.weight": rng.standard_normal((n, spec.latent)) / np.sqrt(spec.latent),
            f"{prefix}.in.bias": np.zeros(n),
            **residual_parameters(rng, f"{prefix}.block", spec.mapping_blocks, n, n),
        }
    fan_in = n or spec.latent
    params[f"{prefix}.out.weight"] = rng.standard_normal((out, fan_in)) / np.sqrt(fan_in)
    params[f"{prefix}.out.bias"] = np.zeros(out)
    return params


def mapping_shapes(spec: InrSpec, prefix: str, out: int) -> dict[str, tuple[int, ...]]:
    """Shapes of `mapping_parameters`."""
    n, shapes = spec.mapping_width, {}
    if n:
        shapes = {f"{prefix}.in.weight": (n, spec.latent), f"{prefix}.in.bias": (n,)}
        shapes |= residual_shapes(f"{prefix}.block", spec.mapping_blocks, n, n)
    return shapes | {f"{prefix}.out.weight": (out, n or spec.latent), f"{prefix}.out.bias": (out,)}
