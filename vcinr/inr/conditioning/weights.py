"""All weights as latents, the conditioning of COIN: each signal has a network of its own."""

from __future__ import annotations

from dataclasses import replace

from vcinr.inr.conditioning.base import Conditioning
from vcinr.inr.spec import Array, InrSpec, Params


class AllWeights(Conditioning):
    """phi is added to all weights and biases, so that a plain SIREN is fitted to each signal.

    Dupont et al. 2021 (COIN), but all signals start from the same network. With meta-training, that start is learned
    (Strümpler et al. 2022).
    """

    title = "COIN"

    def training(self, spec: InrSpec) -> InrSpec:
        """A shape whose phi has as many numbers as the network has weights and biases."""
        return replace(spec, latent=_count(spec))

    def check(self, spec: InrSpec, params: Params) -> None:
        """Raise ValueError unless phi has as many numbers as the network has weights and biases."""
        if spec.latent != _count(spec):
            raise ValueError(f"latent is {spec.latent}, the network has {_count(spec)} weights")

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> list[tuple[Array, Array]]:
        """What is added to the weight ``[B, out, in]`` and the bias ``[B, 1, out]`` of each layer."""
        changes, position = [], 0
        for out, fan_in in _layers(spec):
            weight = phi[:, position : position + out * fan_in].reshape(-1, out, fan_in)
            position += out * fan_in
            changes.append((weight, phi[:, None, position : position + out]))
            position += out
        return changes

    def layer(
        self, modulation: list[tuple[Array, Array]], index: int, h: Array, weight: Array, bias: Array
    ) -> Array:  # fmt: skip
        """(W + phi_W) h + b + phi_b."""
        return super().layer(None, index, h, weight + modulation[index][0], bias + modulation[index][1])

    def output(
        self, spec: InrSpec, modulation: list[tuple[Array, Array]], h: Array, weight: Array, bias: Array
    ) -> Array:  # fmt: skip
        """(W + phi_W) h + b + phi_b, of the last layer."""
        return self.layer(modulation, -1, h, weight, bias)


def _count(spec: InrSpec) -> int:
    """Number of all weights and biases."""
    return sum(out * (fan_in + 1) for out, fan_in in _layers(spec))


def _layers(spec: InrSpec) -> list[tuple[int, int]]:
    """Numbers of outputs and inputs of each layer."""
    widths = [spec.d_in, *[spec.width] * (spec.depth - 1), spec.d_out]
    return list(zip(widths[1:], widths[:-1], strict=True))
