"""The three stages from signals to a model, for networks that latents modulate and for experts for patches alike.

The pipeline's flows run them one by one, `vcinr.training.train` one after another. A network is meta-trained, its
latents are extracted, and its quantiser learns from these. Experts are found in closed form, and their steps are fixed:
the third stage assesses them and completes the model as it is.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vcinr.config import Params
from vcinr.meta.extract import extract_modulations
from vcinr.meta.outer import meta_train
from vcinr.meta.ranks import ALONE, Ranks
from vcinr.models import load_model
from vcinr.patches.model import PatchModel
from vcinr.patches.train import assess, extract_codes, train_patches
from vcinr.places import written_aside
from vcinr.processes import in_processes
from vcinr.progress import Watch, silent
from vcinr.quantise.train import train_quantiser

TRAINED, HISTORY = "model.vcinr", "history.csv"
"""Files of the folder that `learn` writes."""


def learn(
    params: Params, signals: Path, out: Path, checkpoint: Path, *, seconds: float | None, ranks: Ranks = ALONE,
    watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Stage 2: learn what signals share.

    Parameters
    ----------
    params : Params
        The method and its parameters.
    signals : Path
        A store of signals.
    out : Path
        Folder for the model, `TRAINED`, and the learning curves, `HISTORY`.
    checkpoint : Path
        From which an interrupted training of a network goes on.
    seconds : float or None
        Time budget of a network's training.
    ranks : Ranks
        The processes that call this function together. A process that is alone starts others where the parameters ask
        for more than one.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        A JSON-able summary.
    """
    if params.method == "experts":
        return ranks.once(lambda: _learn_experts(params, signals, out, watch))
    if ranks.world == 1 and params.processes > 1:
        paths = {"signals": signals, "out": out, "checkpoint": checkpoint}
        return in_processes("learn", params, paths, seconds, watch)
    return meta_train(
        signals, params.inr, params.meta, seed=params.seed, threads=params.threads, out=out, checkpoint=checkpoint,
        device=params.device, seconds=seconds, memory=params.memory, ranks=ranks, watch=watch,
    )  # fmt: skip


def _learn_experts(params: Params, signals: Path, out: Path, watch: Watch) -> dict[str, Any]:
    """`learn` for experts."""
    facts = train_patches(signals, params.patches, seed=params.seed, out=out / TRAINED, watch=watch)
    history = facts.pop("history")
    _write_rows(out / HISTORY, history)
    return {**facts, "bits_per_value": history[-1]["bits_per_value"]}


def extract(params: Params, signals: Path, trained: Path, out: Path, watch: Watch = silent) -> dict[str, Any]:
    """Stage 3: write the latents of all signals, or the experts and codes of all patches, to the Zarr store `out`.

    Parameters are those of `learn`; `trained` is the model that it wrote.
    """
    if params.method != "experts":
        return extract_modulations(
            signals, trained, out, threads=params.threads, device=params.device, memory=params.memory, watch=watch
        )
    return extract_codes(signals, _patch_model(trained), out, psnr=params.patches.psnr, watch=watch)


def complete(
    params: Params, signals: Path, trained: Path, modulations: Path, out: Path, history: Path, *,
    seconds: float | None, ranks: Ranks = ALONE, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Stage 4: train the quantiser of a network, or assess experts, and write the complete model.

    Parameters
    ----------
    params, signals, seconds, ranks, watch
        As in `learn`.
    trained, modulations : Path
        What `learn` and `extract` wrote; experts need no modulations.
    out : Path
        The model file to write.
    history : Path
        CSV file for the quantiser's learning curves, or for the bits per value and the PSNR of experts by rate.

    Returns
    -------
    dict
        A JSON-able summary.
    """
    if params.method == "experts":
        return ranks.once(lambda: _complete_experts(signals, trained, out, history, watch))
    if ranks.world == 1 and params.processes > 1:
        paths = {"signals": signals, "trained": trained, "modulations": modulations, "out": out, "history": history}
        return in_processes("complete", params, paths, seconds, watch)
    return train_quantiser(
        signals, trained, modulations, params.quantiser, seed=params.seed, threads=params.threads, out=out,
        history=history, device=params.device, seconds=seconds, memory=params.memory, ranks=ranks, watch=watch,
    )  # fmt: skip


def _complete_experts(signals: Path, trained: Path, out: Path, history: Path, watch: Watch) -> dict[str, Any]:
    """`complete` for experts."""
    model = _patch_model(trained)
    rows = assess(signals, model, watch)
    _write_rows(history, [{"step": row["rate"], **row} for row in rows])
    with written_aside(out) as aside:
        aside.write_bytes(model.data)
    return {"model_bytes": len(model.data), "experts": len(model.basis), "valid": rows}


def _patch_model(path: Path) -> PatchModel:
    model = load_model(path)
    assert isinstance(model, PatchModel)
    return model


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of equal keys as CSV."""
    with written_aside(path) as aside, open(aside, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
