"""Quantiser training, Algorithm 2: rate + lambda * distortion over frozen theta and modulations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from vcinr import config
from vcinr.coding.ans import Writer
from vcinr.errors import InputError
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import Model, freeze, load_model, save_model, with_quantiser
from vcinr.inr.residual import residual_parameters
from vcinr.meta.extract import torch_params
from vcinr.meta.inner import batch_of, signal_loss
from vcinr.meta.outer import schedule, write_history
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.quantise.entropy import FactorisedPrior
from vcinr.quantise.state import Quantiser, analyse, levels_of, synthesise
from vcinr.signals import Signals, fixed_points, read_signals


def train_quantiser(
    signals: str | Path, model: str | Path, modulations: str | Path, quantiser: config.Quantiser, *,
    seed: int, threads: int, out: str | Path, history: str | Path, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Train the quantiser of `model` on its `modulations` and write the completed model to `out`.

    Returns, for every split and rate, modelled and coded bits per value and the PSNR of what decodes.
    Raises InputError when the modulations belong to another model.
    """
    torch.set_num_threads(threads)
    data, artifact = read_signals(signals), load_model(model)
    root: Any = zarr.open_group(modulations, mode="r")
    if root.attrs.get("model") != artifact.sha256:
        raise InputError(f"{modulations}: modulations of another model; run the extract_modulations stage again")
    phi = {name: np.asarray(group["phi"][...], np.float32) for name, group in root.groups()}
    trained, rows = fit(artifact, data, phi, quantiser, seed=seed, watch=watch)
    save_model(trained, out)
    write_history(Path(history), rows)
    result = {"sha256": trained.sha256, "model_bytes": len(trained.data)}
    return {**result, "splits": {name: assess(trained, data, name, phi[name]) for name in phi}}


def fit(
    model: Model,
    data: Signals,
    phi: dict[str, np.ndarray],
    cfg: config.Quantiser,
    *,
    seed: int,
    watch: Watch = silent,
) -> tuple[Model, list[dict[str, float]]]:
    """The training loop; returns the completed model and its history."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    d, rates = model.spec.latent, len(cfg.lambdas)
    start = {name: model.params["phi_0"][data.variable_index(name)] for name in phi}
    moved = {name: values - start[name] for name, values in phi.items()}
    latents, origin = torch.from_numpy(moved["train"]), torch.from_numpy(start["train"])
    values = data.inputs.shape[0] * model.spec.d_out
    start_params, log_gain = _initial(rng, moved["train"], model, cfg, values)
    params = {k: torch.tensor(v, dtype=torch.float32) for k, v in start_params.items()}
    learned = [v.requires_grad_(True) for k, v in params.items() if k not in ("mean", "std")]
    prior = FactorisedPrior(rates, d, 4.0, generator)
    fast = [log_gain, *prior.parameters()]
    optimiser = torch.optim.Adam([{"params": learned, "lr": cfg.rate}, {"params": fast, "lr": 5 * cfg.rate}])
    theta, x = torch_params(model), torch.from_numpy(data.inputs)
    n = len(latents)
    batch, points = min(cfg.batch, n), len(x) if cfg.points == "all" else min(cfg.points, len(x))
    clock, history = Clock(cfg.steps), []
    for step in range(cfg.steps):
        for group, base in zip(optimiser.param_groups, (cfg.rate, 5 * cfg.rate), strict=True):
            group["lr"] = base * schedule(step, cfg.steps, 50)
        k = step % rates
        chosen = np.sort(rng.choice(n, batch, replace=False))
        where = np.sort(rng.choice(len(x), points, replace=False))
        y = analyse(params, cfg.depth, latents[chosen]) * torch.exp(log_gain[k])
        noisy = y + torch.rand(y.shape, generator=generator) - 0.5
        restored = synthesise(params, cfg.depth, noisy / torch.exp(log_gain[k]))
        rate = prior.bits(noisy, k).sum(-1).mean() / values
        if cfg.distortion == "signal":
            seen = batch_of(data, "train", x, chosen, where)
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

    arrays = {k: v.detach().numpy() for k, v in params.items()}
    gain = torch.exp(log_gain).detach().numpy()
    reached = np.concatenate([moved[name] for name in ("train", "valid") if name in moved])
    low, high = _supports(arrays, cfg.depth, gain, reached)
    offset, frequency = prior.tables(low, high)
    state = Quantiser(arrays, cfg.depth, gain, offset, levels_of(frequency))
    facts = {"lambdas": list(cfg.lambdas), "distortion": cfg.distortion}
    return freeze(with_quantiser(model, state.to_tensors(), {"quantiser": facts})), history


def assess(model: Model, data: Signals, split: str, phi: np.ndarray) -> list[dict[str, float]]:
    """Every rate on `split`: modelled and coded bits per value, mean PSNR of the NumPy decoder's output.

    On grids of more than the model's `encode_points` points the PSNR is that of a fixed random part of them.
    """
    quantiser = Quantiser.from_tensors(model.quantiser)
    x, start = data.inputs, model.params["phi_0"][data.variable_index(split)]
    counted = len(x) * model.spec.d_out
    where = fixed_points(len(x), model.encode_points)
    rows = []
    for rate in range(quantiser.rates):
        z = quantiser.quantise(phi - start, rate)
        writer = Writer()
        quantiser.write(writer, z, rate)
        restored, mse = start + quantiser.dequantise(z, rate), np.empty(len(z))
        for i in range(len(z)):
            y, weight = data.normalised(split, slice(i, i + 1))
            error = ((model.reconstruct(restored[i : i + 1], x[where]) - y[:, where]) ** 2).mean(-1)
            mse[i] = (error if weight is None else error * weight[:, where]).mean()
        rows.append(
            {
                "modelled_bits_per_value": quantiser.bits(z, rate) / (len(z) * counted),
                "coded_bits_per_value": 8 * len(writer.getvalue()) / (len(z) * counted),
                "psnr_db": float(np.mean(-10 * np.log10(np.maximum(mse, 1e-12)))),
            }
        )
    return rows


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
    for name in ("analysis", "synthesis"):
        params[f"{name}.in.weight"] = rng.standard_normal((cfg.width, d)) / np.sqrt(d)
        params[f"{name}.in.bias"] = np.zeros(cfg.width)
        params.update(residual_parameters(rng, f"{name}.block", cfg.depth, cfg.width, cfg.width))
        params[f"{name}.out.weight"] = np.zeros((d, cfg.width))
        params[f"{name}.out.bias"] = np.zeros(d)
    return params, log_gain.float()[:, None].repeat(1, d).requires_grad_(True)


def _supports(
    params: dict[str, np.ndarray], blocks: int, gain: np.ndarray, phi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Supports of the tables: what the training latents reach, and half as far again on each side."""
    y = np.rint(analyse(params, blocks, phi)[None] * gain[:, None, :]).astype(np.int64)
    low, high = y.min(1), y.max(1)
    margin = (high - low) // 2 + 3
    return low - margin, high + margin
