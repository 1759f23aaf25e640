"""The whole pipeline as one Prefect flow, a task a stage. Stages and their order are DVC's (dvc.yaml)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait

from flows.common import main, say, server_url
from vcinr.errors import VcinrError

GRACE = 10.0  # seconds between asking a stage to end and ending it

_running: set[subprocess.Popen[str]] = set()


def stages() -> tuple[Path, dict[str, list[str]]]:
    """The repository's folder and its dvc.yaml's stages in an order that can be run, each with those it depends on.

    Stages of other folders, such as benchmarks/dvc.yaml, are no part of the pipeline.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            graph, root = repo.index.graph, Path(repo.root_dir)
            own = {node for node in graph if Path(node.path) == root / "dvc.yaml"}
            # An edge leads from a stage to one that it depends on.
            after = {n.addressing: sorted(d.addressing for d in graph.successors(n) if d in own) for n in own}
            order = TopologicalSorter(after).static_order()
            return root, {name: after[name] for name in order}
    except DvcException as error:
        raise VcinrError(f"dvc: {' '.join(str(error).split())}") from None


@task(name="stage", cache_policy=NO_CACHE, task_run_name="{name}")
def run_stage(name: str, root: Path, api_url: str, force: bool) -> None:
    """Let DVC bring one stage up to date, its output in this task's log."""
    log = get_run_logger()
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *(["--force"] if force else []), name]
    # `python` in a stage's command is this one; its flow uses the server that is already up.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path, "PREFECT_API_URL": api_url, "PYTHONUNBUFFERED": "1"}
    with _process(command, cwd=root, env=env) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                say(f"{name} | {line.rstrip()}")
                log.info("%s", line.rstrip())
    if process.returncode:
        raise VcinrError(f"stage {name} failed (exit status {process.returncode}); its log says why")


@contextmanager
def _process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that leads a group of its own; the whole group is gone when the block is left."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes, **options)
    _running.add(process)
    try:
        yield process
        process.wait()
    finally:
        _end(process)
        _running.discard(process)
        if process.stdout:
            process.stdout.close()


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all it started: a stage's command outlives a kill of DVC alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)


@flow(name="pipeline")
def pipeline(force: bool = False) -> list[str]:
    """Bring every stage of dvc.yaml up to date, each after those it depends on.

    Args:
        force: run the stages even where nothing has changed.
    """
    root, after = stages()
    api_url = server_url()
    futures: dict[str, PrefectFuture[None]] = {}
    try:
        for name, needed in after.items():
            waits = [futures[n] for n in needed]
            futures[name] = run_stage.submit(name, root, api_url, force, wait_for=waits, return_state=False)
        wait(list(futures.values()))
    finally:  # a cancelled run arrives here too
        for process in list(_running):
            _end(process)
    for future in futures.values():
        if future.state.is_failed():
            future.result()
    return list(futures)


if __name__ == "__main__":
    main(pipeline)
