"""The loop that feeds an engine: a few batches under way, every result once, and no innocent batch blamed."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Generic, TypeAlias, TypeVar

from vcinr.bulk.engines.base import Engine, Pool, Raised
from vcinr.bulk.engines.messages import Message, pass_on
from vcinr.errors import EngineLost, WorkerLost, one_line
from vcinr.progress import Watch, silent

B = TypeVar("B")
R = TypeVar("R")

TICK_S = 0.5  # seconds until the engine is asked again how many batches it takes

_log = logging.getLogger("vcinr")


def run(
    engine: Engine, call: Callable[[B], R], batches: Iterable[B], *, stall_s: float = 600.0, watch: Watch = silent
) -> Iterator[tuple[B, R | Exception]]:
    """Run every batch, and give the results in the order in which they come.

    Parameters
    ----------
    engine : Engine
        Which workers; they are started when the first result is asked for, and ended with the iterator.
    call : callable
        A function of a batch, of a module that workers can import. Batches and results are pickled for workers in
        other processes.
    batches : iterable
        May be endless: batches are drawn as workers become free for them.
    stall_s : float
        Seconds without a result, a log record or progress of any worker after which the engine is taken for lost.
    watch : callable
        Is told, in this thread, of what workers give to :func:`vcinr.bulk.engines.report`. Their records of the log
        ``vcinr`` are logged here.

    Yields
    ------
    batch, result or Exception
        Each batch once, with what `call` returned or raised. Where a worker died, the batches that it may have died of
        are run again at the end, one at a time, so that only the guilty fail: with `WorkerLost`.

    Raises
    ------
    EngineLost
        Where the scheduler or all workers are gone, or stalled. The batches that have not been yielded may or may not
        have been finished.
    ConfigError
        Where the engine cannot be started, or its workers have other versions of the packages that bytes depend on.
    """
    inbox: SimpleQueue[Future[R] | Message] = SimpleQueue()
    driver = threading.get_ident()

    def tell(message: Message) -> None:
        if threading.get_ident() == driver:
            pass_on(message, watch)
        else:
            inbox.put(message)

    work = _Work(batches)
    while not work.done:
        with engine.start(engine, tell) as pool:
            yield from _passed(pool, pool.prepared(call), work, inbox, stall_s, watch)


@dataclass(frozen=True)
class _Job(Generic[B]):
    """A batch, and whether a worker has died under it before."""

    batch: B
    suspect: bool = False


class _Work(Generic[B]):
    """What is still to be started: fresh batches, and after them the suspects, each when nothing else is under way."""

    def __init__(self, batches: Iterable[B]) -> None:
        self._fresh = iter(batches)
        self._suspects: deque[B] = deque()
        self._drawn = False

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self._drawn and not self._suspects

    def next(self, idle: bool) -> _Job[B] | None:
        """The next batch, if any may start now; `idle` says that none is under way."""
        for batch in self._fresh:
            return _Job(batch)
        self._drawn = True
        return _Job(self._suspects.popleft(), suspect=True) if idle and self._suspects else None

    def suspect(self, batch: B) -> None:
        """Keep a batch for a second try."""
        self._suspects.append(batch)

    def put_back(self, job: _Job[B]) -> None:
        """Take a batch back that was not started after all."""
        if job.suspect:
            self._suspects.appendleft(job.batch)
        else:
            self._fresh, self._drawn = chain([job.batch], self._fresh), False


_Result: TypeAlias = tuple[B, R | Exception]


def _passed(
    pool: Pool, call: Callable[[B], R], work: _Work[B], inbox: SimpleQueue[Future[R] | Message], stall_s: float,
    watch: Watch,
) -> Iterator[_Result[B, R]]:  # fmt: skip
    """Run what is left on a pool, until nothing is or the pool breaks."""
    live: dict[Future[R], _Job[B]] = {}
    broken, ended, heard = False, 0, time.monotonic()
    while True:
        slots = 0 if broken else pool.slots()
        while len(live) < slots and (job := work.next(idle=not live)):
            try:
                future = pool.executor.submit(call, job.batch)
            except BrokenExecutor as error:
                work.put_back(job)
                if not ended:
                    raise EngineLost(f"the engine broke before it ran a batch ({one_line(error)})") from error
                broken = True
                break
            live[future], heard = job, time.monotonic()
            future.add_done_callback(inbox.put)
        if not live and (broken or work.done):
            return
        try:
            event = inbox.get(timeout=min(TICK_S, stall_s))
        except Empty:
            if live and time.monotonic() - heard > stall_s:
                raise EngineLost(
                    f"no sign of life of {len(live)} batches for {stall_s:.0f} s; run the command again, which goes on "
                    "from what is finished, or allow more time"
                ) from None
            continue
        if not isinstance(event, Future):
            pass_on(event, watch)
        elif job := live.pop(event, None):  # others are of a pool that has been left
            ended += 1
            result = _result(event, pool)
            broken = broken or isinstance(result, BrokenExecutor)
            if not isinstance(result, WorkerLost | BrokenExecutor):
                yield job.batch, result
            elif not job.suspect:
                _log.warning("%s; what it ran will be run again at the end, by itself", one_line(result))
                work.suspect(job.batch)
            else:
                yield job.batch, _guilty(result)
        heard = time.monotonic()


def _guilty(death: WorkerLost | BrokenExecutor) -> WorkerLost:
    """The error of a batch under which a worker died when it was alone."""
    return WorkerLost(
        f"{one_line(death)}, the second time that a worker did so under this batch, and nothing else was under way; "
        "give it more memory or a smaller chunk, or leave its input out"
    )


def _result(future: Future[R], pool: Pool) -> R | Exception:
    """What a future returned or raised; raises EngineLost and whatever else is no matter of one batch."""
    error = CancelledError() if future.cancelled() else future.exception()
    if error is None:
        result = future.result()
        return result.error if isinstance(result, Raised) else result
    meaning = pool.meaning(error)
    if isinstance(meaning, EngineLost) or not isinstance(meaning, Exception):
        raise meaning
    return meaning
