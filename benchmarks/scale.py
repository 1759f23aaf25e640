"""Bulk compression of a folder of files: ``python -m benchmarks.scale FOLDER``.

Measures throughput, memory of each worker over time, one worker against all, what orchestration takes, the same chunks
by SZ3 and SPERR on the same engine, and a plan of many files. All archives are verified against their originals and
written back. ``python -m benchmarks.data.gcm`` makes such a folder. Writes benchmarks/results/scale.json and the
picture benchmarks/results/scale.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure.machine import record
from benchmarks.measure.scale import Memory, Work, by_rival, decompressed, each, noting, rivals, verified
from vcinr.archive.work import cores
from vcinr.bulk import drive
from vcinr.bulk.engines import Engine, engine_of
from vcinr.bulk.estimate import estimate
from vcinr.bulk.plan import BATCH_SECONDS, plan
from vcinr.bulk.request import Request
from vcinr.codec.promise import Effort

RESULT = Path("benchmarks/results/scale.json")


def first(files: Sequence[Path], gigabytes: float) -> list[Path]:
    """Return the first of some files that have at least so many gigabytes together, or all."""
    sizes = itertools.accumulate((file.stat().st_size for file in files), initial=0)
    return [file for file, before in zip(files, sizes, strict=False) if before < 1e9 * gigabytes]


def compressed(
    files: Sequence[Path], out: Path, effort: Effort, given: argparse.Namespace, workers: int
) -> dict[str, Any]:
    """Compress files to archives, and say what it took.

    Returns
    -------
    dict
        ``seconds`` of the clock for all of it; ``start_seconds`` of these until the first batch began: the plan, and
        the start of a worker; ``batch_seconds`` that workers spent in batches, ``cpu_seconds`` of processor time of
        the workers, all in all, and ``driver_cpu_seconds`` of this process. ``orchestration`` is the share of the
        workers' time after the start that was not spent in batches; of several workers, some of it is waiting for the
        last. Bytes, ``mbs`` (MB of input a second), and ``memory`` as of `Memory.lines`.
    """
    shutil.rmtree(out, ignore_errors=True)
    receipts: list[Any] = []
    engine = noting(engine_of("processes", workers=workers), receipts)
    request = Request(rel_error=given.rel_error, effort=effort)
    began, own, moment = time.perf_counter(), time.process_time(), time.time()
    with Memory() as memory:
        inputs, cut = list(map(str, files)), given.batch_seconds
        outcome = drive.compress(inputs, str(out), request, engine, batch_seconds=cut)
    seconds = time.perf_counter() - began
    outcome.check(len(files))
    spent = sum(receipt.seconds for receipt in receipts)
    start = min(receipt.began for receipt in receipts) - moment
    size = sum(file.stat().st_size for file in files)
    return {
        "effort": effort, "workers": workers, "files": len(files), "seconds": seconds, "batches": len(receipts),
        "start_seconds": start, "batch_seconds": spent, "cpu_seconds": sum(memory.processor.values()),
        "driver_cpu_seconds": time.process_time() - own, "orchestration": 1 - spent / (workers * (seconds - start)),
        "bytes_in": size, "bytes_out": sum(int(facts["total_bytes"]) for facts in outcome.archives.values()),
        "mbs": size / 1e6 / seconds, "memory": memory.lines(),
    }  # fmt: skip


def spread(
    what: str, call: Callable[[Work], dict[str, Any]], work: Sequence[Work], engine: Engine, workers: int
) -> dict[str, Any]:
    """Do something with every file on all workers, and say what it took."""
    began = time.perf_counter()
    with Memory() as memory:
        found = each(engine, call, work)
    seconds = time.perf_counter() - began
    size = sum(Path(one.path).stat().st_size for one in work)
    sums: dict[str, Any] = {
        key: sum(one[key] for one in found)
        for key in ("bytes_in", "bytes_out", "chunks", "encode_seconds", "check_seconds")
        if key in found[0]
    }
    return {
        "what": what, "workers": workers, "files": len(work), "seconds": seconds, **sums, "mbs": size / 1e6 / seconds,
        "file_seconds": sum(one["seconds"] for one in found),
        "cpu_seconds": sum(memory.processor.values()), "memory": memory.lines(),
    }  # fmt: skip


def planned(files: int, size: int, folder: Path) -> dict[str, Any]:
    """Time the plan of many files, of which nothing but the size is looked at, and its batches."""
    folder.mkdir(parents=True)
    for i in range(files):
        with open(folder / f"{i:06d}.nc", "wb") as file:
            file.truncate(size)
    began = time.perf_counter()
    made = plan(str(folder), str(folder.with_name("archives")), Request(rel_error=1e-3, effort="fast"))
    batches = len(estimate(made)["batches"])
    seconds = time.perf_counter() - began
    shutil.rmtree(folder)
    return {"files": files, "bytes_of_file": size, "seconds": seconds, "batches": batches}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all measurements and write the result; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="netCDF files, also in folders within")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--rel-error", type=float, default=1e-3, help="bound as a fraction of each variable's range")
    parser.add_argument("--fast", type=float, default=float("inf"), help="gigabytes for the effort fast")
    parser.add_argument("--best", type=float, default=1.2, help="gigabytes for the default effort")
    parser.add_argument("--scaling", type=float, default=4.0, help="gigabytes for one worker against all")
    parser.add_argument("--batch-seconds", type=float, default=BATCH_SECONDS, help="work in a batch, about")
    parser.add_argument("--plan", type=int, default=10_000, help="files of the plan that is timed")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where archives are written")
    parser.add_argument("--data", default="files of a folder", help="what the page calls the data")
    parser.add_argument("--note", default="", help="what has to be known about the run")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    files = finished(given.folder)
    if not files:
        parser.error(f"{given.folder}: holds no .nc files; python -m benchmarks.data.gcm {given.folder} makes some")
    scratch = Path(tempfile.mkdtemp(prefix="scale-", dir=given.scratch))
    try:
        if len({file.stem for file in files}) < len(files):
            files = linked(files, scratch / "links")
        facts = measured(files, given, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    note = {"note": given.note} if given.note else {}
    given.result.parent.mkdir(parents=True, exist_ok=True)
    given.result.write_text(json.dumps(record(data=given.data, **note, **facts), indent=1) + "\n")
    draw(facts, given.result.with_suffix(".png"))
    return 0


def finished(folder: Path) -> list[Path]:
    """Return the netCDF files of a folder and of those within, but for files that are still being written."""
    return sorted(file for file in folder.rglob("*.nc") if not file.name.startswith((".", "part")))


def linked(files: Sequence[Path], folder: Path) -> list[Path]:
    """Give files that share names, each in a folder of its own, names of their own by links."""
    folder.mkdir()
    links = [folder / f"{file.parent.name}-{file.name}" for file in files]
    for file, link in zip(files, links, strict=True):
        os.symlink(file.resolve(), link)
    return links


def measured(files: Sequence[Path], given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Make all measurements; the figures for the result."""
    runs, checks = [], []
    engine = engine_of("processes", workers=given.workers)

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    say(f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e9:.2f} GB")
    for effort, most in (("fast", given.fast), ("best", given.best)):
        some = first(files, most)
        runs.append(compressed(some, scratch / effort, effort, given, given.workers))  # type: ignore[arg-type]
        say(f"{effort}: {runs[-1]['mbs']:.1f} MB/s, {runs[-1]['bytes_in'] / runs[-1]['bytes_out']:.1f} times smaller")
        work = [Work(str(f), str(scratch / effort / f"{f.stem}.zarr"), given.rel_error) for f in some]
        for what, call in (("verify", verified), ("decompress", decompressed)):
            checks.append({"effort": effort, **spread(what, call, work, engine, given.workers)})
            say(f"{effort}, {what}: {checks[-1]['mbs']:.1f} MB/s")
        shutil.rmtree(scratch / effort)
    some = first(files, given.scaling)
    scaling = []
    for workers in sorted({1, given.workers}):
        scaling.append(compressed(some, scratch / "scaling", "fast", given, workers))
        shutil.rmtree(scratch / "scaling")
        say(f"fast, {workers} worker(s): {scaling[-1]['mbs']:.1f} MB/s")
    others = []
    for name in rivals():
        work = [Work(str(f), str(scratch / "rival" / f.stem), given.rel_error, name) for f in some]
        others.append({"rival": name, **spread(name, by_rival, work, engine, given.workers)})
        shutil.rmtree(scratch / "rival")
        ratio = others[-1]["bytes_in"] / others[-1]["bytes_out"]
        say(f"{name}: {others[-1]['mbs']:.1f} MB/s, {ratio:.1f} times smaller")
    return {
        "rel_error": given.rel_error, "batch_seconds": given.batch_seconds, "runs": runs,
        "checks": checks, "scaling": scaling, "rivals": others,
        "plan": planned(given.plan, 2_000_000, scratch / "many"),
    }  # fmt: skip


def draw(facts: dict[str, Any], path: Path) -> Path:
    """Draw the memory of the workers over time, a panel for each effort."""
    from benchmarks.report.figures import Curve, curves_figure

    panels = {
        f"--effort {one['effort']}, {one['bytes_in'] / 1e9:.3g} GB": [
            Curve(f"worker {i + 1}", line["seconds"], line["mib"]) for i, line in enumerate(one["memory"])
        ]
        for one in facts["runs"]
    }
    return curves_figure(panels, "seconds", "resident memory / MiB", path)


if __name__ == "__main__":
    sys.exit(main())
