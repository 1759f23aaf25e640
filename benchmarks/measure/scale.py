"""What bulk compression costs: memory of workers over time, seconds of batches, and rivals on the same engine."""

from __future__ import annotations

import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import vcinr
from benchmarks.rivals.base import Rival
from vcinr.archive import metadata
from vcinr.archive.plan import ArrayPlan, plan
from vcinr.bulk.engines import Engine, Pool, engine_of, run
from vcinr.bulk.engines.messages import Tell
from vcinr.codec.promise import allowed_errors, errors_of, valid_values
from vcinr.errors import BoundError
from vcinr.places import written_aside

MIB = 1 << 20
B = TypeVar("B")
R = TypeVar("R")


# --- memory -------------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """Resident memory and processor time of this process' workers, sampled over time; a context manager.

    Parameters
    ----------
    every
        Seconds from one sample to the next.
    samples
        By the worker's process, pairs of seconds since the start and bytes.
    peaks
        By the worker's process, the most bytes that the system has seen.
    processor
        By the worker's process, seconds of processor time of all its threads.
    """

    every: float = 1.0
    samples: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    peaks: dict[int, int] = field(default_factory=dict)
    processor: dict[int, float] = field(default_factory=dict)

    def __enter__(self) -> Memory:
        self._start, self._end = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(self.every):
            for pid in workers():
                now, peak = resident(pid)
                if now:
                    self.samples.setdefault(pid, []).append((round(time.monotonic() - self._start, 2), now))
                    self.peaks[pid] = max(peak, self.peaks.get(pid, 0))
                    self.processor[pid] = max(processor_seconds(pid), self.processor.get(pid, 0.0))

    def lines(self, most: int = 400) -> list[dict[str, Any]]:
        """Say what each worker took, with at most so many samples.

        Returns
        -------
        list of dict
            ``seconds`` and ``mib`` of the samples, ``peak_mib``, and ``rise_mib``: the median of the last quarter of
            the samples less that of the second quarter; None where there are fewer than 8.
        """
        return [_line(own, self.peaks[pid], most) for pid, own in sorted(self.samples.items())]


def _line(samples: Sequence[tuple[float, int]], peak: int, most: int) -> dict[str, Any]:
    every = samples[:: -(-len(samples) // most)]
    mib = [n / MIB for _, n in samples]
    quarter = len(mib) // 4
    rise = float(np.median(mib[-quarter:]) - np.median(mib[quarter : 2 * quarter])) if len(mib) >= 8 else None
    return {
        "seconds": [t for t, _ in every], "mib": [round(n / MIB, 1) for _, n in every],
        "peak_mib": round(peak / MIB, 1), "rise_mib": None if rise is None else round(rise, 1),
    }  # fmt: skip


def workers() -> list[int]:
    """Return the processes that an engine of this process has started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            for pid in map(int, (task / "children").read_text().split()):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        except OSError:  # it has ended
            continue
    return found


def resident(pid: int) -> tuple[int, int]:
    """Return the bytes that a process has in memory, and the most that it ever had; zeros where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    now, peak = (re.search(rf"{what}:\s+(\d+) kB", status) for what in ("VmRSS", "VmHWM"))
    return (int(now[1]) << 10, int(peak[1]) << 10) if now and peak else (0, 0)


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has had; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- an engine that takes note of results -------------------------------------------------------------------


def noting(engine: Engine, results: list[Any]) -> Engine:
    """Return an engine that appends what its batches return to a list, and is the same otherwise."""

    @contextmanager
    def start(chosen: Engine, tell: Tell) -> Iterator[Pool]:
        with engine.start(engine, tell) as pool:
            yield replace(pool, executor=_Noting(pool.executor, results))

    return replace(engine, start=start)


class _Noting(Executor):
    def __init__(self, inner: Executor, results: list[Any]) -> None:
        self._inner, self._results = inner, results

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand a call on."""
        future = self._inner.submit(fn, *args, **kwargs)
        future.add_done_callback(self._note)
        return future

    def _note(self, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._results.append(future.result())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Hand it on."""
        self._inner.shutdown(wait=wait, cancel_futures=cancel_futures)


# --- files and rivals ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What is done with one file.

    Parameters
    ----------
    path
        The original.
    target
        The archive, or the folder of a rival's streams.
    rel_error
        Bound of each variable's error as a fraction of its range.
    rival
        The name of the rival's setting.
    """

    path: str
    target: str
    rel_error: float
    rival: str = ""


def each(engine: Engine, call: Callable[[B], R], work: Sequence[B]) -> list[R]:
    """Do something with every piece of work on an engine; raises what the first of them raised."""
    found = []
    for _, result in run(engine, call, work):
        if isinstance(result, Exception):
            raise result
        found.append(result)
    return found


EXERCISES = ("arithmetic", "copying")
"""Work that shares nothing but the machine: within a core's own cache, and of arrays larger than any cache."""


def exercised(kind: str, count: int) -> float:
    """Let so many processes do the same exercise at a time, and return the seconds that the slowest takes."""
    return max(each(engine_of("processes", workers=count), _exercise, [kind] * count))


def _exercise(kind: str) -> float:
    """Seconds that some work takes; a few."""
    values = np.random.default_rng(0).random(1 << (11 if kind == "arithmetic" else 24))
    other = np.empty_like(values)
    began = time.perf_counter()
    for _ in range(1_000_000 if kind == "arithmetic" else 100):
        if kind == "arithmetic":
            np.sqrt(values, out=other)
        else:
            np.copyto(other, values)
    return time.perf_counter() - began


def rivals() -> dict[str, Rival]:
    """Return the rivals by name: the fastest setting of SZ3, and SPERR."""
    from benchmarks.rivals.sperr import SPERR
    from benchmarks.rivals.sz3 import SZ3

    return {rival.name: rival for rival in (SZ3[0], SPERR)}


def by_rival(work: Work) -> dict[str, Any]:
    """Write the chunks of a file as a rival encodes them, decode them and check the bound, as vcinr does.

    Returns
    -------
    dict
        ``bytes_in`` and ``bytes_out``, ``chunks``, and ``seconds``: of the whole, ``encode_seconds`` and
        ``check_seconds`` of it.

    Raises
    ------
    BoundError
        Where a value is not within its bound.

    Notes
    -----
    Chunks that no bound is for, and those that the rival cannot take (masked values, constants), are deflated.
    """
    began, rival = time.perf_counter(), rivals()[work.rival]
    encoding = checking = 0.0
    size = stored = count = 0
    groups = {path: metadata.stored(group, path) for path, group in vcinr.open_groups(work.path).items()}
    for array in plan(groups, bounds={"rel_error": work.rel_error}):
        if not array.numeric:
            continue
        for index, key in array.chunks():
            block = array.block(index)
            start = time.perf_counter()
            data = _encoded(rival, array, block)
            lossless = data is None
            data = zlib.compress(block.tobytes(), 1) if data is None else data
            encoding += time.perf_counter() - start
            if not lossless:
                start = time.perf_counter()
                _check(rival, array, block, data)
                checking += time.perf_counter() - start
            with written_aside(Path(work.target) / key) as aside:
                aside.write_bytes(data)
            size, stored, count = size + block.nbytes, stored + len(data), count + 1
    return {
        "bytes_in": size, "bytes_out": stored, "chunks": count, "seconds": time.perf_counter() - began,
        "encode_seconds": encoding, "check_seconds": checking,
    }  # fmt: skip


def _encoded(rival: Rival, array: ArrayPlan, block: np.ndarray) -> bytes | None:
    """The rival's stream; None where it cannot take the values."""
    bound = array.job.stored_bound
    if bound is None or bound.kind != "absolute" or block.dtype.kind != "f" or array.job.unit != 1.0:
        return None
    if not valid_values(block, array.codec.fill).all() or block.min() == block.max():
        return None
    return rival.encode(block, bound.value)


def _check(rival: Rival, array: ArrayPlan, block: np.ndarray, data: bytes) -> None:
    bound = array.job.stored_bound
    assert bound is not None
    decoded = rival.decode(data, block.shape, block.dtype)
    # Rivals round to the dtype at the end, which their own bound does not count.
    slack = float(np.spacing(np.abs(block).max()))
    worst = float((errors_of(block, decoded) - allowed_errors(block, bound)).max())
    if worst > slack:
        raise BoundError(f"{rival.name}: {array.job.name} is {worst:g} outside of its bound")


def verified(work: Work) -> dict[str, Any]:
    """Verify an archive against its original; raises BoundError with what is wrong, if anything."""
    began = time.perf_counter()
    problems, facts = vcinr.verify(work.target, vcinr.open_groups(work.path))
    if problems:
        raise BoundError(f"{work.target}: {problems[0]}")
    return {"seconds": time.perf_counter() - began, "variables": len(facts)}


def decompressed(work: Work) -> dict[str, Any]:
    """Write an archive back as netCDF, and remove the file."""
    began, back = time.perf_counter(), Path(f"{work.target}.back.nc")
    try:
        vcinr.decompress(work.target, back)
        return {"seconds": time.perf_counter() - began, "bytes": os.path.getsize(back)}
    finally:
        back.unlink(missing_ok=True)
