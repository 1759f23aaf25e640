"""Sparse shifts, the conditioning of MSCN: the latents are shifts, most of which learned gates remove."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vcinr.errors import ConfigError
from vcinr.inr.conditioning.base import Conditioning
from vcinr.inr.conditioning.shifts import by_layer, size
from vcinr.inr.spec import Array, InrSpec, Params, namespace

BETA, GAMMA, ZETA = 2.0 / 3.0, -0.1, 1.1
"""Temperature and limits of the hard-concrete distribution (Louizos, Welling & Kingma 2018, section 4.1)."""
PENALTY = 0.1
"""Weight in the loss, a mean squared error, of the expected share of open gates beyond the share to be kept."""
_UNIT = 10.0  # log alpha is learned in this unit, so that it can move far at the learning rate of all other parameters


class SparseShifts(Conditioning):
    """sin(omega_0 (W h + b + z s)), where phi holds the shifts s themselves and z in [0, 1] gates them.

    Schwarz & Teh 2022, with the L0 penalty of Louizos et al. 2018. In training, z is drawn from a hard-concrete
    distribution, whose parameter log alpha is learned. Gates that are expected to be open beyond the number asked for
    are penalised. The finished model keeps that number of shifts, with z at the distribution's deterministic value.
    """

    title = "MSCN"

    def training(self, spec: InrSpec) -> InrSpec:
        """A shape whose phi holds all shifts; raises ConfigError where these are fewer than the number to keep."""
        if spec.latent > size(spec):
            raise ConfigError(f"inr.latent: {spec.latent} of {size(spec)} shifts cannot be kept; widen the network")
        return replace(spec, latent=size(spec), kept=spec.latent)

    def initialise(self, spec: InrSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """log alpha of all gates: at first most are open. Noise makes them differ."""
        return {"sparse.log_alpha": (2.0 + 0.1 * rng.standard_normal(size(spec))) / _UNIT}

    def shapes(self, spec: InrSpec) -> dict[str, tuple[int, ...]]:
        """Shapes of the gates, and of each shift's index into phi (d where the shift has been removed)."""
        return {"sparse.gate": (spec.latent,), "sparse.position": (size(spec),)}

    def check(self, spec: InrSpec, params: Params) -> None:
        """Raise ValueError unless the index of each shift lies in 0 to d."""
        position = params["sparse.position"]
        if position.dtype.kind != "i" or position.min(initial=0) < 0 or position.max(initial=0) > spec.latent:
            raise ValueError("positions of sparse shifts outside phi")

    def relax(self, spec: InrSpec, params: Params, rng: np.random.Generator | None) -> tuple[Params, Array | float]:
        """Draw the gates, and compute the penalty on those that are expected to be open beyond `spec.kept`."""
        log_alpha = _UNIT * params["sparse.log_alpha"]
        noise = None if rng is None else log_alpha.new_tensor(rng.uniform(1e-6, 1 - 1e-6, log_alpha.shape))
        share = open_probability(log_alpha).mean()
        penalty = PENALTY * (share - spec.kept / len(log_alpha)).clamp_min(0.0)
        return {**params, "sparse.gate": hard_concrete(log_alpha, noise)}, penalty

    def finish(self, spec: InrSpec, params: dict[str, np.ndarray]) -> tuple[InrSpec, dict[str, np.ndarray]]:
        """Keep the `spec.kept` shifts whose gates are most open, in their order."""
        params = dict(params)
        log_alpha = _UNIT * params.pop("sparse.log_alpha")
        chosen = np.sort(np.argsort(-log_alpha, kind="stable")[: spec.kept])
        position = np.full(len(log_alpha), spec.kept, np.int32)
        position[chosen] = np.arange(spec.kept)
        params |= {"sparse.gate": hard_concrete(log_alpha[chosen]), "sparse.position": position}
        params |= {"phi_0": params["phi_0"][:, chosen], "alpha": params["alpha"][chosen]}
        return replace(spec, latent=spec.kept, kept=0), params

    def modulate(self, spec: InrSpec, params: Params, phi: Array) -> Array:
        """The gated shifts of all sine layers, ``[L - 1, B, 1, m]``."""
        shifts = phi * params["sparse.gate"]
        if "sparse.position" in params:
            shifts = namespace(phi).concatenate([shifts, 0.0 * shifts[:, :1]], -1)[:, params["sparse.position"]]
        return by_layer(spec, shifts)

    def layer(self, modulation: Array, index: int, h: Array, weight: Array, bias: Array) -> Array:
        """W h + b + z s."""
        return super().layer(modulation, index, h, weight, bias) + modulation[index]


def hard_concrete(log_alpha: Array, noise: Array | None = None) -> Array:
    """The gates z = min(1, max(0, s (zeta - gamma) + gamma)) of Louizos et al. 2018, equations 10, 11 and 13.

    Parameters
    ----------
    log_alpha : array
        log alpha of each gate.
    noise : array, optional
        Uniform random numbers in (0, 1), from which s is sampled. Without them s = sigmoid(log alpha).
    """
    xp = namespace(log_alpha)
    logit = log_alpha if noise is None else (xp.log(noise) - xp.log(1.0 - noise) + log_alpha) / BETA
    stretched = 0.5 * (1.0 + xp.tanh(0.5 * logit)) * (ZETA - GAMMA) + GAMMA
    return xp.clip(stretched, 0.0, 1.0)


def open_probability(log_alpha: Array) -> Array:
    """Probability that z is not 0: sigmoid(log alpha - beta log(-gamma / zeta)), Louizos et al. 2018, equation 12."""
    return 0.5 * (1.0 + namespace(log_alpha).tanh(0.5 * (log_alpha - BETA * math.log(-GAMMA / ZETA))))
