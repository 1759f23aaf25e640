"""Training of variational quantisers: rate + lambda * distortion by gradient, through a relaxation of the rounding.

What is learned besides the networks and gains is an entropy model, a torch module that gives the rate of every signal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from vcinr import config
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import Model
from vcinr.inr.residual import residual_parameters
from vcinr.meta.extract import torch_params
from vcinr.meta.inner import batch_of, signal_loss
from vcinr.meta.outer import device_of, schedule
from vcinr.progress import Clock, Progress, Watch
from vcinr.quantise.state import analyse, synthesise
from vcinr.signals import Signals

MAX_SYMBOLS = 1024
"""Of a table, besides the escape."""
History = list[dict[str, float]]
"""Rows of a learning curve, one or more, all with the same names."""


@dataclass(frozen=True)
class Task:
    """What a quantiser is trained on: a network, its signals, and their latents ``[N, d]`` by split.

    The latents are relative to each variable's phi_0; training by gradient runs on `device`.
    """

    model: Model
    data: Signals
    latents: Mapping[str, np.ndarray]
    device: str = "cpu"

    @property
    def reached(self) -> np.ndarray:
        """Latents of the training and validation signals ``[N, d]``: what tables may be fitted to."""
        return np.concatenate([self.latents[name] for name in ("train", "valid") if name in self.latents])

    @property
    def values(self) -> int:
        """Values of one signal."""
        return self.data.inputs.shape[0] * self.model.spec.d_out


@dataclass(frozen=True)
class Learned:
    """Networks float32, gains ``[K, d]`` and the entropy model of K rates, and how they were found."""

    params: dict[str, np.ndarray]
    gain: np.ndarray
    prior: Any
    history: History

    def codes(self, depth: int, phi: np.ndarray) -> np.ndarray:
        """Integer codes of latents ``[N, d]`` at every rate, ``[K, N, d]`` int64."""
        y = analyse(self.params, depth, phi)[None] * self.gain[:, None, :]
        return np.rint(y).astype(np.int64)


def relax(y: torch.Tensor, how: Literal["noise", "straight-through"], generator: torch.Generator) -> torch.Tensor:
    """A differentiable stand-in for rounding, with the gradient of the identity.

    noise: y + u, u from U(-1/2, 1/2) (Ballé et al. 2017, section 3); straight-through: y rounded (Theis et al. 2017).
    """
    if how == "noise":
        return y + torch.rand(y.shape, generator=generator).to(y.device) - 0.5
    return y + (torch.round(y) - y).detach()


def through(
    params: Mapping[str, torch.Tensor], depth: int, gain: torch.Tensor, latents: torch.Tensor,
    relaxed: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Relaxed codes of latents ``[n, d]``, and the latents restored from them."""
    y = relaxed(analyse(params, depth, latents) * gain)
    return y, synthesise(params, depth, y / gain)


def learn(
    task: Task, cfg: config.Quantiser, entropy_model: Callable[[np.ndarray, torch.Generator], torch.nn.Module], *,
    seed: int, watch: Watch,
) -> Learned:  # fmt: skip
    """The training loop.

    entropy_model: makes the module from the first gains ``[K, d]``; called as ``module(y, k, relax)`` with relaxed
    codes ``[n, d]``, a rate and the relaxation for codes of its own, it gives the bits of each signal ``[n]``.
    """
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    model, rates = task.model, len(cfg.lambdas)
    device = device_of(task.device)
    latents = torch.from_numpy(task.latents["train"]).to(device)
    origin = torch.from_numpy(model.params["phi_0"][task.data.variable_index("train")]).to(device)
    start, log_gain = _initial(rng, task.latents["train"], model, cfg, task.values)
    log_gain = log_gain.to(device).detach().requires_grad_(True)
    params = {k: torch.tensor(v, dtype=torch.float32, device=device) for k, v in start.items()}
    learned = [v.requires_grad_(True) for k, v in params.items() if k not in ("mean", "std")]
    prior = entropy_model(torch.exp(log_gain).detach().cpu().numpy(), generator).to(device)
    fast = [log_gain, *prior.parameters()]
    optimiser = torch.optim.Adam([{"params": learned, "lr": cfg.rate}, {"params": fast, "lr": 5 * cfg.rate}])
    theta, x = torch_params(model, device), torch.from_numpy(task.data.inputs).to(device)
    batch, points = min(cfg.batch, len(latents)), len(x) if cfg.points == "all" else min(cfg.points, len(x))
    relaxed = partial(relax, how=cfg.relaxation, generator=generator)
    history: History = []
    clock = Clock(cfg.steps)
    for step in range(cfg.steps):
        for group, base in zip(optimiser.param_groups, (cfg.rate, 5 * cfg.rate), strict=True):
            group["lr"] = base * schedule(step, cfg.steps, 50)
        k = step % rates
        chosen = np.sort(rng.choice(len(latents), batch, replace=False))
        where = np.sort(rng.choice(len(x), points, replace=False))
        y, restored = through(params, cfg.depth, torch.exp(log_gain[k]), latents[chosen], relaxed)
        rate = prior(y, k, relaxed).mean() / task.values
        if cfg.distortion == "signal":
            seen = batch_of(task.data, "train", x, chosen, where)
            distortion = signal_loss(model.spec, theta, origin[chosen] + restored, seen).mean()
        else:
            distortion = ((restored - latents[chosen]) / params["std"]).square().mean()
        loss = rate + cfg.lambdas[k] * distortion
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*learned, *fast], cfg.clip)
        optimiser.step()
        if ((step + 1) % max(1, cfg.steps // 20) < rates and k == rates - 1) or step + 1 == cfg.steps:
            row = {"step": float(step + 1), "bits_per_value": rate.item(), "distortion": distortion.item()}
            if cfg.distortion == "signal":
                row["psnr_db"] = -10 * math.log10(max(distortion.item(), 1e-12))
            history.append(row)
            shown = {name: value for name, value in row.items() if name != "step"}
            watch(Progress("quantiser", step + 1, cfg.steps, shown, clock.left(step + 1)))
    arrays = {k: v.detach().cpu().numpy() for k, v in params.items()}
    return Learned(arrays, torch.exp(log_gain).detach().cpu().numpy(), prior.cpu(), history)


def networks(rng: np.random.Generator, d: int, width: int, depth: int) -> dict[str, np.ndarray]:
    """Analysis and synthesis networks at the identity; with `width` 0 they stay there."""
    params = {}
    for name in ("analysis", "synthesis"):
        params[f"{name}.in.weight"] = rng.standard_normal((width, d)) / np.sqrt(d)
        params[f"{name}.in.bias"] = np.zeros(width)
        params.update(residual_parameters(rng, f"{name}.block", depth, width, width))
        params[f"{name}.out.weight"] = np.zeros((d, width))
        params[f"{name}.out.bias"] = np.zeros(d)
    return params


def _initial(
    rng: np.random.Generator, phi: np.ndarray, model: Model, cfg: config.Quantiser, values: int
) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Networks at the identity, and the logarithms of the gains ``[K, d]``; `values`: of one signal."""
    d, lambdas = model.spec.latent, torch.tensor(cfg.lambdas)
    params = {"mean": phi.mean(0), "std": np.maximum(phi.std(0), 1e-6)}
    if conditioning(model.spec.conditioning).linear:
        # An orthonormal basis: one unit for all latents, and of rate + lambda * distortion the optimum at high rate, a
        # uniform step of sqrt(6 / (values ln 2 lambda)).
        params["std"] = np.full(d, np.sqrt(np.mean(params["std"] ** 2)))
        step = torch.sqrt(6.0 / (values * math.log(2.0) * lambdas))
        log_gain = torch.log(float(params["std"][0]) / step)
    else:
        # Near the optimum of a Gaussian latent: the finer the rate, the larger the gains, lambda ~ gain**2.
        log_gain = torch.log(8.0 * torch.sqrt(lambdas / max(cfg.lambdas)))
    params |= networks(rng, d, cfg.width, cfg.depth)
    return params, log_gain.float()[:, None].repeat(1, d).requires_grad_(True)


def supports(learned: Learned, depth: int, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last symbols of the tables, ``[K, d]``: what the latents ``[N, d]`` reach, and half as far again.

    At most `MAX_SYMBOLS`, about the median: what lies beyond escapes.
    """
    z = learned.codes(depth, phi)
    low, high = z.min(1), z.max(1)
    margin = (high - low) // 2 + 3
    middle = np.median(z, axis=1).astype(np.int64)
    low, high = low - margin, high + margin
    first = np.clip(middle - MAX_SYMBOLS // 2, low, np.maximum(low, high - MAX_SYMBOLS + 1))
    return first, np.minimum(high, first + MAX_SYMBOLS - 1)
