"""Residual networks on vectors, which map a latent to modulations and serve as the quantiser's transforms."""

from __future__ import annotations

import numpy as np

from vcinr.inr.spec import Array, Params, namespace


def residual_network(params: Params, prefix: str, blocks: int, h: Array) -> Array:
    """Apply residual blocks h + W2 silu(W1 LN(h) + b1) + b2, where LN is layer normalisation.

    Parameters
    ----------
    params : mapping of str to array
        Parameters, named as by `residual_parameters`.
    prefix : str
        What their names begin with.
    blocks : int
        Number of blocks.
    h : array
        Vectors ``[B, n]``, which the result has the shape of.
    """
    for block in range(blocks):
        name = f"{prefix}.{block}"
        u = _layer_norm(h) * params[f"{name}.scale"] + params[f"{name}.shift"]
        u = _silu(u @ params[f"{name}.weight_1"].T + params[f"{name}.bias_1"])
        h = h + u @ params[f"{name}.weight_2"].T + params[f"{name}.bias_2"]
    return h


def residual_parameters(
    rng: np.random.Generator, prefix: str, blocks: int, width: int, hidden: int
) -> dict[str, np.ndarray]:
    """Make initial parameters for `residual_network`.

    The first weights of a block have He's initialisation. The second ones are a tenth of that, so that each block
    begins near the identity. `width` is the length of the vectors, `hidden` that of the hidden layer.
    """
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
    """Names and shapes of the parameters that `residual_parameters` makes."""
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
    # The 0.01 is large on purpose: phi_0 is near zero, so a smaller number would amplify the first inner gradient.
    centred = h - h.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / (variance + 1e-2) ** 0.5


def _silu(h: Array) -> Array:
    return h * 0.5 * (1.0 + namespace(h).tanh(0.5 * h))
