"""The base class of conditionings, and the mapping network from latents to modulations."""

from __future__ import annotations

import numpy as np

from vcinr.inr.residual import residual_network, residual_parameters, residual_shapes
from vcinr.inr.spec import Array, InrSpec, Params


class Conditioning:
    """How a latent phi enters the shared network. Objects have no state; this base class lets nothing in at all.

    All methods work on NumPy arrays and torch tensors alike (see :mod:`vcinr.inr.spec`), except `relax` and `finish`,
    which belong to training. In shapes, B is the number of signals, P of points, m the width, d the number of latents
    and L the number of layers.
    """

    title: str
    """Name of the method in tables and in a model's provenance."""
    weight_gain = 1.0
    """Factor on the initial hidden weights, where the conditioning attenuates them on average."""
    linear = False
    """Whether the output is affine in phi, on a basis that all signals share. The inner loop then has a closed form."""

    def training(self, spec: InrSpec) -> InrSpec:
        """The shape to train, given the shape that was asked for; raises ConfigError where that is impossible."""
        return spec

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial values of the conditioning's own parameters, by name."""
        return {}

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the conditioning's own parameters in a finished model."""
        return {}

    def check(self, spec: InrSpec, params: Params) -> None:
        """Raise ValueError for parameters of a finished model that have the right shapes but impossible values."""

    def relax(self, spec: InrSpec, params: Params, rng: np.random.Generator | None) -> tuple[Params, Array | float]:
        """Parameters for one training step, with noise drawn from `rng` if there is one, and a penalty for its loss."""
        return params, 0.0

    def finish(self, spec: InrSpec, params: dict[str, np.ndarray]) -> tuple[InrSpec, dict[str, np.ndarray]]:
        """Shape and parameters of the finished model, from those that training ended with."""
        return spec, params

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> Array:
        """Turn latents ``[B, d]`` into the modulation that `layer` and `output` take, of any type."""
        return phi

    def layer(self, modulation: Array, index: int, h: Array, weight: Array, bias: Array) -> Array:
        """Apply the linear part of sine layer `index`, from 0 to L - 2.

        Parameters
        ----------
        modulation
            What `modulate` gives.
        index : int
            Index of the layer.
        h : array
            The layer's input ``[B or 1, P, n]``.
        weight, bias : array
            Its parameters ``[m, n]`` and ``[m]``.

        Returns
        -------
        array
            The argument of the sine, but for the factor omega_0, ``[B or 1, P, m]``.
        """
        return h @ weight.swapaxes(-1, -2) + bias

    def outputs(self, spec: InrSpec) -> int:
        """Number of outputs of the last layer."""
        return spec.d_out

    def output(self, spec: InrSpec, modulation: Array, h: Array, weight: Array, bias: Array) -> Array:
        """Features ``[B, P, d_out]`` from the last hidden layer ``[B or 1, P, m]`` and the last layer's parameters."""
        return h @ weight.T + bias


def mapping(spec: InrSpec, params: Params, prefix: str, blocks: int, phi: Array) -> Array:
    """Map latents ``[B, d]`` to modulations.

    This is a single linear map where `spec.mapping_width` is 0. Otherwise it is a linear map to that width, residual
    blocks, and a second linear map.
    """
    if spec.mapping_width:
        phi = phi @ params[f"{prefix}.in.weight"].T + params[f"{prefix}.in.bias"]
        phi = residual_network(params, f"{prefix}.block", blocks, phi)
    return phi @ params[f"{prefix}.out.weight"].T + params[f"{prefix}.out.bias"]


def mapping_parameters(
    rng: np.random.Generator, spec: InrSpec, prefix: str, out: int
) -> dict[str, np.ndarray]:  # fmt: skip
    """Make initial parameters for a `mapping` to `out` numbers, with unit gain and biases of zero."""
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
    """Names and shapes of the parameters that `mapping_parameters` makes."""
    n, shapes = spec.mapping_width, {}
    if n:
        shapes = {f"{prefix}.in.weight": (n, spec.latent), f"{prefix}.in.bias": (n,)}
        shapes |= residual_shapes(f"{prefix}.block", spec.mapping_blocks, n, n)
    return shapes | {f"{prefix}.out.weight": (out, n or spec.latent), f"{prefix}.out.bias": (out,)}
