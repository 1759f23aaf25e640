"""Threads of the driver's process: they start at once and share its memory, and none survives a crash of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from vcinr.bulk.engines.base import Engine, Pool
from vcinr.bulk.engines.messages import Tell, telling


@contextmanager
def start(engine: Engine, tell: Tell) -> Iterator[Pool]:
    """Give an executor of threads. Python cannot end a thread: leaving the block only keeps others from starting."""
    from vcinr.archive.work import cores

    workers = engine.workers or cores()
    executor = ThreadPoolExecutor(workers)
    try:
        yield Pool(executor, lambda: workers + 1, prepared=lambda call: partial(_told, tell, call))
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _told(tell: Tell, call: Callable[[Any], Any], batch: Any) -> Any:
    """Run a batch whose progress goes to `tell`."""
    with telling(tell):
        return call(batch)
