"""Stage 2 of the pipeline: meta-training of the shared network, so that a few inner steps fit it to any signal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.common import PARAMS, main, places_of, record, watcher
from vcinr.config import Inr, Meta, load
from vcinr.errors import ConfigError


@task(name="meta-train", cache_policy=NO_CACHE)
def train(
    signals: Path, inr: Inr, meta: Meta, seed: int, threads: int, device: str, seconds: float | None, out: Path,
    checkpoint: Path,
) -> dict[str, Any]:  # fmt: skip
    """Meta-train, and resume from the checkpoint of an interrupted run with the same parameters and data."""
    from vcinr.meta.outer import meta_train

    watch = watcher("meta-train")
    return meta_train(
        signals, inr, meta, seed=seed, threads=threads, out=out, checkpoint=checkpoint, device=device, seconds=seconds,
        watch=watch,
    )  # fmt: skip


@flow(name="meta-train")
def meta_train(params: str = PARAMS) -> dict[str, Any]:
    """Meta-train the network of the active source."""
    p = load(params)
    if p.method == "experts":
        raise ConfigError(f"{params}: method: experts has no stages of its own; train it with `vcinr train`")
    places = places_of(p)
    summary = train(
        places.signals, p.inr, p.meta, p.seed, p.threads, p.device, p.meta_seconds, places.training, places.checkpoint
    )
    record("meta_train", summary, places.metrics / "meta_train.json")
    return summary


if __name__ == "__main__":
    main(meta_train)
