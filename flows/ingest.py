"""Stage 1 of the pipeline: raw data are cut into signals, in splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.common import (
    PARAMS,
    RETRY_DELAYS,
    main,
    places_of,
    record,
    tries_after_the_first,
    watcher,
    worth_retrying,
)
from vcinr.config import Package, Source
from vcinr.kinds import load


@task(
    name="fetch", cache_policy=NO_CACHE, retries=len(RETRY_DELAYS), retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=worth_retrying,
)  # fmt: skip
def fetch_package(package: Package, raw: Path) -> None:
    """Download and unpack a package of data, unless that has been done before."""
    from vcinr.datasets.fetch import fetch

    fetch(package, raw, watcher("fetch"))


@task(name="ingest", cache_policy=NO_CACHE, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=worth_retrying)
def ingest_signals(source: Source, raw: Path, out: Path, memory: float) -> dict[str, Any]:
    """Cut the source's data into signals."""
    from vcinr.datasets.ingest import ingest

    return ingest(source, raw, out, watcher("ingest"), memory=memory)


@flow(name="ingest")
def ingest(params: str = PARAMS) -> dict[str, Any]:
    """Fetch the active source's data and write its signals."""
    p = load(params)
    places = places_of(p)
    for package in p.active.packages:
        fetch_package(package, places.raw)
    retries = tries_after_the_first(s.path for s in (*p.active.train, *p.active.archive))
    summary = ingest_signals.with_options(retries=retries)(p.active, places.raw, places.signals, p.memory)
    record("ingest", summary, places.metrics / "ingest.json")
    return summary


if __name__ == "__main__":
    main(ingest)
