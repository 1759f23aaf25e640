"""What an engine is: a name, and a function that starts its workers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from vcinr.bulk.engines.messages import Tell


@dataclass(frozen=True)
class Engine:
    """Which workers are to run batches; nothing has been started yet.

    Parameters
    ----------
    name : str
        Name of the engine.
    start : callable
        Starts the workers or connects to them: ``start(engine, tell)`` is a context manager that gives a `Pool` and,
        when it is left, ends whatever still runs. What workers have to say goes to `tell`, from any thread.
    workers : int, optional
        How many processes or threads; by default as many as this process may use cores.
    address : str, optional
        Where the workers are found, for an engine that does not start them itself.
    wait_s : float
        Seconds after which a scheduler that does not answer, or one that has no worker, is taken for lost.
    """

    name: str
    start: Start
    workers: int | None = None
    address: str | None = None
    wait_s: float = 60.0


@dataclass(frozen=True)
class Raised:
    """What a batch raised, as a result: where a pool gives these, an exception of a future is the pool's own.

    Parameters
    ----------
    error : Exception
        The exception.
    """

    error: Exception


@dataclass(frozen=True)
class Pool:
    """Workers that have been started.

    Parameters
    ----------
    executor : Executor
        Runs a call on one of the workers. When it raises or returns a `BrokenExecutor`, all its batches are suspected
        of having killed it, and the engine is started again.
    slots : callable
        How many batches may be under way now. It is asked about once a second and may raise `EngineLost`.
    meaning : callable
        What an exception of a future means: a `WorkerLost`, where the batch may have killed its worker; an
        `EngineLost`, where there is no use in going on; or the same exception, where the batch itself failed.
    prepared : callable
        Makes of the function of a batch the function that is sent to a worker, which may return a `Raised`.
    """

    executor: Executor
    slots: Callable[[], int]
    meaning: Callable[[BaseException], BaseException] = lambda error: error
    prepared: Callable[[Callable[[Any], Any]], Callable[[Any], Any]] = lambda call: call


Start: TypeAlias = Callable[[Engine, Tell], AbstractContextManager[Pool]]
"""A function that starts an engine's workers; see `Engine`."""
