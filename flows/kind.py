"""A benchmark of a kind of files beside the codecs made for it: ``python -m flows.kind NAME``; kinds/dvc.yaml."""

from __future__ import annotations

import argparse
import os
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.common import main, record, watcher


@task(name="kind", cache_policy=NO_CACHE)
def measure(name: str) -> dict[str, Any]:
    """Fetch the data, train, compress, compare, and write model, results and page."""
    from benchmarks.kinds import Places, run
    from benchmarks.measure.files import processes

    with processes() as pool:
        return run(name, Places(), pool, watcher(f"kind-{name}"))


@flow(name="kind")
def kind(name: str) -> dict[str, Any]:
    """Benchmark a kind of files.

    Args:
        name: photo32, photo768, speech, volumes or another one of benchmarks/kinds.py.
    """
    result = measure(name)
    record(f"kind-{name}", {part["title"]: part["model"] for part in result["sets"]})
    return result


if __name__ == "__main__":
    from benchmarks.kinds import BENCHMARKS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=tuple(BENCHMARKS))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # measurements run in parallel, each on one thread
    main(kind, name=parser.parse_args().name)
