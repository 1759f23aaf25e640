"""Quantiser training over frozen theta and modulations, by any kind of quantiser, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from vcinr import config
from vcinr.errors import ConfigError, InputError
from vcinr.inr.model import Model, freeze, load_model, save_model, slack_of, with_quantiser
from vcinr.meta.outer import write_history
from vcinr.plugins import lookup
from vcinr.progress import Watch, silent
from vcinr.quantise import factorised, hyperprior, uniform
from vcinr.quantise.joint import fine_tune
from vcinr.quantise.state import Quantiser, coders_of
from vcinr.quantise.variational import History, Task
from vcinr.signals import Signals, fixed_points, read_signals

KINDS: Mapping[str, Any] = {
    "uniform": uniform.train,
    "factorised": factorised.train,
    "hyperprior": hyperprior.train,
}


_SAMPLE, _POINTS = 16, 1024  # signals and points that the decoder's slack is measured at
_MOST_SLACK = 0.01


def train_quantiser(
    signals: str | Path, model: str | Path, modulations: str | Path, quantiser: config.Quantiser, *,
    seed: int, threads: int, out: str | Path, history: str | Path, device: str = "cpu", watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Train the quantiser of `model` on its `modulations` and write the completed model to `out`.

    With ``joint_steps`` the network is fine-tuned first, and the completed model's modulations are no longer those.

    Returns, for every split and rate, modelled and coded bits per value and the PSNR of what decodes.
    Raises InputError when the modulations belong to another model.
    """
    torch.set_num_threads(threads)
    data, artifact = read_signals(signals), load_model(model)
    root: Any = zarr.open_group(modulations, mode="r")
    if root.attrs.get("model") != artifact.sha256:
        raise InputError(f"{modulations}: modulations of another model; run the extract_modulations stage again")
    phi = {name: np.asarray(group["phi"][...], np.float32) for name, group in root.groups()}
    if quantiser.joint_steps:
        artifact, phi = fine_tune(artifact, data, phi, quantiser, seed=seed, device=device, watch=watch)
    trained, rows = fit(artifact, data, phi, quantiser, seed=seed, device=device, watch=watch)
    save_model(trained, out)
    write_history(Path(history), rows)
    result = {"sha256": trained.sha256, "model_bytes": len(trained.data)}
    return {**result, "splits": {name: assess(trained, data, name, phi[name]) for name in phi}}


def fit(
    model: Model, data: Signals, phi: dict[str, np.ndarray], cfg: config.Quantiser, *, seed: int, device: str = "cpu",
    watch: Watch = silent,
) -> tuple[Model, History]:  # fmt: skip
    """`model` completed by a quantiser of the kind that `cfg` names, and how it was found.

    phi: latents ``[N, d]`` by split. A kind is a function ``(task, cfg, *, seed, watch) -> (Quantiser, History)``,
    one of `KINDS` or an entry point of the group ``vcinr.quantisers``. Raises ConfigError for one that is not known.
    """
    train = lookup("quantisers", KINDS, cfg.kind)
    start = {name: model.params["phi_0"][data.variable_index(name)] for name in phi}
    task = Task(model, data, {name: values - start[name] for name, values in phi.items()}, device)
    state, history = train(task, cfg, seed=seed, watch=watch)
    state = replace(state, coders=coders_of(cfg.coder, state.hyper))
    rates = {"bits": list(cfg.bits)} if cfg.kind == "uniform" else {"lambdas": list(cfg.lambdas)}
    facts = {"kind": cfg.kind, **rates, "distortion": cfg.distortion}
    sample = phi["train"][:: max(1, len(phi["train"]) // _SAMPLE)]
    slack = slack_of(model, sample, data.inputs[fixed_points(len(data.inputs), _POINTS)])
    if not slack < _MOST_SLACK:
        raise ConfigError(
            f"the network amplifies float32 rounding to {slack:.1e} of the range, too much for any bound; lower "
            "inr.omega_0, inr.depth or the training rates"
        )
    model = replace(model, slack=slack)
    return freeze(with_quantiser(model, state.to_tensors(), {"quantiser": facts})), history


def assess(model: Model, data: Signals, split: str, phi: np.ndarray) -> list[dict[str, float]]:
    """Every rate on `split`: modelled and coded bits per value, mean PSNR of the NumPy decoder's output.

    Modelled are the static tables' bits, coded is what all signals of the split take together, as successive times.
    On grids of more than the model's `encode_points` points the PSNR is that of a fixed random part of them.
    """
    quantiser = Quantiser.from_tensors(model.quantiser)
    x, start = data.inputs, model.params["phi_0"][data.variable_index(split)]
    counted = len(x) * model.spec.d_out
    where = fixed_points(len(x), model.encode_points)
    rows = []
    for rate in range(quantiser.rates):
        z = quantiser.quantise(phi - start, rate)
        coded = quantiser.code(z[:, None], rate)[1]
        restored, mse = start + quantiser.dequantise(z, rate), np.empty(len(z))
        for i in range(len(z)):
            y, weight = data.normalised(split, slice(i, i + 1))
            error = ((model.reconstruct(restored[i : i + 1], x[where]) - y[:, where]) ** 2).mean(-1)
            mse[i] = (error if weight is None else error * weight[:, where]).mean()
        rows.append(
            {
                "modelled_bits_per_value": quantiser.bits(z, rate) / (len(z) * counted),
                "coded_bits_per_value": 8 * len(coded) / (len(z) * counted),
                "psnr_db": float(np.mean(-10 * np.log10(np.maximum(mse, 1e-12)))),
            }
        )
    return rows
