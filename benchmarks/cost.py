"""What an archive of many terabytes costs, from measured rates: ``python -m benchmarks.cost [--check]``.

Writes the tables of docs/scale.md anew from benchmarks/results/scale.json. With --check nothing is written, and the
exit status is 1 if anything would change.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report.tables import markdown
from vcinr.bulk.plan import BATCH_SECONDS

PAGE = Path("docs/scale.md")
RESULT = Path("benchmarks/results/scale.json")
BEGIN, END = "<!-- made by `python -m benchmarks.cost` -->", "<!-- end of what is made -->"

_BLOCK = 4 << 20  # bytes of a request for a part of a file (vcinr.formats.base)
_RECEIPT_CHUNK, _MANIFEST_CHUNK, _ROOT_ARRAY = 260, 13, 800  # bytes of metadata, counted on a file of the climate model
_PLAN_ITEM, _PLAN_ARRAY = 450, 190  # bytes in plan.json: of an archive, and of an array of a file that was opened


@dataclass(frozen=True)
class Rates:
    """What was measured of one effort.

    Parameters
    ----------
    encode, verify
        Bytes of input that a core compresses, and verifies, in a second.
    ratio
        Bytes of input for each byte of archive.
    driver
        Seconds of processor time that the driver takes for a batch.
    memory
        Bytes that a worker takes at most.
    """

    encode: float
    verify: float
    ratio: float
    driver: float
    memory: float


@dataclass(frozen=True)
class Job:
    """What is archived, on what.

    Parameters
    ----------
    bytes
        Of input, as float32.
    archive
        Bytes of input in each archive.
    arrays
        Variables in each archive.
    chunk
        Values in a chunk.
    nodes, cores
        Machines, and workers on each.
    network
        Bytes that a node moves in a second.
    node_memory
        Bytes of memory of a node.
    puts
        Requests to write that an object store takes in a second, under one prefix.
    gets
        Requests to read, likewise.
    driver_memory
        Bytes that the driver may take.
    """

    bytes: float = 100e12
    archive: float = 265e6
    arrays: int = 81
    chunk: int = 1 << 20
    nodes: int = 64
    cores: int = 32
    network: float = 25e9 / 8
    node_memory: float = 128e9
    puts: float = 3500.0
    gets: float = 5500.0
    driver_memory: float = 16e9


def measured(results: Mapping[str, Any], effort: str) -> Rates:
    """Return the rates of an effort, of what `benchmarks.scale` wrote."""
    run = next(one for one in results["runs"] if one["effort"] == effort)
    check = next(one for one in results["checks"] if one["effort"] == effort and one["what"] == "verify")
    return Rates(
        encode=run["bytes_in"] / run["batch_seconds"],
        verify=1e6 * check["mbs"] * check["seconds"] / check["file_seconds"],
        ratio=run["bytes_in"] / run["bytes_out"],
        driver=run["driver_cpu_seconds"] / run["batches"],
        memory=max(line["peak_mib"] for line in run["memory"]) * (1 << 20),
    )


def cost(job: Job, rates: Rates) -> dict[str, float]:
    """Return what a job costs.

    Returns
    -------
    dict
        ``core_hours`` of compressing, which decodes every chunk, and ``verify_core_hours`` of reading it all once more;
        ``hours`` of the clock; ``read`` and ``written``: bytes a second of all nodes together; ``batches``,
        ``archives``, ``chunks``; requests ``put`` and ``get`` to object stores, all in all; bytes of ``receipts``
        (removed at the end), ``manifests``, ``roots`` (consolidated metadata) and of the ``plan``; of the largest
        archive its ``manifest``. ``loads``: what is used of each thing that there is a limit of, by its name in words.
    """
    workers = job.nodes * job.cores
    core_seconds = job.bytes / rates.encode
    seconds = core_seconds / workers
    batches, archives = max(1.0, core_seconds / BATCH_SECONDS), max(1.0, job.bytes / job.archive)
    chunks = max(job.bytes / 4 / job.chunk, archives * job.arrays)
    opened = job.archive / rates.encode > BATCH_SECONDS  # else a batch makes whole archives
    # A claim, a receipt and a look for one that is there, for each batch; and a note for each archive.
    put = chunks + 2 * batches + archives * (job.arrays + 4)
    get = job.bytes / _BLOCK + 4 * batches + 8 * archives
    plan = archives * (_PLAN_ITEM + (_PLAN_ARRAY * job.arrays if opened else 0))
    manifest = _MANIFEST_CHUNK * chunks / archives
    loads = {
        "network of a node": job.bytes * (1 + 1 / rates.ratio) / seconds / job.nodes / job.network,
        "memory of a node": job.cores * rates.memory / job.node_memory,
        "requests to write": put / seconds / job.puts,
        "requests to read": get / seconds / job.gets,
        "time of the driver": batches * rates.driver / seconds,
        "memory of the driver": 4 * plan / job.driver_memory,  # as objects of Python, and their batches
        "manifest of an archive": manifest / 64e6,  # what a reader may fetch before the first value
    }
    return {
        "core_hours": core_seconds / 3600, "verify_core_hours": job.bytes / rates.verify / 3600,
        "hours": seconds / 3600, "read": job.bytes / seconds, "written": job.bytes / rates.ratio / seconds,
        "batches": batches, "archives": archives, "chunks": chunks, "put": put, "get": get,
        "receipts": _RECEIPT_CHUNK * chunks, "manifests": _MANIFEST_CHUNK * chunks,
        "roots": archives * job.arrays * _ROOT_ARRAY, "plan": plan, "manifest": manifest,
        **{f"load: {name}": load for name, load in loads.items()},
    }  # fmt: skip


CASES = {
    "an archive a file of 265 MB": Job(),
    "joined to archives of 1 TB": Job(archive=1e12),
}


def tables(results: Mapping[str, Any]) -> str:
    """Return the tables of the page."""
    found = {
        f"`{effort}`, {case}": cost(job, measured(results, effort))
        for effort in ("fast", "best")
        for case, job in CASES.items()
    }
    rates = [measured(results, effort) for effort in ("fast", "best")]
    inputs = [
        ["MB of input that a core compresses in a second", *(f"{r.encode / 1e6:.1f}" for r in rates)],
        ["MB of input that a core verifies in a second", *(f"{r.verify / 1e6:.1f}" for r in rates)],
        ["times smaller", *(f"{r.ratio:.1f}" for r in rates)],
        ["milliseconds of the driver for a batch", *(f"{1000 * r.driver:.0f}" for r in rates)],
        ["MiB that a worker takes at most", *(f"{r.memory / (1 << 20):.0f}" for r in rates)],
    ]
    rows = [
        ["core-hours, compression", *(_count(c["core_hours"]) for c in found.values())],
        ["core-hours, verification beside the originals", *(_count(c["verify_core_hours"]) for c in found.values())],
        ["hours by the clock", *(f"{c['hours']:.1f}" for c in found.values())],
        ["read, GB a second", *(f"{c['read'] / 1e9:.2f}" for c in found.values())],
        ["written, GB a second", *(f"{c['written'] / 1e9:.2f}" for c in found.values())],
        ["batches", *(_count(c["batches"]) for c in found.values())],
        ["archives", *(_count(c["archives"]) for c in found.values())],
        ["chunks, an object or a file each", *(_count(c["chunks"]) for c in found.values())],
        ["requests to write", *(_count(c["put"]) for c in found.values())],
        ["requests to read", *(_count(c["get"]) for c in found.values())],
        ["receipts, GB, removed at the end", *(f"{c['receipts'] / 1e9:.1f}" for c in found.values())],
        ["manifests, GB", *(f"{c['manifests'] / 1e9:.2f}" for c in found.values())],
        ["consolidated metadata, GB", *(f"{c['roots'] / 1e9:.2f}" for c in found.values())],
        ["manifest of one archive, MB", *(f"{c['manifest'] / 1e6:.3f}" for c in found.values())],
    ]
    names = [key for key in next(iter(found.values())) if key.startswith("load: ")]
    names.sort(key=lambda name: -max(c[name] for c in found.values()))
    loads = [[name.removeprefix("load: "), *(_share(c[name]) for c in found.values())] for name in names]
    date, machine = results["date"][:10], results["machine"]["cpu"]
    note = f" Note: {results['note']}." if results.get("note") else ""
    return "\n\n".join(
        [
            f"Measured on {results['data']} ({date}, {machine}; [{RESULT}](../{RESULT})).{note}",
            markdown(["", "`fast`", "`best`"], inputs),
            "What follows for 100 TB:",
            markdown(["", *found], rows),
            "What is used of what there is, the largest first. What passes 100 % breaks:",
            markdown(["", *found], loads),
        ]
    )


def _share(value: float) -> str:
    return f"{100 * value:,.0f} %" if value >= 0.1 else f"{100 * value:.2g} %"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:,.1f} million"


def page(text: str, results: Mapping[str, Any]) -> str:
    """Return the page with its tables anew."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{tables(results)}\n\n{END}{tail}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    old = PAGE.read_text()
    new = page(old, json.loads(RESULT.read_text()))
    if given.check:
        print(f"{PAGE}: {'as it is made' if new == old else 'run python -m benchmarks.cost'}")
        return int(new != old)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
