"""The workers of a Dask cluster, by the address of its scheduler."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import partial
from typing import Any

from vcinr.bulk.engines.base import Engine, Pool, Raised
from vcinr.bulk.engines.messages import Tell, forward_logs, sendable, telling
from vcinr.errors import ConfigError, EngineLost, WorkerLost, one_line

PACKAGES = ("vcinr", "numpy", "numba")
"""What the bytes of a batch may depend on, beside Python: all places of a cluster must have the same versions."""

ASK_S = 1.0  # seconds until the scheduler is asked again which workers there are


@contextmanager
def start(engine: Engine, tell: Tell) -> Iterator[Pool]:
    """Connect to a cluster. Its workers stay when the block is left; batches that have not been started are dropped."""
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError("engine dask: needs the package distributed; pip install 'vcinr[cluster]'") from None
    try:
        connect: Any = Client  # has no types
        client = connect(engine.address, set_as_default=False, timeout=engine.wait_s)
    except (OSError, TimeoutError, ValueError) as error:
        raise EngineLost(
            f"{engine.address}: no Dask scheduler answers there ({one_line(error)}); check the address, or start one "
            "with `dask scheduler`"
        ) from None
    with client:
        topic = f"vcinr-{uuid.uuid4().hex}"
        client.subscribe_topic(topic, lambda event: tell(event[1]))
        executor = client.get_executor(pure=False, retries=0)
        level = logging.getLogger("vcinr").getEffectiveLevel()
        try:
            yield Pool(
                executor, _Cluster(client, engine).slots, _meaning, lambda call: partial(_run, topic, level, call)
            )
        finally:
            executor.shutdown(wait=False)


class _Cluster:
    """What is known of a cluster's workers, which come and go."""

    def __init__(self, client: Any, engine: Engine) -> None:
        self._client, self._engine = client, engine
        self._asked, self._seen = float("-inf"), time.monotonic()
        self._slots, self._checked = 0, set[str]()

    def slots(self) -> int:
        """Twice as many batches as there are threads, and two: so that none waits for the network."""
        now = time.monotonic()
        if now - self._asked < ASK_S:
            return self._slots
        self._asked = now
        try:
            threads = self._client.nthreads(callback_timeout=10)
        except (OSError, TimeoutError):
            threads = {}
        if threads.keys() - self._checked:
            self._check_versions()
            self._checked |= threads.keys()
        if threads:
            self._seen, self._slots = now, 2 * sum(threads.values()) + 2
        elif now - self._seen > self._engine.wait_s:
            raise EngineLost(
                f"{self._engine.address}: the Dask cluster has had no worker for {self._engine.wait_s:.0f} s; start "
                "some with `dask worker` and run the command again, which goes on from what is finished"
            )
        return self._slots

    def _check_versions(self) -> None:
        """Raise ConfigError where a place of the cluster has other versions than this process."""
        found = self._client.get_versions(packages=PACKAGES)
        own = _versions(found["client"])
        for place, versions in {"the scheduler": found["scheduler"], **found["workers"]}.items():
            other = _versions(versions)
            for name in own:
                if other[name] != own[name]:
                    raise ConfigError(
                        f"{self._engine.address}: {place} has {name} {other[name] or '(none)'} where this process has "
                        f"{own[name]}; install the same versions everywhere"
                    )


def _versions(found: Mapping[str, Any]) -> dict[str, str | None]:
    """The versions that matter, of what Dask says of a place: of Python, the first two numbers."""
    packages = found["packages"]
    python = ".".join(str(packages["python"]).split(".")[:2])
    return {"Python": python, **{name: packages.get(name) for name in PACKAGES}}


def _meaning(error: BaseException) -> BaseException:
    """What an exception of a future means, which is never one of the batch itself; see `Pool`.

    A worker that dies may take results with it that it has reported. Dask computes these again, and now and then fails
    to, with an exception of its own.
    """
    from distributed import KilledWorker
    from distributed.scheduler import NoValidWorkerError, NoWorkerError

    if isinstance(error, KilledWorker):
        return WorkerLost(f"workers of the cluster died, the last of them {error.last_worker.address}")
    if isinstance(error, CancelledError | NoWorkerError | NoValidWorkerError):
        return EngineLost(
            "the Dask scheduler or its workers are gone; run the command again when they are back, which goes on from "
            "what is finished"
        )
    return WorkerLost(f"the cluster lost a result ({one_line(error)})") if isinstance(error, Exception) else error


def _run(topic: str, level: int, call: Callable[[Any], Any], batch: Any) -> Any:
    """Run a batch on a worker, whose log and progress go to a topic of the scheduler."""
    from distributed import get_worker

    forward_logs(level)
    with telling(partial(get_worker().log_event, topic)):
        try:
            return call(batch)
        except Exception as error:
            return Raised(sendable(error))
