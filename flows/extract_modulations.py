"""Stage 3 of the pipeline: the latents, or modulations, of all signals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.common import PARAMS, main, places_of, record, watcher
from vcinr.config import load


@task(name="extract-modulations", cache_policy=NO_CACHE)
def extract(signals: Path, model: Path, out: Path, threads: int, device: str) -> dict[str, Any]:
    """Find the latents of all signals with the inner loop."""
    from vcinr.meta.extract import extract_modulations

    watch = watcher("extract-modulations")
    return extract_modulations(signals, model, out, threads=threads, device=device, watch=watch)


@flow(name="extract-modulations")
def extract_modulations(params: str = PARAMS) -> dict[str, Any]:
    """Find and store the latents of the active source's signals."""
    p = load(params)
    places = places_of(p)
    summary = extract(places.signals, places.trained, places.modulations, p.threads, p.device)
    record("extract_modulations", summary, places.metrics / "extract_modulations.json")
    return summary


if __name__ == "__main__":
    main(extract_modulations)
