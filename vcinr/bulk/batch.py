"""One batch: it opens its own input, reads nothing but its own region, and leaves whole chunks and a receipt."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import socket
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from vcinr.archive import metadata
from vcinr.archive.blocks import READING, index_of
from vcinr.archive.jobs import Models, limits_of_pieces
from vcinr.archive.manifest import MALFORMED
from vcinr.archive.metadata import Groups
from vcinr.archive.plan import ArrayPlan
from vcinr.archive.store import takes_chunks
from vcinr.archive.work import ChunkFacts, encode_chunk, task_of
from vcinr.archive.write import compress
from vcinr.bulk import done
from vcinr.bulk.engines import report
from vcinr.bulk.place import Place
from vcinr.bulk.plan import Batch, Item, arrays_of, check_memory, look_into, staged_models
from vcinr.bulk.request import Request
from vcinr.bulk.source import check_unchanged, open_source
from vcinr.errors import BoundError, CorruptError, InputError, ModelError, VcinrError, one_line
from vcinr.places import is_url
from vcinr.progress import Progress

RECEIPTS, CHUNKS = "receipts", "chunks"
"""Folders of the staging place."""
RETRY_S = (2.0, 8.0, 15.0, 20.0)
"""Seconds, about, until work that reads or writes behind a URL is tried again."""
T = TypeVar("T")

_log = logging.getLogger("vcinr")


@dataclass(frozen=True)
class Receipt:
    """What a batch did.

    Parameters
    ----------
    batch
        Its name.
    chunks
        Facts of each chunk by its key (:class:`vcinr.archive.work.ChunkFacts`).
    md5
        Of each chunk behind a URL: what a server may state as its ETag.
    limits
        Of each variable the least and the greatest value of the pieces that were read; None where none is valid.
    archives
        What :func:`vcinr.archive.read.info` says of each archive that was made, by its target; ``skipped`` is True
        where it was there already.
    failed
        Why an archive could not be made, by the name of its input.
    host, pid, began, seconds, peak_bytes
        Who did it, when (seconds since 1970), for how long, and the most memory that the process has ever taken.
    """

    batch: str
    chunks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    md5: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    archives: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    pid: int = 0
    began: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0

    def facts(self) -> dict[str, ChunkFacts]:
        """Facts of each chunk by its key."""
        return {key: ChunkFacts(**facts) for key, facts in self.chunks.items()}

    def data(self) -> bytes:
        """For its file."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def read(cls, data: bytes | None, batch: str) -> Self | None:
        """Inverse of `data`; None where it is none, or damaged, or of another batch."""
        try:
            node = json.loads(data or b"")
            receipt = cls(**node)
            receipt.facts()
        except MALFORMED:
            return None
        return receipt if receipt.batch == batch else None


def chunks_place(item: Item, place: str) -> Place:
    """Where the chunks of an archive are written: in their own place behind a URL, else in the staging place."""
    if takes_chunks(item.target):
        return Place(item.target)
    return Place(Place(place).path(f"{CHUNKS}/{item.key}"))


def run_batch(batch: Batch) -> Receipt:
    """Do the work of a batch, unless its receipt says that it is done.

    Parameters
    ----------
    batch
        The batch.

    Returns
    -------
    Receipt
        It is in the staging place by then, after all that it speaks of.

    Raises
    ------
    InputError, ModelError, BoundError
        Where the input cannot be read, or a chunk cannot be encoded as it was asked for. Of archives that are made
        whole, the receipt says which failed.
    OSError
        Where the staging place cannot be written.
    """
    staging = Place(batch.place)
    receipt = sound(batch, staging)
    if receipt is not None:
        return receipt
    clock = _Clock()
    request = Request.from_node(batch.request)
    if batch.stage == "whole":
        return _whole(batch, request, staging, clock)
    return _tried(lambda: _of_item(batch, request, staging, clock), batch.items[0])


def _of_item(batch: Batch, request: Request, staging: Place, clock: _Clock) -> Receipt:
    """Do the work of a batch of a file that was opened."""
    (item,), place = batch.items, batch.place
    if request.concat is None:  # else each batch would ask for thousands of files
        check_unchanged(item.source)
    if batch.stage == "check":
        models = staged_models(place, request, batch.models)
        opened = open_source(item.source, request, place, item.key)
        there = done.standing(item, opened, request, models, overwrite=batch.overwrite)
        return clock.receipt(batch.id, archives={} if there is None else {item.target: there})
    if batch.stage == "scan":
        groups = open_source(item.source, request, place, item.key).groups
        limits = {name: _limits(groups, name, start, stop) for name, start, stop in batch.spans}
        receipt = clock.receipt(batch.id, limits=limits)
    else:
        chunks, digests = _encode(batch, item, request)
        receipt = clock.receipt(batch.id, chunks=chunks, md5=digests)
    staging.put(f"{RECEIPTS}/{batch.id}.json", receipt.data())
    return receipt


def sound(batch: Batch, staging: Place) -> Receipt | None:
    """The receipt of a batch, if it has one, and its chunks are there and of their sizes."""
    if batch.stage in ("whole", "check"):
        return None  # each archive has a note of its own
    receipt = Receipt.read(staging.get(f"{RECEIPTS}/{batch.id}.json"), batch.id)
    if receipt is None or batch.stage == "scan":
        return receipt
    place = chunks_place(batch.items[0], batch.place)
    for key, facts in receipt.facts().items():
        data = place.get(key)
        if data is None or zlib.crc32(data) != facts.crc32:
            return None
    return receipt


def _limits(groups: Groups, name: str, start: int, stop: int) -> tuple[float, float] | None:
    low, high = limits_of_pieces(metadata.member(groups, name), start, stop)
    return (low, high) if low <= high else None


def _encode(batch: Batch, item: Item, request: Request) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Write the chunks of a batch; returns their facts by key and, behind a URL, their MD5."""
    place = chunks_place(item, batch.place)
    arrays = {a.job.name: a for a in prepared(item, request, batch.place, batch.models)[1]}
    made: dict[str, dict[str, Any]] = {}
    digests: dict[str, str] = {}
    count, total = 0, sum(stop - start for _, start, stop in batch.spans)
    for name, start, stop in batch.spans:
        array = arrays[name]
        task = task_of(array, request.effort)
        for number in range(start, stop):
            index = index_of(number, array.counts)
            key = "/".join([name, "c", *map(str, index)])
            data, facts = encode_chunk(task, key, array.block(index))
            place.put(key, data)
            made[key] = asdict(facts)
            if is_url(place.root):
                digests[key] = hashlib.md5(data, usedforsecurity=False).hexdigest()
            count += 1
            report(Progress("batch", count, total, note=batch.id))  # so that a long batch is not taken for stalled
    return made, digests


def _whole(batch: Batch, request: Request, staging: Place, clock: _Clock) -> Receipt:
    """Make each archive of a batch; a note of each lies in the staging place when it is done."""
    archives: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, str] = {}
    models = staged_models(batch.place, request, batch.models)
    for item in batch.items:
        note = done.read(staging, item)
        if note is None:
            try:
                note = _tried(lambda item=item: _made(item, batch, request, models), item)  # type: ignore[misc]
            except VcinrError as error:
                failed[item.source.name] = str(error)
                continue
            done.write(staging, item, note)
        archives[item.target] = note
    return clock.receipt(batch.id, archives=archives, failed=failed)


def _made(item: Item, batch: Batch, request: Request, models: Models) -> dict[str, Any]:
    """Make one archive, unless it is there; returns what `vcinr.archive.read.info` says of it."""
    check_unchanged(item.source)
    opened = open_source(item.source, request)
    if batch.allowed is not None:
        check_memory(item.source.name, look_into(opened, request, models, {})[0], batch.allowed)
    there = done.standing(item, opened, request, models, overwrite=batch.overwrite)
    if there is not None:
        return there
    return compress(
        opened.groups, item.target, model=models, abs_error=request.abs_error, rel_error=request.rel_error,
        point_rel_error=request.point_rel_error, psnr=request.psnr, rate=request.rate, iou=request.iou,
        variables=request.variables or opened.variables, chunk=request.chunk, effort=request.effort,
        overwrite=batch.overwrite, threads=1, watch=report,
    )  # fmt: skip


def _tried(call: Callable[[], T], item: Item) -> T:
    """Call a function and, where a network takes part in it, again when it fails as a network may make it fail."""
    if is_url(item.target) or any(map(is_url, item.source.paths)):
        for wait in RETRY_S:
            try:
                return call()
            except (ModelError, BoundError, CorruptError):
                raise
            except (InputError, OSError) as error:
                _log.warning("%s: %s; trying again", item.source.name, one_line(error))
                time.sleep(wait * random.uniform(0.75, 1.25))
    return call()


class _Clock:
    """Times a batch."""

    def __init__(self) -> None:
        self.began, self._start = time.time(), time.perf_counter()

    def receipt(self, name: str, **found: Any) -> Receipt:
        """The receipt of a batch that ends now."""
        return Receipt(
            name, **found, host=socket.gethostname(), pid=os.getpid(), began=self.began,
            seconds=time.perf_counter() - self._start, peak_bytes=_peak_bytes(),
        )  # fmt: skip


def _peak_bytes() -> int:
    """The most memory that this process has ever taken; 0 on systems that do not say."""
    # On Linux, what getrusage says begins with the memory of the process that started this one.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_PLANNED: dict[Any, tuple[Groups, list[ArrayPlan]]] = {}


def prepared(item: Item, request: Request, place: str, names: Mapping[str, str]) -> tuple[Groups, list[ArrayPlan]]:
    """The data set of an item and the plan of its arrays; all threads share the last one."""
    key = (item.key, place, tuple(sorted(item.limits.items())))
    with READING:
        if key not in _PLANNED:
            _PLANNED.clear()
            opened = open_source(item.source, request, place, item.key)
            models = staged_models(place, request, names)
            arrays = arrays_of(opened.groups, opened.variables, request, models, item.known_limits)
            _PLANNED[key] = opened.groups, arrays
        return _PLANNED[key]
