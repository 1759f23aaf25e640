"""Joint rate-distortion fine-tuning: the network learns on, with the quantiser's noise in its latents.

Two frozen stages (Schwarz et al. 2023, Algorithms 1 and 2) leave the network unaware of what its latents cost. Here
theta, gains and entropy model together minimise rate + lambda * distortion, through the inner loop (after Pham, Yang &
Mandt 2023, who train so from the start).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from vcinr import config
from vcinr.errors import ConfigError
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import Model, freeze
from vcinr.meta.extract import find_latents, torch_params
from vcinr.meta.inner import adapt, batch_of, inner_loop, signal_loss
from vcinr.meta.outer import device_of, in_principal_axes, schedule
from vcinr.progress import Clock, Progress, Watch
from vcinr.quantise.factorised import FactorisedPrior
from vcinr.quantise.variational import Task, learn, relax, through
from vcinr.signals import Signals

_STEPS = 3  # of an inner loop by gradient
_RATE = 0.03  # of theta's learning rate, as a part of the quantiser's: it has come a long way already


def fine_tune(
    model: Model, data: Signals, phi: dict[str, np.ndarray], cfg: config.Quantiser, *, seed: int, device: str = "cpu",
    watch: Watch,
) -> tuple[Model, dict[str, np.ndarray]]:  # fmt: skip
    """`model` after ``cfg.joint_steps`` more, and the latents ``[N, d]`` of every split that are then right for it.

    The quantiser that takes part is factorised and of use here alone: the model's is trained afterwards.
    """
    if not inner_loop(model.encode_loop).differentiable:
        raise ConfigError(
            f"quantiser.joint_steps: the inner loop {model.encode_loop} cannot be learned through; set joint_steps: 0"
        )
    start = {name: model.params["phi_0"][data.variable_index(name)] for name in phi}
    task = Task(model, data, {name: values - start[name] for name, values in phi.items()}, device)
    rates, d = len(cfg.lambdas), model.spec.latent
    learned = learn(task, cfg, lambda _, g: FactorisedPrior(rates, d, 4.0, g), seed=seed, watch=watch)
    place = device_of(device)
    params = {k: torch.from_numpy(v).to(place) for k, v in learned.params.items()}
    log_gain = torch.log(torch.from_numpy(learned.gain).to(place)).requires_grad_(True)
    prior = learned.prior.to(place)
    fixed = ("alpha", "phi_0")
    theta = {k: v.clone() for k, v in torch_params(model, place).items()}
    for name, tensor in theta.items():
        tensor.requires_grad_(tensor.is_floating_point() and name not in fixed)
    networks = [v.requires_grad_(True) for k, v in params.items() if k not in ("mean", "std")]
    groups = [
        ([v for v in theta.values() if v.requires_grad], _RATE),
        (networks, 1.0),
        ([log_gain, *prior.parameters()], 5.0),
    ]
    optimiser = torch.optim.Adam([{"params": p, "lr": cfg.rate * factor} for p, factor in groups])
    generator, rng = torch.Generator().manual_seed(seed + 1), np.random.default_rng(seed + 1)
    relaxed = partial(relax, how=cfg.relaxation, generator=generator)
    x, n = torch.from_numpy(data.inputs).to(place), len(data.splits["train"])
    # A head with as many numbers as there are points fits anything: the solve needs more than that.
    points = len(x) if cfg.points == "all" else min(max(cfg.points, 16 * d), len(x))
    clock = Clock(cfg.joint_steps)
    for step in range(cfg.joint_steps):
        for group, (_, factor) in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = factor * cfg.rate * schedule(step, cfg.joint_steps, 50)
        k = step % rates
        chosen = np.sort(rng.choice(n, min(cfg.batch, n), replace=False))
        seen = batch_of(data, "train", x, chosen, np.sort(rng.choice(len(x), points, replace=False)))
        found = adapt(model.spec, theta, seen, _STEPS, loop=model.encode_loop, create_graph=True)
        origin = theta["phi_0"][seen.variable]
        codes, restored = through(params, cfg.depth, torch.exp(log_gain[k]), found - origin, relaxed)
        rate = prior(codes, k, relaxed).mean() / task.values
        distortion = signal_loss(model.spec, theta, origin + restored, seen).mean()
        optimiser.zero_grad()
        (rate + cfg.lambdas[k] * distortion).backward()
        torch.nn.utils.clip_grad_norm_([v for group, _ in groups for v in group], cfg.clip)
        optimiser.step()
        if (step + 1) % max(1, cfg.joint_steps // 20) == 0:
            shown = {"bits_per_value": rate.item(), "distortion": distortion.item()}
            watch(Progress("joint", step + 1, cfg.joint_steps, shown, clock.left(step + 1)))
    arrays = {k: v.detach().cpu().numpy() for k, v in theta.items()}
    if conditioning(model.spec.conditioning).linear:
        arrays = in_principal_axes(model.spec, arrays, data, x.cpu())
    tuned = freeze(replace(model, params=arrays, provenance={**model.provenance, "joint_steps": cfg.joint_steps}))
    return tuned, {name: _latents(tuned, data, name, place) for name in phi}


def _latents(model: Model, data: Signals, split: str, device: torch.device) -> np.ndarray:
    """phi ``[N, d]`` of every signal of a split."""
    variable, found = data.variable_index(split), []
    for i in range(0, len(variable), 16):
        y, weight = data.normalised(split, slice(i, i + 16))
        found.append(find_latents(model, data.inputs, y, weight, variable[i : i + 16], device=device))
    return np.concatenate(found)
