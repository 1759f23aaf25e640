"""Stage 2 of the pipeline: what all signals share is learned, a network by meta-training or experts in closed form."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.common import PARAMS, Places, main, places_of, record, watcher
from vcinr.config import Params
from vcinr.kinds import load


@task(name="meta-train", cache_policy=NO_CACHE)
def train(params: Params, places: Places) -> dict[str, Any]:
    """Train, and resume from the checkpoint of an interrupted run with the same parameters and data."""
    from vcinr.stages import learn

    watch = watcher("meta-train")
    return learn(params, places.signals, places.training, places.checkpoint, seconds=params.meta_seconds, watch=watch)


@flow(name="meta-train")
def meta_train(params: str = PARAMS) -> dict[str, Any]:
    """Train the method on the active source."""
    p = load(params)
    places = places_of(p)
    summary = train(p, places)
    record("meta_train", summary, places.metrics / "meta_train.json")
    return summary


if __name__ == "__main__":
    main(meta_train)
