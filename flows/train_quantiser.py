"""Stage 4 of the pipeline: training of the quantiser and its entropy model, which complete the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.common import PARAMS, main, places_of, record, watcher
from vcinr.config import Quantiser, load


@task(name="train-quantiser", cache_policy=NO_CACHE)
def train(
    signals: Path, model: Path, modulations: Path, quantiser: Quantiser, seed: int, threads: int, device: str,
    seconds: float | None, out: Path, history: Path,
) -> dict[str, Any]:  # fmt: skip
    """Train the quantiser on the latents of the training signals."""
    from vcinr.quantise.train import train_quantiser

    watch = watcher("train-quantiser")
    return train_quantiser(
        signals, model, modulations, quantiser, seed=seed, threads=threads, out=out, history=history, device=device,
        seconds=seconds, watch=watch,
    )  # fmt: skip


@flow(name="train-quantiser")
def train_quantiser(params: str = PARAMS) -> dict[str, Any]:
    """Train the quantiser of the active source's model."""
    p = load(params)
    places = places_of(p)
    summary = train(
        places.signals, places.trained, places.modulations, p.quantiser, p.seed, p.threads, p.device,
        p.quantiser_seconds, places.model, places.quantiser_history,
    )  # fmt: skip
    record("train_quantiser", summary, places.metrics / "train_quantiser.json")
    return summary


if __name__ == "__main__":
    main(train_quantiser)
