"""Bulk compression by one worker and by all: ``python -m benchmarks.scaling FOLDER``.

Both efforts compress the same files with one worker and with as many as there are cores, in turns, several rounds of
each, and the median counts. Beside it is what the machine itself gains by all its cores: cores share the bandwidth of
the memory, and a virtual machine may share more. Writes benchmarks/results/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from benchmarks.measure.machine import record
from benchmarks.measure.scale import EXERCISES, exercised
from benchmarks.scale import finished, linked
from vcinr.archive.work import cores
from vcinr.bulk import drive
from vcinr.bulk.engines import engine_of
from vcinr.bulk.request import Request

RESULT = Path("benchmarks/results/scaling.json")


def largest(file: Path, megabytes: float) -> list[str]:
    """Return variables of a file, the largest first, that have at least so many megabytes together."""
    with xr.open_dataset(file, decode_times=False) as data:
        sizes = {str(name): data[name].nbytes for name in data.data_vars}
    names, total = [], 0
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if total < 1e6 * megabytes:
            names.append(name)
            total += sizes[name]
    return names


def seconds(files: Sequence[Path], out: Path, request: Request, workers: int) -> float:
    """Compress files, and return the seconds by the clock, plan and start of the workers included."""
    began = time.perf_counter()
    drive.compress([str(f) for f in files], str(out), request, engine_of("processes", workers=workers)).check(
        len(files)
    )
    found = time.perf_counter() - began
    shutil.rmtree(out)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all rounds and write the result; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="netCDF files, also in folders within")
    parser.add_argument("--files", type=int, default=4, help="how many of them")
    parser.add_argument("--best", type=float, default=100.0, help="megabytes of the first file for the default effort")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rel-error", type=float, default=1e-3, help="bound as a fraction of each variable's range")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--data", default="files of a folder", help="what the page calls the data")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="scaling-") as scratch:
        files = linked(finished(given.folder)[: given.files], Path(scratch) / "links")
        facts = measured(files, given, Path(scratch) / "archives")
    given.out.write_text(json.dumps(record(data=given.data, **facts), indent=1) + "\n")
    return 0


def measured(files: Sequence[Path], given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run all rounds; the figures for the result."""
    variables = largest(files[0], given.best)
    work: dict[str, tuple[Sequence[Path], Request]] = {
        "fast": (files, Request(rel_error=given.rel_error, effort="fast")),
        "best": (files[:1], Request(rel_error=given.rel_error, effort="best", variables=tuple(variables))),
    }
    taken: dict[str, dict[int, list[float]]] = {name: {1: [], given.workers: []} for name in (*EXERCISES, *work)}
    for turn in range(given.rounds):
        for name, by_workers in taken.items():
            for workers, rounds in by_workers.items():
                if name in EXERCISES:
                    rounds.append(exercised(name, workers))
                else:
                    chosen, request = work[name]
                    rounds.append(seconds(chosen, scratch, request, workers))
                print(f"{time.strftime('%H:%M:%S')} {turn + 1}: {name}, {workers}: {rounds[-1]:.2f} s", flush=True)
    gains = {}
    for name, by_workers in taken.items():
        one, many = (statistics.median(by_workers[workers]) for workers in (1, given.workers))
        gains[name] = one / many * (given.workers if name in EXERCISES else 1)
    return {
        "rel_error": given.rel_error, "workers": given.workers, "files": len(files), "variables_of_best": variables,
        "seconds": {name: {str(k): v for k, v in by.items()} for name, by in taken.items()}, "gains": gains,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
