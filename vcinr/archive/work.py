"""The map over chunks: each is encoded once, a few at a time, and the results come back in order.

A task holds no file and no data set, so it can be pickled and sent to another process or machine; the values of its
chunk travel beside it. The bytes do not depend on who encodes them.
"""

from __future__ import annotations

import math
import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vcinr.archive.blocks import CHUNK_VALUES
from vcinr.archive.plan import ArrayPlan
from vcinr.archive.spool import Spool, digest_of
from vcinr.codec.encode import encode
from vcinr.codec.promise import Bound, Effort, Field, allowed_bytes, only_valid
from vcinr.errors import BoundError, VcinrError
from vcinr.progress import Clock, Progress, Watch


@dataclass(frozen=True, eq=False)
class Task:
    """How the chunks of an array are encoded; it can be pickled.

    Parameters
    ----------
    field
        What writer and reader both know of the array, its model among it.
    bound
        In the numbers as stored.
    shape
        The chunk shape of the array.
    effort
        As in `compress`.
    rate
        Bits per value that the result must not pass.
    note
        Why the array is stored losslessly, for the message where it passes them.
    """

    field: Field
    bound: Bound | None
    shape: tuple[int, ...]
    effort: Effort
    rate: float = math.inf
    note: str | None = None


def task_of(array: ArrayPlan, effort: Effort) -> Task:
    """How the chunks of a planned array are encoded."""
    field = array.codec.field(array.shape, array.job.model, array.job.positions)
    return Task(field, array.job.stored_bound, array.shape, effort, array.job.rate, array.job.note)


@dataclass(frozen=True)
class ChunkFacts:
    """What is known of an encoded chunk, in the numbers as stored.

    Parameters
    ----------
    bytes, crc32
        Length and CRC-32 of its bytes.
    error
        The largest error, seen by decoding them.
    squared, valid
        Sum of the squared errors of the valid values, and their number.
    low, high
        The least and the greatest valid value; infinite where there is none.
    values
        Digest of the values that it was made of.
    iou, lowest_iou, shapes
        Where an IoU was measured, the sum of those of its shapes, the lowest of them, and their number.
    """

    bytes: int
    crc32: int
    error: float
    squared: float
    valid: int
    low: float
    high: float
    values: str
    iou: float = 0.0
    lowest_iou: float = 1.0
    shapes: int = 0


def encode_all(
    arrays: Sequence[ArrayPlan], spool: Spool, effort: Effort, watch: Watch, threads: int | None = None
) -> dict[str, ChunkFacts]:  # fmt: skip
    """Encode every chunk that the spool does not have yet.

    Parameters
    ----------
    arrays
        What is to be stored.
    spool
        Receives the chunks' bytes.
    effort
        As in `compress`.
    watch
        Is told of each chunk of a variable that was to be compressed.
    threads
        How many chunks are encoded at a time at most; by default as many as there are cores. With 1, no other thread
        takes part at all.

    Returns
    -------
    dict
        The facts of each chunk by its key.

    Raises
    ------
    InputError, ModelError, BoundError
        Where a chunk cannot be read, predicted or encoded within its rate; the message names the chunk.
    OSError
        Where the spool's disk fails.
    """
    facts: dict[str, ChunkFacts] = {}
    total = sum(math.prod(a.counts) for a in arrays if a.job.asked)
    clock, done = Clock(total), 0
    for array in arrays:
        if not array.numeric:
            continue
        for key, size, chunk in _encoded(array, spool, effort, threads or cores()):
            facts[key] = chunk
            if array.job.asked:
                done += 1
                bits, error = 8 * chunk.bytes / max(1, size), chunk.error * array.job.unit
                figures = {"bits_per_value": bits, "max_abs_error": error}
                watch(Progress("compress", done, total, figures, clock.left(done)))
    return facts


def _encoded(array: ArrayPlan, spool: Spool, effort: Effort, most: int) -> Iterator[tuple[str, int, ChunkFacts]]:
    """Key, number of values and facts of every chunk, in order, once it is in the spool.

    Reading and the spool stay with this thread; others encode a few chunks ahead, as many as memory has room for. With
    one thread in all, this one does both.
    """
    task = task_of(array, effort)
    if most == 1:
        for index, key in array.chunks():
            block = array.block(index)
            kept = spool.find(key, block)
            if kept is None:
                data, facts = encode_chunk(task, key, block)
                spool.add(key, facts.values, data, asdict(facts))
            yield key, block.size, ChunkFacts(**kept[1]) if kept is not None else facts
        return
    threads = max(1, min(most, CHUNK_VALUES // max(1, math.prod(array.shape))))
    waiting: deque[tuple[str, np.ndarray, ChunkFacts | Future[tuple[bytes, ChunkFacts]]]] = deque()

    def finished() -> tuple[str, int, ChunkFacts]:
        key, block, result = waiting.popleft()
        if isinstance(result, Future):
            data, result = result.result()
            spool.add(key, result.values, data, asdict(result))
        return key, block.size, result

    with ThreadPoolExecutor(threads) as pool:
        try:
            for index, key in array.chunks():
                block = array.block(index)
                if (kept := spool.find(key, block)) is not None:
                    waiting.append((key, block, ChunkFacts(**kept[1])))
                else:
                    waiting.append((key, block, pool.submit(encode_chunk, task, key, block)))
                if len(waiting) > threads:
                    yield finished()
            while waiting:
                yield finished()
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def encode_chunk(task: Task, key: str, block: np.ndarray) -> tuple[bytes, ChunkFacts]:
    """Encode one chunk.

    Parameters
    ----------
    task
        How to encode it.
    key
        Where it will lie in the archive; errors name it.
    block
        Its values.

    Returns
    -------
    bytes, ChunkFacts
        What is stored, and what was measured of it.

    Raises
    ------
    VcinrError
        What the codec raises, and BoundError where the result takes more bits than allowed.
    """
    try:
        encoded = encode(block, task.field, task.bound, chunk_shape=task.shape, effort=task.effort)
    except VcinrError as error:
        raise type(error)(f"chunk {key}: {error}") from None
    if len(encoded.data) > allowed_bytes(task.rate, block.shape, task.shape):
        raise BoundError(
            f"chunk {key}: {task.note}, in {8 * len(encoded.data) / block.size:.3g} bits per value, more than the "
            f"{task.rate:g} allowed; leave the variable out of those to compress"
        )
    kept: Any = only_valid(block, task.field.fill) if block.dtype.kind in "fiu" else block.ravel()[:0]
    return encoded.data, ChunkFacts(
        bytes=len(encoded.data),
        crc32=zlib.crc32(encoded.data),
        error=encoded.max_abs_error,
        squared=encoded.squared_error,
        valid=encoded.valid,
        low=float(kept.min()) if kept.size else math.inf,
        high=float(kept.max()) if kept.size else -math.inf,
        values=digest_of(block),
        iou=float(encoded.ious.sum()),
        lowest_iou=float(encoded.ious.min(initial=1.0)),
        shapes=encoded.ious.size,
    )
