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
from vcinr.meta.inner import batch_of, drawn, signal_loss
from vcinr.meta.outer import device_of, schedule
from vcinr.meta.pace import Pace
from vcinr.progress import Progress, Watch
from vcinr.quality import psnr_of
from vcinr.quantise.state import analyse, synthesise
from vcinr.signals import Signals

MAX_SYMBOLS = 1024
"""Of a table, besides the escape."""
History = list[dict[str, float]]
"""Rows of a learning curve, one or more, all with the same names."""


@dataclass(frozen=True)
class Task:
    """What a quantiser is trained on: a network, its signals, and their latents ``[N, d]`` by split.

    The latents are relative to each variable's phi_0; training by gradient runs on `device` and, with `seconds`, takes
    no longer than that.
    """

    model: Model
    data: Signals
    latents: Mapping[str, np.ndarray]
    device: str = "cpu"
    seconds: float | None = None

    @property
    def reached(self) -> np.ndarray:
        """Latents of the training and validation signals ``[N, d]``: what tables may be fitted to."""
        return np.concatenate([self.latents[name] for name in ("train", "valid") if name in self.latents])

    @property
    def values(self) -> int:
        """Values of one signal."""
        return self.data.points * self.model.spec.d_out


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


Group = tuple[list[torch.Tensor], float]
"""Tensors that learn at one rate, and that rate as a multiple of the quantiser's."""
Objective = Callable[[int, np.ndarray, np.ndarray], tuple[torch.Tensor, torch.Tensor]]
"""(rate's index, chosen signals, chosen points) to bits per value and distortion."""


def descend(
    task: Task, cfg: config.Quantiser, groups: list[Group], objective: Objective, rng: np.random.Generator, *,
    steps: int, points: int | Literal["all"], stage: str, watch: Watch,
) -> History:  # fmt: skip
    """Minimise bits + lambda * distortion by Adam, the rates in turn.

    Parameters
    ----------
    task : Task
        Its training signals are drawn from, and its `seconds` are the budget.
    cfg : config.Quantiser
        Rate of learning, batch, clipping and the lambdas.
    groups : list of Group
        What is learned.
    objective : Objective
        What is minimised.
    rng : numpy.random.Generator
        Of the draws.
    steps : int
        How many; in a time budget at most so many.
    points : int or "all"
        Drawn in each step.
    stage, watch
        What progress is called, and who is told.

    Returns
    -------
    History
        About twenty rows for each rate.

    Notes
    -----
    Schwarz et al. 2023, Algorithm 2; Ballé et al. 2017, equation 9.
    """
    known, rates, signals = task.data.known_points("train"), len(cfg.lambdas), len(task.latents["train"])
    optimiser = torch.optim.Adam([{"params": tensors, "lr": factor * cfg.rate} for tensors, factor in groups])
    everything = [tensor for tensors, _ in groups for tensor in tensors]
    history: History = []
    pace, step, done = Pace(steps, task.seconds), 0, False
    while not done:
        for group, (_, factor) in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = factor * cfg.rate * schedule(pace.position(step), steps, 50)
        k = step % rates
        chosen = np.sort(rng.choice(signals, min(cfg.batch, signals), replace=False))
        rate, distortion = objective(k, chosen, drawn(rng, known, points))
        optimiser.zero_grad()
        (rate + cfg.lambdas[k] * distortion).backward()
        torch.nn.utils.clip_grad_norm_(everything, cfg.clip)
        optimiser.step()
        step += 1
        # Out of time, all rates still get as many steps as one another.
        done = step == steps or (k == rates - 1 and pace.out_of_time)
        if (step % max(1, steps // 20) < rates and k == rates - 1) or done:
            row = {"step": float(step), "bits_per_value": rate.item(), "distortion": distortion.item()}
            if cfg.distortion == "signal":
                row["psnr_db"] = float(psnr_of(row["distortion"]))
            history.append(row)
            shown = {name: value for name, value in row.items() if name != "step"}
            watch(Progress(stage, step, step if done else steps, shown, pace.left(step)))
    return history


def learn(
    task: Task, cfg: config.Quantiser, entropy_model: Callable[[np.ndarray, torch.Generator], torch.nn.Module], *,
    seed: int, watch: Watch,
) -> Learned:  # fmt: skip
    """Train networks, gains and entropy model over a frozen network.

    Parameters
    ----------
    task : Task
        Network, signals and latents.
    cfg : config.Quantiser
        How it is trained.
    entropy_model : callable
        Makes the module from the first gains ``[K, d]`` and a generator. Called as ``module(y, k, relax)`` with relaxed
        codes ``[n, d]``, a rate and the relaxation for codes of its own, it gives the bits of each signal ``[n]``.
    seed : int
        Of initialisation, noise and draws.
    watch : callable
        Is told of progress.

    Returns
    -------
    Learned
        Everything that was learned.
    """
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    model = task.model
    device = device_of(task.device)
    latents = torch.from_numpy(task.latents["train"]).to(device)
    origin = torch.from_numpy(model.params["phi_0"][task.data.variable_index("train")]).to(device)
    start, log_gain = _initial(rng, task.latents["train"], model, cfg, task.values)
    log_gain = log_gain.to(device).detach().requires_grad_(True)
    params = {k: torch.tensor(v, dtype=torch.float32, device=device) for k, v in start.items()}
    learned = [v.requires_grad_(True) for k, v in params.items() if k not in ("mean", "std")]
    prior = entropy_model(torch.exp(log_gain).detach().cpu().numpy(), generator).to(device)
    theta, x = torch_params(model, device), torch.from_numpy(task.data.inputs).to(device)
    relaxed = partial(relax, how=cfg.relaxation, generator=generator)

    def objective(k: int, chosen: np.ndarray, where: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        y, restored = through(params, cfg.depth, torch.exp(log_gain[k]), latents[chosen], relaxed)
        rate = prior(y, k, relaxed).mean() / task.values
        if cfg.distortion == "latent":
            return rate, ((restored - latents[chosen]) / params["std"]).square().mean()
        seen = batch_of(task.data, "train", x, chosen, where)
        return rate, signal_loss(model.spec, theta, origin[chosen] + restored, seen).mean()

    groups: list[Group] = [(learned, 1.0), ([log_gain, *prior.parameters()], 5.0)]
    history = descend(
        task, cfg, groups, objective, rng, steps=cfg.steps, points=cfg.points, stage="quantiser", watch=watch
    )
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
