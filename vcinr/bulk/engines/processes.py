"""Processes of this machine, each with one batch at a time, so that a death is the affair of one batch alone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

from vcinr.bulk.engines.base import Engine, Pool
from vcinr.bulk.engines.messages import Message, Tell, forward_logs, sendable, telling
from vcinr.errors import EngineLost, WorkerLost


@contextmanager
def start(engine: Engine, tell: Tell) -> Iterator[Pool]:
    """Give an executor of processes, which are started when they are needed and killed when the block is left."""
    from vcinr.archive.work import cores

    workers = engine.workers or cores()
    executor = _Processes(workers, tell)
    try:
        yield Pool(executor, lambda: workers + 1)
    finally:
        executor.shutdown()


class _Processes(Executor):
    """An executor whose threads hand one call at a time to a process each.

    `ProcessPoolExecutor` would end all its processes, and every call that they run, when one of them dies.
    """

    def __init__(self, workers: int, tell: Tell) -> None:
        self._threads, self._tell = ThreadPoolExecutor(workers, "vcinr-worker"), tell
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._all: set[_Worker] = set()
        self._lock, self._closed = threading.Lock(), False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn(*args)`` in a process."""
        return self._threads.submit(self._run, fn, args)

    def _run(self, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            worker = self._idle.get_nowait()
        except Empty:
            worker = self._started()
        try:
            result = worker.ask(call, args, self._tell)
        except WorkerLost:
            self._all.discard(worker)
            raise
        except BaseException:
            self._idle.put(worker)
            raise
        self._idle.put(worker)
        return result

    def _started(self) -> _Worker:
        """A new process; one that dies while it starts gets a second chance, as an accident is no habit."""
        ends = []
        for _ in range(2):
            with self._lock:
                if self._closed:
                    raise WorkerLost("the engine has been closed")
                worker = _Worker()
                self._all.add(worker)
            if worker.ready():
                return worker
            self._all.discard(worker)
            ends.append(worker.end())
        raise EngineLost(
            f"worker processes end while they start ({', '.join(ends)}), and may have said why; the engine threads "
            "needs no processes"
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:
        """Kill the processes: what they have finished is kept, and a batch that is cut off leaves nothing half."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
        self._threads.shutdown(wait=True)


class _Worker:
    """A process, and this end of the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        level = logging.getLogger("vcinr").getEffectiveLevel()
        self.process = context.Process(target=_serve, args=(other, level), daemon=True, name="vcinr-worker")
        with _without_main():
            self.process.start()
        other.close()  # so that the pipe ends with the process

    def ready(self) -> bool:
        """Wait until the process has started; False where it has ended instead."""
        try:
            return bool(self.pipe.recv())
        except (EOFError, OSError):
            return False

    def ask(self, call: Callable[..., Any], args: tuple[Any, ...], tell: Tell) -> Any:
        """Run a call in the process; raises what the call raises, and WorkerLost where the process ends first."""
        answer = self._answer(ForkingPickler.dumps((call, args)))
        while True:
            what, value = ForkingPickler.loads(answer)
            if what == "returned":
                return value
            if what == "raised":
                raise value
            tell(value)
            answer = self._answer()

    def _answer(self, sent: Any = None) -> bytes:
        """The next message of the process, after it has been sent one, if any."""
        try:
            if sent is not None:
                self.pipe.send_bytes(sent)
            return self.pipe.recv_bytes()
        except (EOFError, OSError):
            raise WorkerLost(f"the worker process {self.process.pid} {self.end()}") from None

    def end(self) -> str:
        """How the process ended, in words."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"ended with exit status {code}"
        return f"was killed by {signal.Signals(-code).name}"


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are started in this block do not import the program that starts them.

    `multiprocessing` has them do so for functions of the program itself. It would run a script without
    ``if __name__ == "__main__"`` again, and import all of Prefect under a flow.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(pipe: Connection, level: int) -> None:
    """Answer calls until the driver closes its end of the pipe; what a worker process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends its workers
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # a worker is for one core
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    forward_logs(level)
    lock = threading.Lock()

    def send(data: Any) -> None:
        with lock:
            pipe.send_bytes(data)

    def tell(message: Message) -> None:
        send(ForkingPickler.dumps(("told", message)))

    with suppress(EOFError, OSError):
        pipe.send(True)
        while True:
            asked = pipe.recv_bytes()
            try:
                call, args = ForkingPickler.loads(asked)
                with telling(tell):
                    answer = ForkingPickler.dumps(("returned", call(*args)))
            except Exception as error:
                answer = ForkingPickler.dumps(("raised", sendable(error)))
            send(answer)


def _end_with_the_driver() -> None:
    """End this process when its parent ends, whatever it is doing: a later run must not meet its late writes."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
