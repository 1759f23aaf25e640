"""Conditionings: how a latent modulation phi enters the shared network.

A conditioning is a stateless object with three functions and one number; `_REGISTRY` is the one line a new one
needs. All of them work on NumPy arrays and torch tensors alike (see :mod:`vcinr.inr.spec`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vcinr.errors import ConfigError
from vcinr.inr.spec import Array, InrSpec, Params, namespace


class Conditioning(Protocol):
    """What the network asks of a conditioning."""

    weight_gain: float
    """Factor on the initial hidden weights that undoes the conditioning's mean attenuation."""
    title: str
    """What tables call a network of this conditioning."""
    linear: bool
    """Whether the output is affine in phi, so that the inner loop has a closed form."""

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The conditioning's own parameters."""
        ...

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Name and shape of each of these parameters, known without making them."""
        ...

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> Array:
        """phi ``[B, d]`` to one modulation a modulated layer, ``[depth - 2, B, ...]``."""
        ...

    def layer(self, modulation: Array, index: int, h: Array, weight: Array, bias: Array) -> Array:
        """Pre-activation ``[B, P, m]`` of modulated layer `index` from ``h`` ``[B or 1, P, m]``."""
        ...

    def outputs(self, spec: InrSpec) -> int:
        """Rows of the last layer."""
        ...

    def output(self, spec: InrSpec, modulation: Array, rows: Array) -> Array:
        """Features ``[B, P, d_out]`` from the last layer's rows ``[B or 1, P, outputs]``."""
        ...


def residual_network(params: Params, prefix: str, blocks: int, h: Array) -> Array:
    """Pre-normalised residual blocks h + W2 silu(W1 LN(h) + b1) + b2 on ``[B, n]``."""
    for block in range(blocks):
        name = f"{prefix}.{block}"
        u = _layer_norm(h) * params[f"{name}.scale"] + params[f"{name}.shift"]
        u = _silu(u @ params[f"{name}.weight_1"].T + params[f"{name}.bias_1"])
        h = h + u @ params[f"{name}.weight_2"].T + params[f"{name}.bias_2"]
    return h


def residual_parameters(
    rng: np.random.Generator, prefix: str, blocks: int, width: int, hidden: int
) -> dict[str, np.ndarray]:
    """Initial parameters of `residual_network`: He for the first, a tenth of it for the second weights."""
    params: dict[str, np.ndarray] = {}
    for block in range(blocks):
        name = f"{prefix}.{block}"
        params[f"{name}.scale"] = np.ones(width)
        params[f"{name}.shift"] = np.zeros(width)
        params[f"{name}.weight_1"] = rng.standard_normal((hidden, width)) * np.sqrt(2.0 / width)
        params[f"{name}.bias_1"] = np.zeros(hidden)
        params[f"{name}.weight_2"] = 0.1 * rng.standard_normal((width, hidden)) * np.sqrt(2.0 / hidden)
        params[f"{name}.bias_2"] = np.zeros(width)
    return params


def residual_shapes(prefix: str, blocks: int, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Shapes of `residual_parameters`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(blocks):
        name = f"{prefix}.{block}"
        shapes |= {f"{name}.{part}": (width,) for part in ("scale", "shift", "bias_2")}
        shapes |= {
            f"{name}.weight_1": (hidden, width),
            f"{name}.bias_1": (hidden,),
            f"{name}.weight_2": (width, hidden),
        }
    return shapes


def _layer_norm(h: Array) -> Array:
    # eps is large on purpose: phi_0 is near zero, and a small eps amplifies the first inner gradient.
    centred = h - h.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / (variance + 1e-2) ** 0.5


def _silu(h: Array) -> Array:
    return h * 0.5 * (1.0 + namespace(h).tanh(0.5 * h))


class LowRankGates:
    """VC-INR: each hidden layer's weights are gated by G = sigmoid(U V^T), U, V ``[m, rank]`` from phi.

    sin(omega_0 ((G * W) c + b)), Schwarz et al. 2023, section 3; U and V of all layers come from a deep
    residual network of phi, which belongs to theta.
    """

    weight_gain = 2.0  # the mean gate is 1/2
    title = "VC-INR"
    linear = False

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Mapping network: linear d -> n, residual blocks, linear n -> (U, V) of every modulated layer."""
        n, out = spec.mapping_width, (spec.depth - 2) * 2 * spec.width * spec.rank
        # U V^T must not start at zero: both factors' gradients vanish there. The bias gives it unit scale.
        return {
            "gates.in.weight": rng.standard_normal((n, spec.latent)) / np.sqrt(spec.latent),
            "gates.in.bias": np.zeros(n),
            **residual_parameters(rng, "gates.block", spec.mapping_blocks, n, n),
            "gates.out.weight": rng.standard_normal((out, n)) / np.sqrt(n),
            "gates.out.bias": rng.standard_normal(out) * spec.rank**-0.25,
        }

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Shapes of `initialise`'s parameters."""
        n, out = spec.mapping_width, (spec.depth - 2) * 2 * spec.width * spec.rank
        return {
            "gates.in.weight": (n, spec.latent), "gates.in.bias": (n,),
            "gates.out.weight": (out, n), "gates.out.bias": (out,),
            **residual_shapes("gates.block", spec.mapping_blocks, n, n),
        }  # fmt: skip

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> Array:
        """Gates G of every modulated layer, ``[depth - 2, B, m, m]``."""
        h = phi @ params["gates.in.weight"].T + params["gates.in.bias"]
        h = residual_network(params, "gates.block", spec.mapping_blocks, h)
        uv = h @ params["gates.out.weight"].T + params["gates.out.bias"]
        uv = uv.reshape(phi.shape[0], spec.depth - 2, 2, spec.width, spec.rank)
        uv = uv.swapaxes(0, 1)
        product = uv[:, :, 0] @ uv[:, :, 1].swapaxes(-1, -2)
        return 0.5 * (1.0 + namespace(product).tanh(0.5 * product))

    def layer(self, modulation: Array, index: int, h: Array, weight: Array, bias: Array) -> Array:
        """(G * W) h + b."""
        return h @ (modulation[index] * weight).swapaxes(-1, -2) + bias

    def outputs(self, spec: InrSpec) -> int:
        """One row a feature."""
        return spec.d_out

    def output(self, spec: InrSpec, modulation: Array, rows: Array) -> Array:
        """The rows as they are."""
        return rows


class LinearHead:
    """A neural EOF basis: f(x; phi) = psi_0(x) + sum_k phi_k psi_k(x), psi the outputs of an unmodulated SIREN.

    The inner loop is a ridge solve (:func:`vcinr.meta.inner.solve`), encoding a projection, decoding a matrix product.
    """

    weight_gain = 1.0
    title = "neural basis"
    linear = True

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """None of its own."""
        return {}

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """None of its own."""
        return {}

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> Array:
        """phi itself, ``[B, d]``: only the output depends on it."""
        return phi

    def layer(self, modulation: Array, index: int, h: Array, weight: Array, bias: Array) -> Array:
        """W h + b."""
        return h @ weight.swapaxes(-1, -2) + bias

    def outputs(self, spec: InrSpec) -> int:
        """psi_0 and the d others, for each feature."""
        return spec.d_out * (spec.latent + 1)

    def output(self, spec: InrSpec, modulation: Array, rows: Array) -> Array:
        """psi_0 + psi phi."""
        rows = rows.reshape(*rows.shape[:2], spec.d_out, spec.latent + 1)
        return rows[..., 0] + (rows[..., 1:] * modulation[:, None, None]).sum(-1)


_REGISTRY: dict[str, Conditioning] = {"gates": LowRankGates(), "linear": LinearHead()}


def conditioning(name: str) -> Conditioning:
    """The conditioning of that name; raises ConfigError naming the known ones."""
    if name not in _REGISTRY:
        raise ConfigError(f"inr.conditioning: unknown {name!r}; known: {', '.join(_REGISTRY)}")
    return _REGISTRY[name]
