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
from vcinr.inr.at import ModelAt
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import Model, freeze
from vcinr.meta.extract import latents_of, torch_params
from vcinr.meta.inner import adapt, batch_of, inner_loop, signal_loss
from vcinr.meta.outer import device_of, in_principal_axes
from vcinr.progress import Watch
from vcinr.quantise.factorised import FactorisedPrior
from vcinr.quantise.variational import Group, Task, descend, learn, relax, through
from vcinr.signals import Signals

_STEPS = 3  # of an inner loop by gradient
_RATE = 0.03  # of theta's learning rate, as a part of the quantiser's: it has come a long way already


def fine_tune(
    model: Model, data: Signals, phi: dict[str, np.ndarray], cfg: config.Quantiser, *, seed: int, device: str = "cpu",
    seconds: float | None = None, watch: Watch,
) -> tuple[Model, dict[str, np.ndarray]]:  # fmt: skip
    """Train network and quantiser together for ``cfg.joint_steps``.

    Parameters
    ----------
    model, data : Model, Signals
        The meta-trained network, without a quantiser, and its signals.
    phi : dict
        Latents ``[N, d]`` by split.
    cfg : config.Quantiser
        How it is trained. The quantiser that takes part is factorised and of use here alone: the model's own is trained
        afterwards.
    seed, device
        As in meta-training.
    seconds : float, optional
        Time budget, half of it for that quantiser's own training.
    watch : callable
        Is told of progress.

    Returns
    -------
    model : Model
        The network after it.
    phi : dict
        The latents that are then right for it.

    Raises
    ------
    ConfigError
        For an inner loop that cannot be learned through.

    Notes
    -----
    After Pham, Yang and Mandt 2023, who train so from the start.
    """
    if not inner_loop(model.encode_loop).differentiable:
        raise ConfigError(
            f"quantiser.joint_steps: the inner loop {model.encode_loop} cannot be learned through; set joint_steps: 0"
        )
    start = {name: model.params["phi_0"][data.variable_index(name)] for name in phi}
    half = None if seconds is None else seconds / 2
    task = Task(model, data, {name: values - start[name] for name, values in phi.items()}, device, half)
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
    groups: list[Group] = [
        ([v for v in theta.values() if v.requires_grad], _RATE),
        (networks, 1.0),
        ([log_gain, *prior.parameters()], 5.0),
    ]
    generator, rng = torch.Generator().manual_seed(seed + 1), np.random.default_rng(seed + 1)
    relaxed = partial(relax, how=cfg.relaxation, generator=generator)
    x = torch.from_numpy(data.inputs).to(place)

    def objective(k: int, chosen: np.ndarray, where: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        seen = batch_of(data, "train", x, chosen, where)
        found = adapt(model.spec, theta, seen, _STEPS, loop=model.encode_loop, create_graph=True)
        origin = theta["phi_0"][seen.variable]
        codes, restored = through(params, cfg.depth, torch.exp(log_gain[k]), found - origin, relaxed)
        rate = prior(codes, k, relaxed).mean() / task.values
        return rate, signal_loss(model.spec, theta, origin + restored, seen).mean()

    # A head with as many numbers as there are points fits anything: the solve needs more than that.
    points = cfg.points if cfg.points == "all" else max(cfg.points, 16 * d)
    history = descend(
        task, cfg, groups, objective, rng, steps=cfg.joint_steps, points=points, stage="joint", watch=watch
    )
    arrays = {k: v.detach().cpu().numpy() for k, v in theta.items()}
    if conditioning(model.spec.conditioning).linear:
        arrays = in_principal_axes(model.spec, arrays, data, x.cpu())
    facts = {**model.provenance, "joint_steps": int(history[-1]["step"])}
    tuned = freeze(replace(model, params=arrays, provenance=facts))
    at = ModelAt(tuned, data.inputs)
    return tuned, {name: latents_of(at, data, name, device=place) for name in phi}
