"""Joint rate-distortion fine-tuning: the network learns on, with the quantiser's noise in its latents.

After two separate stages (Schwarz et al. 2023, Algorithms 1 and 2) the network does not know what its latents cost.
Here theta, gains and entropy model together minimise rate + lambda * distortion, through the inner loop (after Pham,
Yang & Mandt 2023, who train so from the start).
"""

from __future__ import annotations

from dataclasses import replace

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
from vcinr.meta.ranks import ALONE, Ranks
from vcinr.progress import Watch
from vcinr.quantise.factorised import FactorisedPrior
from vcinr.quantise.variational import Group, Relaxation, Task, descend, learn, through
from vcinr.signals import Signals

_STEPS = 3  # steps of a gradient inner loop
_RATE = 0.03  # theta's learning rate relative to the quantiser's; small, since theta is trained already


def fine_tune(
    model: Model, data: Signals, phi: dict[str, np.ndarray], cfg: config.Quantiser, *, seed: int, device: str = "cpu",
    seconds: float | None = None, ranks: Ranks = ALONE, watch: Watch,
) -> tuple[Model, dict[str, np.ndarray]]:  # fmt: skip
    """Train network and quantiser together for ``cfg.joint_steps`` steps.

    Parameters
    ----------
    model, data : Model, Signals
        The meta-trained network, without a quantiser, and its signals.
    phi : dict
        Latents ``[N, d]`` of each split.
    cfg : config.Quantiser
        How to train. A factorised quantiser takes part for this purpose only; the model's own is trained afterwards.
    seed, device
        As in meta-training.
    seconds : float, optional
        Time budget. Half of it is for training that factorised quantiser beforehand.
    ranks : Ranks
        The processes that train together.
    watch : callable
        Is told of progress.

    Returns
    -------
    model : Model
        The fine-tuned network.
    phi : dict
        Its latents of the same signals.

    Raises
    ------
    ConfigError
        For an inner loop that is not differentiable.

    Notes
    -----
    After Pham, Yang and Mandt 2023, who train so from the start.
    """
    if not inner_loop(model.encode_loop).differentiable:
        raise ConfigError(
            f"quantiser.joint_steps: the inner loop {model.encode_loop} cannot be learned through; set joint_steps: 0"
        )
    start = {name: model.params["phi_0"][data.variable_index(name)] for name in phi}
    learning_seconds = None if seconds is None else seconds / 2
    latents = {name: values - start[name] for name, values in phi.items()}
    task = Task(model, data, latents, device, learning_seconds, ranks)
    rates, d = len(cfg.lambdas), model.spec.latent
    learned = learn(task, cfg, lambda _, g: FactorisedPrior(rates, d, 4.0, g), seed=seed, watch=watch)
    torch_device = device_of(device)
    params = {k: torch.from_numpy(v).to(torch_device) for k, v in learned.params.items()}
    log_gain = torch.log(torch.from_numpy(learned.gain).to(torch_device)).requires_grad_(True)
    prior = learned.prior.to(torch_device)
    fixed = ("alpha", "phi_0")
    theta = {k: v.clone() for k, v in torch_params(model, torch_device).items()}
    for name, tensor in theta.items():
        tensor.requires_grad_(tensor.is_floating_point() and name not in fixed)
    networks = [v.requires_grad_(True) for k, v in params.items() if k not in ("mean", "std")]
    groups: list[Group] = [
        ([v for v in theta.values() if v.requires_grad], _RATE),
        (networks, 1.0),
        ([log_gain, *prior.parameters()], 5.0),
    ]
    generator, rng = torch.Generator().manual_seed(seed + 1), np.random.default_rng(seed + 1)
    x = torch.from_numpy(data.inputs).to(torch_device)

    def objective(
        k: int, chosen: np.ndarray, where: np.ndarray, relaxed: Relaxation
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        batch = batch_of(data, "train", x, chosen, where)
        phi_found = adapt(model.spec, theta, batch, _STEPS, loop=model.encode_loop, create_graph=True)
        origin = theta["phi_0"][batch.variable]
        codes, restored = through(params, cfg.depth, torch.exp(log_gain[k]), phi_found - origin, relaxed)
        rate = prior(codes, k, relaxed).mean() / task.values
        return rate, signal_loss(model.spec, theta, origin + restored, batch).mean()

    # A linear head fits anything where there are as many latents as points: the solve needs many more points.
    points = cfg.points if cfg.points == "all" else max(cfg.points, 16 * d)
    history = descend(
        task, cfg, groups, objective, rng, generator, steps=cfg.joint_steps, points=points, stage="joint", watch=watch
    )
    arrays = {k: v.detach().cpu().numpy() for k, v in theta.items()}
    if conditioning(model.spec.conditioning).linear:
        arrays = in_principal_axes(model.spec, arrays, data, x.cpu(), ranks)
    facts = {**model.provenance, "joint_steps": int(history[-1]["step"])}
    tuned = freeze(replace(model, params=arrays, provenance=facts))
    at = ModelAt(tuned, data.inputs)
    return tuned, ranks.once(lambda: {name: latents_of(at, data, name, device=torch_device) for name in phi})
