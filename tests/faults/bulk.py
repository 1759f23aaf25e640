"""Bulk runs that are watched: each batch, chunk and small archive leaves marks in files, and inputs may be poison.

A test replaces the driver's `run_batch` by `run_marked`, which workers find by its name wherever they run. The folder
of the marks comes to them by the environment variable `MARKS`.
"""

import os
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import xarray as xr

from vcinr.bulk import batch as batches
from vcinr.bulk import drive
from vcinr.bulk.engines import engine_of
from vcinr.bulk.request import Request

MARKS = "VCINR_TEST_MARKS"
PAUSE = "VCINR_TEST_PAUSE"  # seconds that each batch takes longer, so that there is time to kill somebody

_plain = {"encode": batches.encode_chunk, "open": batches.open_source, "compress": batches.compress}


def note(*words: object) -> None:
    """Append a line to the marks; lines of processes that write at once do not mix."""
    file = os.open(Path(os.environ[MARKS]) / "marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (" ".join(map(str, words)) + "\n").encode())
    os.close(file)


def _encode(task, key, block):
    note("encode", key)
    return _plain["encode"](task, key, block)


def _compress(groups, target, **options):
    note("encode", target)
    return _plain["compress"](groups, target, **options)


def _open(source, *rest):
    name = Path(source.paths[0]).name
    if name.startswith("poison"):
        note("poison", name)
        os._exit(3)
    if name.startswith("bug"):
        raise ZeroDivisionError("nobody thought of this")
    return _plain["open"](source, *rest)


def run_marked(batch: batches.Batch) -> batches.Receipt:
    """`run_batch` with marks before and after it, and poison that kills."""
    note("begin", batch.id, os.getpid())
    time.sleep(float(os.environ.get(PAUSE, 0)))
    with patch.multiple(batches, encode_chunk=_encode, open_source=_open, compress=_compress):
        receipt = batches.run_batch(batch)
    note("end", batch.id, os.getpid())
    return receipt


def marks(folder: Path) -> list[list[str]]:
    """The lines that have been written, in words."""
    path = folder / "marks"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def make_input(path: Path, steps: int = 40, seed: int = 0) -> xr.Dataset:
    """A file of one variable."""
    field = np.random.default_rng(seed).standard_normal((steps, 20, 30)).cumsum(1).cumsum(2).astype("f4")
    data = xr.Dataset({"v": (("t", "y", "x"), field)})
    data.to_netcdf(path)
    return data


REQUEST = Request(abs_error=0.05, chunk=2, effort="fast")
"""Of a file of 40 steps: 20 chunks, with `BATCH_SECONDS` in as many batches."""
BATCH_SECONDS = 1e-4


def compress(inputs, output, engine, batch_seconds: float = BATCH_SECONDS, **options) -> drive.Outcome:
    """The real driver, with marked batches."""
    drive.run_batch = run_marked  # type: ignore[assignment]
    return drive.compress(str(inputs), str(output), REQUEST, engine, batch_seconds=batch_seconds, **options)


def main(inputs: str, output: str, workers: str) -> None:
    """A driver that a test may kill: ``python -m tests.faults.bulk INPUTS OUTPUT WORKERS``."""
    outcome = compress(inputs, output, engine_of("processes", workers=int(workers)))
    outcome.check(2)


if __name__ == "__main__":
    from tests.faults import bulk  # so that workers find `run_marked` by this name

    bulk.main(*sys.argv[1:])
