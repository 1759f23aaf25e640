"""What workers have to say while they run a batch: log records and progress, as plain data for any kind of wire."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeAlias

from vcinr.errors import one_line
from vcinr.progress import Progress, Watch

Message: TypeAlias = dict[str, Any]
"""Numbers, texts, and lists and dicts of these."""

Tell: TypeAlias = Callable[[Message], None]
"""A function that brings a message to the process that drives the batches."""

_log = logging.getLogger("vcinr")
_tell: ContextVar[Tell | None] = ContextVar("tell", default=None)


def report(progress: Progress) -> None:
    """Tell the driver how far a batch has come; does nothing outside of a batch.

    Parameters
    ----------
    progress : Progress
        Goes to the `watch` of :func:`vcinr.bulk.engines.run`.
    """
    if tell := _tell.get():
        values = {name: float(value) for name, value in progress.values.items()}
        tell({"progress": {**asdict(progress), "values": values}})


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """In this thread, `report` and nothing else goes to `tell` while the block lasts."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


def forward_logs(level: int) -> None:
    """From now on, records of the log ``vcinr`` go where `report` goes; for processes other than the driver's.

    Parameters
    ----------
    level : int
        The least level of a record that is forwarded.
    """
    _log.setLevel(level)
    if not any(isinstance(handler, _Forward) for handler in _log.handlers):
        _log.addHandler(_Forward())


def pass_on(message: Message, watch: Watch) -> None:
    """Handle a worker's message in the driver: log what it logged, and give its progress to `watch`."""
    if "progress" in message:
        watch(Progress(**message["progress"]))
    else:
        logging.getLogger(message["log"]).log(message["level"], "%s", message["text"])


def sendable(error: Exception) -> Exception:
    """An exception as the driver will get it, with its traceback as a note; one that cannot be pickled as text."""
    error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return RuntimeError(one_line(error))
    return error


class _Forward(logging.Handler):
    """Sends records to the driver of the batch that this thread runs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        if tell := _tell.get():
            tell({"log": record.name, "level": record.levelno, "text": self.format(record)})
