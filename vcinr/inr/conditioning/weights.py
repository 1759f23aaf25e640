"""COIN: a network of its own for every signal."""

from __future__ import annotations

from dataclasses import replace

from vcinr.inr.conditioning.base import Conditioning
from vcinr.inr.spec import Array, InrSpec, Params


class AllWeights(Conditioning):
    """phi is what is added to all weights and biases: a plain SIREN fitted to each signal.

    Dupont et al. 2021 (COIN), from a start that all signals share; meta-trained, that start is learned
    (Strümpler et al. 2022).
    """

    title = "COIN"

    def training(self, spec: InrSpec) -> InrSpec:
        """phi has as many numbers as the network."""
        return replace(spec, latent=_count(spec))

    def check(self, spec: InrSpec, params: Params) -> None:
        """phi has as many numbers as the network."""
        if spec.latent != _count(spec):
            raise ValueError(f"latent is {spec.latent}, the network has {_count(spec)} weights")

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> list[tuple[Array, Array]]:
        """(weight ``[B, out, in]``, bias ``[B, 1, out]``) of every layer."""
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
        """As `layer`."""
        return self.layer(modulation, -1, h, weight, bias)


def _count(spec: InrSpec) -> int:
    return sum(out * (fan_in + 1) for out, fan_in in _layers(spec))


def _layers(spec: InrSpec) -> list[tuple[int, int]]:
    """(out, in) of every layer."""
    widths = [spec.d_in, *[spec.width] * (spec.depth - 1), spec.d_out]
    return list(zip(widths[1:], widths[:-1], strict=True))
