"""The SIREN f(x; theta, phi) that all signals share, written once for NumPy (decoding) and torch (training).

Sitzmann et al. 2020; Schwarz et al. 2023, section 3. Parameters are a flat mapping of names to arrays. `initialise`
makes them in NumPy; training turns them into torch tensors, and decoding uses them as they are. Only array methods that
both libraries have appear here, so decoding and training run the same lines.

In shapes, B is the number of signals, P of points, m the width, d the number of latents and L the number of layers.
Which layers the latents modulate, and how, is up to the conditioning (:mod:`vcinr.inr.conditioning`).
"""

from __future__ import annotations

import numpy as np

from vcinr.inr.conditioning import conditioning
from vcinr.inr.spec import Array, InrSpec, Params, namespace


def initialise(spec: InrSpec, seed: int, variables: int = 1) -> dict[str, np.ndarray]:
    """Make initial parameters.

    Parameters
    ----------
    spec : InrSpec
        Shape of the network.
    seed : int
        Seed of the random numbers.
    variables : int
        Number of variables, each of which has a row in ``phi_0`` ``[variables, d]``.

    Returns
    -------
    dict of str to numpy.ndarray
        float32 arrays by name: those of the SIREN (Sitzmann et al. 2020, section 3.2) and of the conditioning.
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
    # Normalised values lie in [0, 1]: the output begins in the middle.
    last_bias = np.zeros((spec.d_out, cond.outputs(spec) // spec.d_out))
    last_bias[:, 0] = 0.5
    params[f"siren.{spec.depth - 1}.bias"] = last_bias.ravel()
    params["phi_0"] = 0.01 * rng.standard_normal((variables, spec.latent))
    params.update(cond.initialise(spec, rng))
    return {name: np.asarray(value, np.float32) for name, value in params.items()}


def shapes(spec: InrSpec, variables: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of a finished model, which are compared with those of a model file."""
    result: dict[str, tuple[int, ...]] = {"phi_0": (variables, spec.latent)}
    for layer in range(spec.depth):
        fan_in = spec.d_in if layer == 0 else spec.width
        fan_out = conditioning(spec.conditioning).outputs(spec) if layer == spec.depth - 1 else spec.width
        result |= {f"siren.{layer}.weight": (fan_out, fan_in), f"siren.{layer}.bias": (fan_out,)}
    return result | conditioning(spec.conditioning).shapes(spec)


def forward(spec: InrSpec, params: Params, phi: Array, x: Array) -> Array:
    """Evaluate f(x; theta, phi).

    Parameters
    ----------
    spec, params : InrSpec, mapping
        The network.
    phi : array
        Latents ``[B, d]``.
    x : array
        Inputs, either ``[P, d_in]`` shared by all signals or ``[B, P, d_in]``.

    Returns
    -------
    array
        Features ``[B, P, d_out]``.
    """
    cond = conditioning(spec.conditioning)
    modulation = cond.modulate(spec, params, phi)
    return evaluate(spec, params, modulation, x)


def evaluate(spec: InrSpec, params: Params, modulation: Array, x: Array) -> Array:
    """Evaluate f for modulations that are known already, so that a decoder can evaluate it tile by tile."""
    last = spec.depth - 1
    return conditioning(spec.conditioning).output(
        spec, modulation, hidden(spec, params, modulation, x), params[f"siren.{last}.weight"],
        params[f"siren.{last}.bias"],
    )  # fmt: skip


def hidden(spec: InrSpec, params: Params, modulation: Array, x: Array) -> Array:
    """Activations of the last hidden layer ``[B or 1, P, m]``."""
    cond = conditioning(spec.conditioning)
    xp = namespace(x)
    h = x[None] if x.ndim == 2 else x
    for layer in range(spec.depth - 1):
        weight, bias = params[f"siren.{layer}.weight"], params[f"siren.{layer}.bias"]
        h = xp.sin(spec.omega_0 * cond.layer(modulation, layer, h, weight, bias))
    return h


def basis(spec: InrSpec, params: Params, x: Array, modulation: Array = None) -> tuple[Array, Array]:
    """Evaluate the basis of a linear head, whose last layer gives psi_0 and d functions psi for each feature.

    Parameters
    ----------
    spec, params : InrSpec, mapping
        The network.
    x : array
        Inputs ``[P, d_in]``.
    modulation : optional
        What the conditioning's `modulate` gives for B signals, where it changes the basis.

    Returns
    -------
    psi_0, psi : array
        ``[P, d_out]`` and ``[P, d_out, d]``; with a modulation ``[B, P, d_out]`` and ``[B, P, d_out, d]``.
    """
    last = spec.depth - 1
    h = hidden(spec, params, modulation, x)
    functions = h @ params[f"siren.{last}.weight"].T + params[f"siren.{last}.bias"]
    functions = functions.reshape(*functions.shape[:2], spec.d_out, -1)
    if modulation is None:
        functions = functions[0]
    return functions[..., 0], functions[..., 1:]
