"""Stage 3 of the pipeline: the latents, or modulations, of all signals."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.common import PARAMS, Places, main, places_of, record, watcher
from vcinr.config import Params
from vcinr.kinds import load


@task(name="extract-modulations", cache_policy=NO_CACHE)
def find(params: Params, places: Places) -> dict[str, Any]:
    """Find the latents of all signals, or the experts and codes of all their patches."""
    from vcinr.stages import extract

    return extract(params, places.signals, places.trained, places.modulations, watcher("extract-modulations"))


@flow(name="extract-modulations")
def extract_modulations(params: str = PARAMS) -> dict[str, Any]:
    """Find and store the latents of the active source's signals."""
    p = load(params)
    places = places_of(p)
    summary = find(p, places)
    record("extract_modulations", summary, places.metrics / "extract_modulations.json")
    return summary


if __name__ == "__main__":
    main(extract_modulations)
