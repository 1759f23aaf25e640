"""A Dask cluster of processes on loopback, whose members a test may kill."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT, free_port, group, wait_until


@dataclass
class Cluster:
    """A Dask cluster of processes on loopback."""

    address: str
    scheduler: subprocess.Popen
    workers: list[subprocess.Popen]


@contextlib.contextmanager
def dask_cluster(folder: Path, workers: int = 2, nanny: bool = True, before: Path = ROOT) -> Iterator[Cluster]:
    """A scheduler and workers of one thread each; all end with the block.

    Packages in the folder `before` go before all others. A batch that kills its worker is given up after the first
    worker, not after the fourth, which takes half a minute.
    """
    port = free_port()
    address, dask = f"tcp://127.0.0.1:{port}", [sys.executable, "-m", "dask"]
    env = {
        **os.environ, "PYTHONPATH": os.pathsep.join(map(str, (before, ROOT, ROOT / "tests"))),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    }  # fmt: skip
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    worker = [
        *dask, "worker", address, "--nthreads", "1", "--memory-limit", "0", "--no-dashboard",
        "--nanny" if nanny else "--no-nanny", "--death-timeout", "60", "--local-directory", str(folder),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        log = folder / "scheduler.log"
        first = stack.enter_context(group(scheduler, log, cwd=ROOT, env=env))
        wait_until(lambda: "Scheduler at" in log.read_text(), 60, first, log)
        others = [
            stack.enter_context(group(worker, folder / f"worker-{i}.log", cwd=ROOT, env=env)) for i in range(workers)
        ]
        yield Cluster(address, first, others)
