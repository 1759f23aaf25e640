"""Stage 4 of the pipeline: training of the quantiser and its entropy model, which complete the model."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.common import PARAMS, Places, main, places_of, record, watcher
from vcinr.config import Params
from vcinr.kinds import load


@task(name="train-quantiser", cache_policy=NO_CACHE)
def train(params: Params, places: Places) -> dict[str, Any]:
    """Train the quantiser on the latents of the training signals; experts are assessed instead."""
    from vcinr.stages import complete

    return complete(
        params, places.signals, places.trained, places.modulations, places.model, places.quantiser_history,
        seconds=params.quantiser_seconds, watch=watcher("train-quantiser"),
    )  # fmt: skip


@flow(name="train-quantiser")
def train_quantiser(params: str = PARAMS) -> dict[str, Any]:
    """Train the quantiser of the active source's model."""
    p = load(params)
    places = places_of(p)
    summary = train(p, places)
    record("train_quantiser", summary, places.metrics / "train_quantiser.json")
    return summary


if __name__ == "__main__":
    main(train_quantiser)
