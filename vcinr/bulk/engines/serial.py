"""One batch after another, in the thread of the driver: for debuggers and profilers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from vcinr.bulk.engines.base import Engine, Pool
from vcinr.bulk.engines.messages import Tell, telling


@contextmanager
def start(engine: Engine, tell: Tell) -> Iterator[Pool]:
    """Give an executor that runs each call at once."""
    with telling(tell):
        yield Pool(_Here(), lambda: 1)


class _Here(Executor):
    """Runs a call while it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call; only what is an `Exception` becomes its result, so that Ctrl-C still ends the program."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
