"""The shared SIREN f(x; theta, phi) of VC-INR, written once for NumPy (decoder) and torch (training).

Parameters are a flat mapping of names to arrays; `initialise` makes them in NumPy, training turns them into
torch tensors, the decoder uses them as they are. Only array methods common to both libraries appear here, so
decoder and training-time forward are the same lines (Sitzmann et al. 2020; Schwarz et al. 2023, section 3).

Shapes: B signals, P points, m width, d latent size, L layers; which of them are modulated, and how, is the
conditioning's (:mod:`vcinr.inr.conditioning`).
"""

from __future__ import annotations

import numpy as np

from vcinr.inr.conditioning import conditioning
from vcinr.inr.spec import Array, InrSpec, Params, namespace


def initialise(spec: InrSpec, seed: int, variables: int = 1) -> dict[str, np.ndarray]:
    """Fresh parameters, float32: SIREN initialisation (Sitzmann et al. 2020, section 3.2) and the conditioning's.

    ``phi_0`` ``[variables, d]`` has a row for each variable, which reader and writer both know.
    """
    rng = np.random.default_rng(seed)
    cond = conditioning(spec.conditioning)
    params: dict[str, np.ndarray] = {}
    for layer in range(spec.depth):
        fan_in = spec.d_in if layer == 0 else spec.width
        fan_out = cond.outputs(spec) if layer == spec.depth - 1 else spec.width
        bound = 1.0 / fan_in if layer == 0 else np.sqrt(6.0 / fan_in) / spec.omega_0
        if 0 < layer < spec.depth - 1:
            bound *= cond.weight_gain
        params[f"siren.{layer}.weight"] = rng.uniform(-bound, bound, (fan_out, fan_in))
        params[f"siren.{layer}.bias"] = rng.uniform(-1.0, 1.0, fan_out) / np.sqrt(fan_in) / spec.omega_0
    middle = np.zeros((spec.d_out, cond.outputs(spec) // spec.d_out))
    middle[:, 0] = 0.5
    params[f"siren.{spec.depth - 1}.bias"] = middle.ravel()
    params["phi_0"] = 0.01 * rng.standard_normal((variables, spec.latent))
    params.update(cond.initialise(spec, rng))
    return {name: np.asarray(value, np.float32) for name, value in params.items()}


def shapes(spec: InrSpec, variables: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter that `initialise` makes, known without making them."""
    result: dict[str, tuple[int, ...]] = {"phi_0": (variables, spec.latent)}
    for layer in range(spec.depth):
        fan_in = spec.d_in if layer == 0 else spec.width
        fan_out = conditioning(spec.conditioning).outputs(spec) if layer == spec.depth - 1 else spec.width
        result |= {f"siren.{layer}.weight": (fan_out, fan_in), f"siren.{layer}.bias": (fan_out,)}
    return result | conditioning(spec.conditioning).shapes(spec)


def forward(spec: InrSpec, params: Params, phi: Array, x: Array) -> Array:
    """Evaluate f.

    phi ``[B, d]``; x ``[P, d_in]`` shared by all signals or ``[B, P, d_in]``. Returns ``[B, P, d_out]``.
    """
    cond = conditioning(spec.conditioning)
    modulation = cond.modulate(spec, params, phi)
    return evaluate(spec, params, modulation, x)


def evaluate(spec: InrSpec, params: Params, modulation: Array, x: Array) -> Array:
    """The part of `forward` after the modulations are known, so that a decoder can tile over points."""
    last = spec.depth - 1
    return conditioning(spec.conditioning).output(
        spec, modulation, hidden(spec, params, modulation, x), params[f"siren.{last}.weight"],
        params[f"siren.{last}.bias"],
    )  # fmt: skip


def hidden(spec: InrSpec, params: Params, modulation: Array, x: Array) -> Array:
    """The last hidden layer, ``[B or 1, P, m]``."""
    cond = conditioning(spec.conditioning)
    xp = namespace(x)
    h = x[None] if x.ndim == 2 else x
    for layer in range(spec.depth - 1):
        weight, bias = params[f"siren.{layer}.weight"], params[f"siren.{layer}.bias"]
        h = xp.sin(spec.omega_0 * cond.layer(modulation, layer, h, weight, bias))
    return h


def basis(spec: InrSpec, params: Params, x: Array, modulation: Array = None) -> tuple[Array, Array]:
    """psi_0 and psi at x ``[P, d_in]`` of a last layer that holds a basis of d functions for each feature.

    ``[P, d_out]`` and ``[P, d_out, d]`` of a linear head; where `modulation` changes the basis of each of B signals,
    ``[B, P, d_out]`` and ``[B, P, d_out, d]``.
    """
    last = spec.depth - 1
    h = hidden(spec, params, modulation, x)
    found = h @ params[f"siren.{last}.weight"].T + params[f"siren.{last}.bias"]
    found = found.reshape(*found.shape[:2], spec.d_out, -1)
    if modulation is None:
        found = found[0]
    return found[..., 0], found[..., 1:]
