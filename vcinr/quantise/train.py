"""Training of a quantiser of any kind on a frozen network and its latents, and an assessment of the result."""

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
from vcinr.inr.at import ModelAt, slack_of
from vcinr.inr.model import Model, freeze, load_model, save_model, with_quantiser
from vcinr.meta.outer import write_history
from vcinr.meta.ranks import ALONE, Ranks
from vcinr.plugins import lookup
from vcinr.progress import Watch, silent
from vcinr.quality import psnr_of
from vcinr.quantise import factorised, hyperprior, uniform
from vcinr.quantise.joint import fine_tune
from vcinr.quantise.state import Quantiser, coders_of
from vcinr.quantise.variational import History, Task
from vcinr.signals import Signals, fixed_known_points, fixed_points, read_signals

KINDS: Mapping[str, Any] = {
    "uniform": uniform.train,
    "factorised": factorised.train,
    "hyperprior": hyperprior.train,
}
"""The built-in kinds of quantiser."""

_SAMPLE, _POINTS = 16, 1024  # numbers of signals and points at which the decoder's slack is measured
_MOST_SLACK = 0.01  # as a fraction of the range; with more, hardly any error bound could be kept


def train_quantiser(
    signals: str | Path, model: str | Path, modulations: str | Path, quantiser: config.Quantiser, *,
    seed: int, threads: int, out: str | Path, history: str | Path, device: str = "cpu", seconds: float | None = None,
    memory: float | None = None, ranks: Ranks = ALONE, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Train the quantiser of a model and write the completed model.

    Parameters
    ----------
    signals, model, modulations : str or Path
        What the earlier stages wrote: the signals, the meta-trained network, and its latents of these signals.
    quantiser : config.Quantiser
        The kind of quantiser and how to train it. With ``joint_steps`` the network is fine-tuned first, and the given
        modulations are not those of the completed model.
    seed, threads, device
        As in meta-training.
    out, history : str or Path
        Files to write: the model, and the learning curve (CSV).
    seconds : float, optional
        Time budget of the training; without one the result is deterministic.
    memory, ranks
        As in meta-training.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        The model's size and digest; and for every split and rate the modelled and the coded bits per value, and the
        PSNR of what decodes.

    Raises
    ------
    InputError
        Where the modulations belong to another model.
    """
    torch.set_num_threads(threads)
    data, artifact = read_signals(signals, memory), load_model(model)
    watch = watch if ranks.first else silent
    root: Any = zarr.open_group(modulations, mode="r")
    if root.attrs.get("model") != artifact.sha256:
        raise InputError(f"{modulations}: modulations of another model; run the extract_modulations stage again")
    phi = {name: np.asarray(group["phi"][...], np.float32) for name, group in root.groups()}
    if quantiser.joint_steps:
        seconds = None if seconds is None else seconds / 2
        artifact, phi = fine_tune(
            artifact, data, phi, quantiser, seed=seed, device=device, seconds=seconds, ranks=ranks, watch=watch
        )
    trained, rows = fit(
        artifact, data, phi, quantiser, seed=seed, device=device, seconds=seconds, ranks=ranks, watch=watch
    )

    def written() -> dict[str, Any]:
        save_model(trained, out)
        write_history(Path(history), rows)
        result = {"sha256": trained.sha256, "model_bytes": len(trained.data)}
        return {**result, "splits": {name: assess(trained, data, name, phi[name]) for name in phi}}

    return ranks.once(written)


def fit(
    model: Model, data: Signals, phi: dict[str, np.ndarray], cfg: config.Quantiser, *, seed: int, device: str = "cpu",
    seconds: float | None = None, ranks: Ranks = ALONE, watch: Watch = silent,
) -> tuple[Model, History]:  # fmt: skip
    """Train a quantiser and complete a model with it.

    Parameters
    ----------
    model, data : Model, Signals
        The network and its signals.
    phi : dict
        Latents ``[N, d]`` of each split.
    cfg : config.Quantiser
        Names the kind: a function ``(task, cfg, *, seed, watch) -> (Quantiser, History)``, one of `KINDS` or an entry
        point of the group ``vcinr.quantisers``.
    seed, device, seconds, ranks, watch
        As in `train_quantiser`.

    Returns
    -------
    model : Model
        The completed model.
    history : History
        The quantiser's learning curve.

    Raises
    ------
    ConfigError
        For an unknown kind, and for a network that amplifies rounding errors too much for any error bound.
    """
    train = lookup("quantisers", KINDS, cfg.kind)
    start = {name: model.params["phi_0"][data.variable_index(name)] for name in phi}
    task = Task(model, data, {name: values - start[name] for name, values in phi.items()}, device, seconds, ranks)
    state, history = train(task, cfg, seed=seed, watch=watch)
    state = replace(state, coders=coders_of(cfg.coder, state.hyper))
    rates = {"bits": list(cfg.bits)} if cfg.kind == "uniform" else {"lambdas": list(cfg.lambdas)}
    facts: dict[str, Any] = {"kind": cfg.kind, **rates, "distortion": cfg.distortion}
    if seconds is not None and cfg.kind != "uniform":
        facts["steps"] = int(history[-1]["step"])
    sample = phi["train"][:: max(1, len(phi["train"]) // _SAMPLE)]
    slack = slack_of(model, sample, data.inputs[fixed_points(data.points, _POINTS)])
    if not slack < _MOST_SLACK:
        raise ConfigError(
            f"the network amplifies float32 rounding to {slack:.1e} of the range, too much for any bound; lower "
            "inr.omega_0, inr.depth or the training rates"
        )
    model = replace(model, slack=slack)
    return freeze(with_quantiser(model, state.to_tensors(), {"quantiser": facts})), history


def assess(model: Model, data: Signals, split: str, phi: np.ndarray) -> list[dict[str, float]]:
    """What each rate costs, and how good it is, on the signals of a split.

    Parameters
    ----------
    model : Model
        With its quantiser.
    data : Signals
        Where the signals come from.
    split : str
        Name of the split.
    phi : numpy.ndarray
        Its latents ``[N, d]``.

    Returns
    -------
    list of dict
        For each rate: bits per value as modelled by the static tables; bits per value as coded, with all signals as
        successive times; and the mean PSNR in dB of the NumPy decoder's output. On grids of more than the model's
        `encode_points` points the PSNR is that of a fixed random part of them.
    """
    quantiser = Quantiser.from_tensors(model.quantiser)
    start = model.params["phi_0"][data.variable_index(split)]
    where = fixed_known_points(data, split, model.encode_points)
    at, values = ModelAt(model, data.inputs[where]), len(phi) * data.points * model.spec.d_out
    codes = [quantiser.quantise(phi - start, rate) for rate in range(quantiser.rates)]
    restored = [start + quantiser.dequantise(z, rate) for rate, z in enumerate(codes)]
    mse = np.empty((quantiser.rates, len(phi)))
    for i in range(len(phi)):
        y, weight = data.sampled(split, slice(i, i + 1), where)
        for rate in range(quantiser.rates):
            error = ((at.reconstruct(restored[rate][i : i + 1]) - y) ** 2).mean(-1)
            mse[rate, i] = (error if weight is None else error * weight).mean()
    return [
        {
            "modelled_bits_per_value": quantiser.bits(z, rate) / values,
            "coded_bits_per_value": 8 * len(quantiser.code(z[:, None], rate)[1]) / values,
            "psnr_db": float(np.mean(psnr_of(mse[rate]))),
        }
        for rate, z in enumerate(codes)
    ]
