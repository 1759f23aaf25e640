"""The source papers' experiments: ``python -m flows.experiment NAME [--profile cpu|gpu|quick] [--kind KIND]``.

They run on maps of climate data (benchmarks/dvc.yaml) or, all but the ablation, on tiles of images, sound, video or
solid shapes: ``--kind image``. The profile quick only shows that an experiment runs.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from benchmarks.experiments import CLIMATE, KINDS, NAMES
from flows.common import PARAMS, main, record, watcher
from vcinr.config import Params
from vcinr.kinds import load

Profile = Literal["cpu", "gpu", "quick"]


@task(name="experiment", cache_policy=NO_CACHE)
def conduct(name: str, params: Params, profile: Profile, kind: str) -> dict[str, Any]:
    """Run those parts whose results do not exist yet; writes figures, a table and a page."""
    from benchmarks.experiments import harness

    return harness.conduct(name, params, profile, watcher(f"experiment-{name}"), kind=kind)


@flow(name="experiment")
def experiment(name: str, profile: Profile = "cpu", params: str = PARAMS, kind: str = CLIMATE) -> dict[str, Any]:
    """Run one of the source papers' experiments.

    Args:
        name: learning, sizes, masks, rate or ablation.
        profile: which sizes of params.yaml to use; cpu takes half an hour on two cores, quick a minute.
        params: the parameters file.
        kind: climate, or image, sound, video or voxels, of which tiles are taken.
    """
    summary = conduct(name, load(params), profile, kind)
    record(f"experiment-{name}", summary)
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--profile", choices=("cpu", "gpu", "quick"), default="cpu")
    parser.add_argument("--kind", choices=KINDS, default=CLIMATE)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # runs are done in parallel, each on one thread
    main(experiment, name=options.name, profile=options.profile, kind=options.kind)
