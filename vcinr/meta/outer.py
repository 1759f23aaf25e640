"""Outer loop of Algorithm 1: learn theta, phi_0 and the step sizes by backpropagation through the inner loop."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vcinr.config import Inr, Meta
from vcinr.errors import InputError
from vcinr.inr.model import Model, freeze, save_model
from vcinr.inr.siren import initialise
from vcinr.inr.spec import InrSpec
from vcinr.meta.checkpoint import load_checkpoint, save_checkpoint
from vcinr.meta.inner import adapt, signal_loss
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.signals import Signals, coordinates, read_signals

HISTORY = ("step", "seconds", "train_loss", "train_psnr_db", "valid_psnr_db")


def meta_train(
    signals: str | Path | Signals,
    inr: Inr,
    meta: Meta,
    *,
    seed: int,
    threads: int,
    out: str | Path,
    checkpoint: str | Path,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Meta-train an INR and write ``out/model.vcinr`` and ``out/history.csv``.

    The best-validation parameters are kept. `checkpoint` is written at every validation; a run that finds one
    of the same data, parameters and seed goes on from it, any other is ignored. Returns a summary.
    """
    torch.set_num_threads(threads)
    data = signals if isinstance(signals, Signals) else read_signals(signals)
    train = data.splits["train"]
    if len(train) == 0:
        raise InputError("the training split holds no signal; widen the source's train selection")
    spec = InrSpec(
        coordinates.dimension(data.system), train.features.shape[-1], inr.width, inr.depth, inr.omega_0, inr.latent,
        inr.conditioning, inr.rank, inr.mapping_width, inr.mapping_blocks,
    )  # fmt: skip
    fingerprint = _fingerprint(data, inr, meta, seed)
    state = load_checkpoint(checkpoint, fingerprint)
    if state is None:
        arrays = initialise(spec, seed)
        arrays["alpha"] = np.full(spec.latent, meta.inner_rate, np.float32)
        parameters = {k: torch.tensor(v, requires_grad=True) for k, v in arrays.items()}
        rng, done, best, best_psnr, history = np.random.default_rng(seed), 0, None, -math.inf, []
        optimiser = _optimiser(parameters, meta)
    else:
        parameters = {k: v.requires_grad_(True) for k, v in state["parameters"].items()}
        rng = np.random.default_rng()
        rng.bit_generator.state = state["rng"]
        done, best, best_psnr, history = state["step"], state["best"], state["best_psnr"], state["history"]
        optimiser = _optimiser(parameters, meta)
        optimiser.load_state_dict(state["optimiser"])
        watch(Progress("meta-train", done, meta.steps, {"resumed_valid_psnr_db": best_psnr}))

    x = torch.from_numpy(data.inputs)
    held_x, held_y, held_weight = _validation(data, x)
    clock = Clock(meta.steps, done)
    spent = history[-1]["seconds"] if history else 0.0
    batch = min(meta.batch, len(train))
    points = min(meta.points or len(x), len(x))
    for step in range(done, meta.steps):
        for group, base in zip(optimiser.param_groups, _rates(meta), strict=True):
            group["lr"] = base * schedule(step, meta.steps, meta.warmup)
        chosen = np.sort(rng.choice(len(train), batch, replace=False))
        where = np.sort(rng.choice(len(x), points, replace=False))
        y, weight = data.normalised("train", chosen)
        loss = meta_step(
            spec, parameters, x[where], torch.from_numpy(y[:, where]),
            None if weight is None else torch.from_numpy(weight[:, where]), meta.inner_steps,
        )  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), meta.clip)
        optimiser.step()
        with torch.no_grad():
            parameters["alpha"].clamp_(min=0.0)  # a negative step size climbs the loss
        if (step + 1) % meta.validate_every == 0 or step + 1 == meta.steps:
            valid = validate(spec, parameters, held_x, held_y, held_weight, meta.inner_steps)
            if valid > best_psnr:
                best, best_psnr = {k: v.detach().clone() for k, v in parameters.items()}, valid
            left = clock.left(step + 1)
            seconds = spent + clock.spent
            mse = max(loss.item(), 1e-12)
            row = (step + 1, round(seconds, 2), mse, -10 * math.log10(mse), valid)
            history.append(dict(zip(HISTORY, row, strict=True)))
            watch(Progress("meta-train", step + 1, meta.steps, dict(zip(HISTORY[2:], row[2:], strict=True)), left))
            save_checkpoint(
                checkpoint, fingerprint,
                {
                    "parameters": {k: v.detach() for k, v in parameters.items()},
                    "optimiser": optimiser.state_dict(), "rng": rng.bit_generator.state, "step": step + 1,
                    "best": best, "best_psnr": best_psnr, "history": history,
                },
            )  # fmt: skip
    assert best is not None
    model = freeze(
        Model(
            spec, {k: v.numpy() for k, v in best.items()}, data.system, data.dims, data.normalisation,
            meta.encode_steps, {}, {"method": "vc-inr", "seed": seed, "steps": meta.steps, **data.attrs},
        )
    )  # fmt: skip
    _write(Path(out), model, history)
    return {"valid_psnr_db": best_psnr, "model_bytes": len(model.data), "sha256": model.sha256,
            "parameters": sum(v.size for v in model.params.values()), "seconds": history[-1]["seconds"]}  # fmt: skip


def meta_step(
    spec: InrSpec, parameters: Mapping[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor,
    weight: torch.Tensor | None, inner_steps: int,
) -> torch.Tensor:  # fmt: skip
    """The outer loss: mean over the batch of L(phi after the inner loop), differentiable in every parameter."""
    phi = adapt(spec, parameters, x, y, weight, inner_steps, create_graph=True)
    return signal_loss(spec, parameters, phi, x, y, weight).mean()


def psnr(
    spec: InrSpec, parameters: Mapping[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor,
    weight: torch.Tensor | None, phi: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """PSNR in dB of each signal at its phi (peak 1, the training range), ``[B]``."""
    with torch.no_grad():
        return -10.0 * torch.log10(signal_loss(spec, parameters, phi, x, y, weight).clamp_min(1e-12))


def validate(
    spec: InrSpec, parameters: Mapping[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor,
    weight: torch.Tensor | None, steps: int,
) -> float:  # fmt: skip
    """Mean PSNR in dB after adaptation."""
    frozen = {k: v.detach() for k, v in parameters.items()}
    phi = adapt(spec, frozen, x, y, weight, steps, create_graph=False)
    return float(psnr(spec, frozen, x, y, weight, phi).mean())


def _validation(data: Signals, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """At most 32 held-out signals at 2,048 fixed points: validation must not outweigh training on large grids."""
    split = "valid" if len(data.splits["valid"]) else "train"
    chosen = np.unique(np.linspace(0, len(data.splits[split]) - 1, 32).astype(int))
    where = np.sort(np.random.default_rng(0).choice(len(x), min(len(x), 2048), replace=False))
    y, weight = data.normalised(split, chosen)
    held = None if weight is None else torch.from_numpy(weight[:, where])
    return x[where], torch.from_numpy(y[:, where]), held


def schedule(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then cosine decay to zero, as a factor on the outer rates."""
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _rates(meta: Meta) -> tuple[float, float]:
    # Adam moves by about its rate whatever the gradient, so step sizes of hundreds need a rate of their own scale.
    return meta.outer_rate, 0.3 * meta.outer_rate * meta.inner_rate


def _optimiser(parameters: Mapping[str, torch.Tensor], meta: Meta) -> torch.optim.Adam:
    main, alpha = _rates(meta)
    rest = [v for k, v in parameters.items() if k != "alpha"]
    return torch.optim.Adam([{"params": rest, "lr": main}, {"params": [parameters["alpha"]], "lr": alpha}])


def _fingerprint(data: Signals, inr: Inr, meta: Meta, seed: int) -> str:
    digest = hashlib.sha256(json.dumps([inr.model_dump(), meta.model_dump(), seed, data.system]).encode())
    digest.update(json.dumps(data.normalisation).encode())
    for split in ("train", "valid"):
        digest.update(np.ascontiguousarray(data.splits[split].features).tobytes())
    return digest.hexdigest()


def _write(out: Path, model: Model, history: list[dict[str, float]]) -> None:
    temporary = out.with_name(out.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_model(model, temporary / "model.vcinr")
    write_history(temporary / "history.csv", history)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write rows of figures as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
