"""What a plan would do and take, as JSON and as text: what a dry run shows."""

from __future__ import annotations

import math
from typing import Any

from vcinr.bulk.plan import VALUES_A_BYTE, BulkPlan
from vcinr.errors import naming

_RATIO = {"fast": 6.0, "best": 10.0}  # how many times smaller archives are, about


def estimate(made: BulkPlan) -> dict[str, Any]:
    """What a plan would do, for JSON.

    Returns
    -------
    dict
        ``items``: of each archive ``source``, ``target``, ``bytes`` of the input, estimated ``archive_bytes``,
        ``values`` and ``variables``, which are None where the file was not opened, and the ``scan`` of variables whose
        range must be known first. ``batches``: of each ``id``, ``stage``, ``inputs``, ``bytes``, ``seconds`` of a core
        and ``memory`` in bytes. ``failed``: why inputs cannot be planned. Sums: ``seconds``, ``bytes``,
        ``archive_bytes``, and ``memory``, the most of a batch.
    """
    ratio = _RATIO[made.request.effort]
    batches = [*made.scans(), *made.encodes()]
    items: list[dict[str, Any]] = []
    for item in made.items:
        values = sizes = None
        if item.arrays is not None:
            values = sum(math.prod(a.shape) for a in item.arrays)
            sizes = sum(math.prod(a.shape) * a.itemsize / (ratio if a.asked else 2.0) for a in item.arrays)
        items.append(
            {
                "source": item.source.name, "target": item.target, "bytes": item.source.bytes,
                "archive_bytes": int(item.source.bytes * VALUES_A_BYTE * 4 / ratio if sizes is None else sizes),
                "values": values,
                "variables": None if item.arrays is None else [a.name for a in item.arrays if a.asked],
                "scan": sorted(item.scan),
            }
        )  # fmt: skip
    return {
        "place": made.place,
        "items": items,
        "batches": [
            {
                "id": b.id, "stage": b.stage, "inputs": [item.source.name for item in b.items], "bytes": b.bytes,
                "seconds": round(b.seconds, 6), "memory": b.memory,
            }
            for b in batches
        ],
        "failed": dict(made.failed),
        "seconds": round(sum(b.seconds for b in batches), 1),
        "bytes": sum(item.source.bytes for item in made.items),
        "archive_bytes": sum(int(one["archive_bytes"]) for one in items),
        "memory": max((b.memory for b in batches), default=0),
    }  # fmt: skip


def table(made: BulkPlan, most: int = 20) -> str:
    """The plan as text: a line for each of the first archives, and what all takes."""
    found = estimate(made)
    lines = []
    for one in found["items"][:most]:
        names = "all suitable variables" if one["variables"] is None else ", ".join(one["variables"])
        first = f", after a scan of {', '.join(one['scan'])}" if one["scan"] else ""
        lines.append(
            f"{one['source']} -> {one['target']}: {_size(one['bytes'])} to about {_size(one['archive_bytes'])}, "
            f"{names}{first}"
        )
    if len(found["items"]) > most:
        lines.append(f"and {len(found['items']) - most:,} more")
    lines += [naming(name, text) for name, text in found["failed"].items()]
    stages = {b["stage"] for b in found["batches"]}
    counts = ", ".join(f"{sum(b['stage'] == s for b in found['batches']):,} {_WORDS[s]}" for s in _WORDS if s in stages)
    lines.append(
        f"{len(found['items']):,} archives, {counts or 'no batches'}; {_size(found['bytes'])} to about "
        f"{_size(found['archive_bytes'])}, about {found['seconds'] / 60:,.1f} minutes of a core, a worker takes up to "
        f"about {_size(found['memory'])} of memory"
    )
    return "\n".join(lines)


_WORDS = {"scan": "batches that look for ranges", "whole": "batches of whole files", "encode": "batches of chunks"}


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
