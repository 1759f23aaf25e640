"""Training of variational quantisers: rate + lambda * distortion is minimised by gradient, with relaxed rounding.

Networks, gains and an entropy model are learned together. The entropy model is a torch module that computes the bits of
every signal.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

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
from vcinr.meta.ranks import ALONE, Ranks
from vcinr.progress import Progress, Watch
from vcinr.quality import psnr_of
from vcinr.quantise.state import analyse, synthesise
from vcinr.signals import Signals

MAX_SYMBOLS = 1024
"""Largest number of symbols of a table, besides the escape."""
History = list[dict[str, float]]
"""One or more rows of a learning curve, all with the same names."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Task:
    """What a quantiser is trained on.

    Attributes
    ----------
    model : Model
        The network, which stays as it is.
    data : Signals
        Its signals.
    latents : mapping of str to numpy.ndarray
        Their latents ``[N, d]`` by split, relative to each variable's phi_0.
    device : str
        Where training by gradient runs.
    seconds : float, optional
        Time budget of that training.
    ranks : Ranks
        The processes that train together; all have the same latents.
    """

    model: Model
    data: Signals
    latents: Mapping[str, np.ndarray]
    device: str = "cpu"
    seconds: float | None = None
    ranks: Ranks = ALONE

    @property
    def reached(self) -> np.ndarray:
        """Latents of the training and validation signals ``[N, d]``, to which tables may be fitted."""
        return np.concatenate([self.latents[name] for name in ("train", "valid") if name in self.latents])

    @property
    def values(self) -> int:
        """Number of values in a signal."""
        return self.data.points * self.model.spec.d_out


@dataclass(frozen=True)
class Learned:
    """Result of training for K rates.

    Attributes
    ----------
    params : dict
        Parameters of the networks, float32.
    gain : numpy.ndarray
        ``[K, d]``.
    prior : torch.nn.Module
        The entropy model.
    history : History
        The learning curve.
    """

    params: dict[str, np.ndarray]
    gain: np.ndarray
    prior: Any
    history: History

    def codes(self, depth: int, phi: np.ndarray) -> np.ndarray:
        """Integer codes of latents ``[N, d]`` at every rate, int64 ``[K, N, d]``."""
        y = analyse(self.params, depth, phi)[None] * self.gain[:, None, :]
        return np.rint(y).astype(np.int64)


def relax(
    y: torch.Tensor, how: Literal["noise", "straight-through"], generator: torch.Generator, batch: int | None = None,
    own: slice = slice(None),
) -> torch.Tensor:  # fmt: skip
    """A differentiable stand-in for rounding, with the gradient of the identity.

    Parameters
    ----------
    y : torch.Tensor
        What is to be rounded, ``[n, ...]``.
    how : str
        ``noise``: y + u with u from U(-1/2, 1/2) (Ballé et al. 2017, section 3); ``straight-through``: y rounded (Theis
        et al. 2017).
    generator : torch.Generator
        Source of the noise.
    batch, own : int, slice
        Number of signals in the batch of all processes, and which of them are the n of this one, by default all. Each
        process draws the noise of the whole batch.
    """
    if how == "noise":
        return y + torch.rand((batch or len(y), *y.shape[1:]), generator=generator)[own].to(y.device) - 0.5
    return y + (torch.round(y) - y).detach()


def through(
    params: Mapping[str, torch.Tensor], depth: int, gain: torch.Tensor, latents: torch.Tensor,
    relaxed: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Pass latents through the relaxed quantiser.

    Parameters
    ----------
    params : mapping of str to torch.Tensor
        Parameters of the networks.
    depth : int
        Residual blocks of each network.
    gain : torch.Tensor
        Gains ``[d]`` of the rate.
    latents : torch.Tensor
        ``[n, d]``.
    relaxed : callable
        The relaxation of rounding.

    Returns
    -------
    codes, restored : torch.Tensor
        Relaxed codes, and the latents restored from them, ``[n, d]`` each.
    """
    y = relaxed(analyse(params, depth, latents) * gain)
    return y, synthesise(params, depth, y / gain)


Relaxation = Callable[[torch.Tensor], torch.Tensor]
"""A stand-in for rounding of the chosen signals' codes."""
Group = tuple[list[torch.Tensor], float]
"""Tensors that share a learning rate, and that rate as a multiple of the quantiser's."""
Objective = Callable[[int, np.ndarray, np.ndarray, Relaxation], tuple[torch.Tensor, torch.Tensor]]
"""Function (index of the rate, chosen signals, chosen points, relaxation) -> bits per value and distortion."""


def descend(
    task: Task, cfg: config.Quantiser, groups: list[Group], objective: Objective, rng: np.random.Generator,
    generator: torch.Generator, *, steps: int, points: int | Literal["all"], stage: str, watch: Watch,
) -> History:  # fmt: skip
    """Minimise bits + lambda * distortion by Adam, with the rates in turn.

    Parameters
    ----------
    task : Task
        Training signals are drawn from it, and its `seconds` are the time budget.
    cfg : config.Quantiser
        Learning rate, batch size, clipping and the lambdas.
    groups : list of Group
        What is learned.
    objective : Objective
        What is minimised.
    rng : numpy.random.Generator
        Draws signals and points.
    generator : torch.Generator
        Draws the noise of the relaxation.
    steps : int
        Number of steps; with a time budget the largest number.
    points : int or "all"
        Number of points drawn in each step.
    stage, watch
        Name of the stage, and who is told of progress.

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
    tensors_learned = [tensor for tensors, _ in groups for tensor in tensors]
    history: History = []
    pace, step, finished = Pace(steps, task.seconds), 0, False
    batch, train, ranks = min(cfg.batch, signals), task.data.splits["train"], task.ranks
    (own,) = ranks.parts(batch)
    share = (own.stop - own.start) / batch

    def drawn_signals(rng: np.random.Generator) -> np.ndarray:
        return np.sort(rng.choice(signals, batch, replace=False))

    def agreed(by_clock: _T) -> _T:
        return by_clock if task.seconds is None else ranks.once(lambda: by_clock)

    while not finished:
        position = agreed(pace.position(step))
        for group, (_, factor) in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = factor * cfg.rate * schedule(position, steps, 50)
        k = step % rates
        chosen, where = drawn_signals(rng), drawn(rng, known, points)
        relaxed = partial(relax, how=cfg.relaxation, generator=generator, batch=batch, own=own)
        rate, distortion = objective(k, chosen[own], where, relaxed)
        if train.streamed and cfg.distortion == "signal":
            train.read_ahead(drawn_signals(copy.deepcopy(rng))[own])
        optimiser.zero_grad()
        ((rate + cfg.lambdas[k] * distortion) * share).backward()
        rate, distortion = rate.detach() * share, distortion.detach() * share
        ranks.sum_gradients(tensors_learned, rate, distortion)
        torch.nn.utils.clip_grad_norm_(tensors_learned, cfg.clip)
        optimiser.step()
        step += 1
        # Even when time runs out, all rates get the same number of steps.
        finished = step == steps or (k == rates - 1 and agreed(pace.out_of_time))
        if (step % max(1, steps // 20) < rates and k == rates - 1) or finished:
            row = {"step": float(step), "bits_per_value": rate.item(), "distortion": distortion.item()}
            if cfg.distortion == "signal":
                row["psnr_db"] = float(psnr_of(row["distortion"]))
            history.append(row)
            shown = {name: value for name, value in row.items() if name != "step"}
            watch(Progress(stage, step, step if finished else steps, shown, pace.left(step)))
    return history


def learn(
    task: Task, cfg: config.Quantiser, entropy_model: Callable[[np.ndarray, torch.Generator], torch.nn.Module], *,
    seed: int, watch: Watch,
) -> Learned:  # fmt: skip
    """Train networks, gains and entropy model for a frozen network.

    Parameters
    ----------
    task : Task
        Network, signals and latents.
    cfg : config.Quantiser
        How to train.
    entropy_model : callable
        Makes the module from the first gains ``[K, d]`` and a generator. Called as ``module(y, k, relax)`` with relaxed
        codes ``[n, d]``, the index of a rate, and the relaxation (for codes of its own), the module returns the bits of
        each signal ``[n]``.
    seed : int
        Seed of initialisation, noise and draws.
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

    def objective(
        k: int, chosen: np.ndarray, where: np.ndarray, relaxed: Relaxation
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        y, restored = through(params, cfg.depth, torch.exp(log_gain[k]), latents[chosen], relaxed)
        rate = prior(y, k, relaxed).mean() / task.values
        if cfg.distortion == "latent":
            return rate, ((restored - latents[chosen]) / params["std"]).square().mean()
        batch = batch_of(task.data, "train", x, chosen, where)
        return rate, signal_loss(model.spec, theta, origin[chosen] + restored, batch).mean()

    groups: list[Group] = [(learned, 1.0), ([log_gain, *prior.parameters()], 5.0)]
    history = descend(
        task, cfg, groups, objective, rng, generator, steps=cfg.steps, points=cfg.points, stage="quantiser",
        watch=watch,
    )  # fmt: skip
    arrays = {k: v.detach().cpu().numpy() for k, v in params.items()}
    return Learned(arrays, torch.exp(log_gain).detach().cpu().numpy(), prior.cpu(), history)


def networks(rng: np.random.Generator, d: int, width: int, depth: int) -> dict[str, np.ndarray]:
    """Initial parameters of the analysis and synthesis networks, which are then the identity.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights.
    d : int
        Number of latents.
    width, depth : int
        Width and residual blocks of each network; with width 0 it stays the identity.
    """
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
    """Initial parameters of the networks, and logarithms of the gains ``[K, d]``; a signal has so many `values`."""
    d, lambdas = model.spec.latent, torch.tensor(cfg.lambdas)
    params = {"mean": phi.mean(0), "std": np.maximum(phi.std(0), 1e-6)}
    if conditioning(model.spec.conditioning).linear:
        # The basis is orthonormal, so all latents have the same unit. At high rate, rate + lambda * distortion is
        # smallest for a uniform step of sqrt(6 / (values ln 2 lambda)).
        params["std"] = np.full(d, np.sqrt(np.mean(params["std"] ** 2)))
        step = torch.sqrt(6.0 / (values * math.log(2.0) * lambdas))
        log_gain = torch.log(float(params["std"][0]) / step)
    else:
        # For a Gaussian latent this is near the optimum: gains grow with the rate, as lambda ~ gain**2.
        log_gain = torch.log(8.0 * torch.sqrt(lambdas / max(cfg.lambdas)))
    params |= networks(rng, d, cfg.width, cfg.depth)
    return params, log_gain.float()[:, None].repeat(1, d).requires_grad_(True)


def supports(learned: Learned, depth: int, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last symbol of each table.

    On each side a table reaches beyond the latents by half of their range. It has at most `MAX_SYMBOLS` symbols, about
    the latents' median; values beyond them escape.

    Parameters
    ----------
    learned : Learned
        The result of training.
    depth : int
        Residual blocks of the networks.
    phi : numpy.ndarray
        Latents ``[N, d]``.

    Returns
    -------
    first, last : numpy.ndarray
        ``[K, d]`` each.
    """
    z = learned.codes(depth, phi)
    low, high = z.min(1), z.max(1)
    margin = (high - low) // 2 + 3
    middle = np.median(z, axis=1).astype(np.int64)
    low, high = low - margin, high + margin
    first = np.clip(middle - MAX_SYMBOLS // 2, low, np.maximum(low, high - MAX_SYMBOLS + 1))
    return first, np.minimum(high, first + MAX_SYMBOLS - 1)
