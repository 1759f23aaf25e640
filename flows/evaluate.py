"""Stage 6 of the pipeline: how good the archive and the model are, in comparison with other codecs."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.common import PARAMS, Places, artifact_key, main, places_of, record, watcher
from vcinr.config import Params
from vcinr.kinds import load

LARGEST_IMAGE = 2**20  # bytes; images are sent inside the artifact, since a server cannot read local files


@task(name="evaluate", cache_policy=NO_CACHE)
def measure(params: Params, places: Places) -> dict[str, Any]:
    """Measure the model and the archive, draw figures and write the report."""
    from benchmarks.evaluate import evaluate
    from benchmarks.evaluate_files import evaluate_files

    watch, metrics = watcher("evaluate"), places.metrics / "evaluate.json"
    if params.method == "experts":
        return evaluate_files(
            params.active, places.raw, places.signals, places.model, places.archive, metrics, places.plots,
            places.report, watch,
        )  # fmt: skip
    return evaluate(
        places.signals, places.model, places.archive, places.training / "history.csv", params.evaluate, metrics,
        places.plots, places.report, watch,
    )  # fmt: skip


@flow(name="evaluate")
def evaluate(params: str = PARAMS) -> dict[str, Any]:
    """Evaluate the active source's model and archive."""
    p = load(params)
    places = places_of(p)
    summary = measure(p, places)
    record("evaluate", summary)
    show(places.report)
    return summary


def show(report: Path) -> None:
    """Publish the report's figures, its summary and its address as artifacts of the run."""
    summary = report / "summary.txt"
    text = summary.read_text() if summary.exists() else ""
    page = (report / "index.html").resolve()
    with contextlib.suppress(Exception):  # the report is written already: the stage must not fail here
        create_markdown_artifact(f"```\n{text}\n```\n\nReport: [{page}]({page.as_uri()})", "evaluate-report")
        for image in sorted(report.glob("*.png")):
            if image.stat().st_size <= LARGEST_IMAGE:
                data = base64.b64encode(image.read_bytes()).decode()
                key = artifact_key(f"evaluate-{image.stem}")
                create_image_artifact(f"data:image/png;base64,{data}", key, image.stem)


if __name__ == "__main__":
    main(evaluate)
