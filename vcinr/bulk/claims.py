"""Who works on what: several runs share a staging place, and each batch is begun by one of them.

A run has one file that it renews as long as it lives, and marks each batch that it begins with its name. A mark counts
as long as its run lives: the batches of a run that was killed are free again after `LEASE_S`, and at once for a run on
the same machine. Where a mark is overlooked a batch is done twice, with the same result.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import threading
import time
from types import TracebackType
from typing import Self

from vcinr.archive.manifest import MALFORMED
from vcinr.bulk.place import Place

RUNS, CLAIMS = "runs", "claims"
"""Folders of the staging place."""
RENEW_S = 30.0
"""Seconds after which a run says again that it lives."""
LEASE_S = 300.0
"""Seconds without such a word after which a run is taken for dead; clocks of machines may differ by less."""


class Claims:
    """The marks of one run; a context manager.

    Parameters
    ----------
    staging
        The staging place.
    """

    def __init__(self, staging: Place) -> None:
        self._staging = staging
        self.run = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        self._say()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Give all marks up; more than once does nothing."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self._staging.remove(self._file(self.run))

    def take(self, name: str) -> bool:
        """Claim a batch or any other work by its name; False where a run that lives has it."""
        key = f"{CLAIMS}/{name}"
        if self._staging.create(key, self.run.encode()):
            return True
        if self.holder(name) in (None, self.run):
            self._staging.put(key, self.run.encode())
            return True
        return False

    def holder(self, name: str) -> str | None:
        """The run that has claimed some work, if it lives."""
        data = self._staging.get(f"{CLAIMS}/{name}")
        run = (data or b"").decode(errors="replace")
        return run if run and self._lives(run) else None

    def others(self) -> list[str]:
        """Other runs that live."""
        runs = [name.removesuffix(".json") for name in self._staging.sizes(RUNS)]
        return [run for run in runs if run != self.run and self._lives(run)]

    def _lives(self, run: str) -> bool:
        if run == self.run:
            return True
        try:
            node = json.loads(self._staging.get(self._file(run)) or b"")
            host, pid, said = str(node["host"]), int(node["pid"]), float(node["time"])
        except MALFORMED:
            return False
        if host == socket.gethostname() and not _exists(pid):
            return False
        return time.time() - said < LEASE_S

    def _say(self) -> None:
        node = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        self._staging.put(self._file(self.run), json.dumps(node).encode())

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                self._say()
            except Exception:  # the place may be away for a while; the next word counts
                continue

    @staticmethod
    def _file(run: str) -> str:
        return f"{RUNS}/{run}.json"


def of_target(target: str) -> str:
    """The name of the claim on an archive."""
    return "target-" + hashlib.sha256(target.encode()).hexdigest()[:16]


def _exists(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
