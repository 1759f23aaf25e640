"""The whole pipeline as one Prefect flow, with a task for each stage. Stages and their order are DVC's (dvc.yaml)."""

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

GRACE = 10.0  # seconds that a stage has to end by itself before it is killed

_running: set[subprocess.Popen[str]] = set()


def stages() -> tuple[Path, dict[str, list[str]]]:
    """Read the stages of the repository's dvc.yaml.

    Stages of other folders, such as those of benchmarks/dvc.yaml, are not part of the pipeline.

    Returns
    -------
    root : Path
        The repository's folder.
    stages : dict of str to list of str
        For each stage those that it depends on; the stages are in an order in which they can be run.

    Raises
    ------
    VcinrError
        Where DVC cannot read them.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            graph, root = repo.index.graph, Path(repo.root_dir)
            nodes = {node for node in graph if Path(node.path) == root / "dvc.yaml"}
            # An edge leads from a stage to one that it depends on.
            needed = {n.addressing: sorted(d.addressing for d in graph.successors(n) if d in nodes) for n in nodes}
            order = TopologicalSorter(needed).static_order()
            return root, {name: needed[name] for name in order}
    except DvcException as error:
        raise VcinrError(f"dvc: {' '.join(str(error).split())}") from None


@task(name="stage", cache_policy=NO_CACHE, task_run_name="{name}")
def run_stage(name: str, root: Path, api_url: str, force: bool) -> None:
    """Let DVC bring one stage up to date, and copy its output to this task's log."""
    log = get_run_logger()
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *(["--force"] if force else []), name]
    # `python` in a stage's command has to be this one, and its flow has to use the server that is running already.
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
    """Run a process as the leader of a group of its own. The whole group has ended when the block is left."""
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
    """End a process and all that it started, because a stage's command would go on if DVC alone were killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)


@flow(name="pipeline")
def pipeline(force: bool = False) -> list[str]:
    """Bring all stages of dvc.yaml up to date, each after those that it depends on.

    Args:
        force: run the stages even where nothing has changed.
    """
    root, stages_needed = stages()
    api_url = server_url()
    futures: dict[str, PrefectFuture[None]] = {}
    try:
        for name, needed in stages_needed.items():
            waits = [futures[n] for n in needed]
            futures[name] = run_stage.submit(name, root, api_url, force, wait_for=waits, return_state=False)
        wait(list(futures.values()))
    finally:  # a run that is cancelled gets here too
        for process in list(_running):
            _end(process)
    for future in futures.values():
        if future.state.is_failed():
            future.result()
    return list(futures)


if __name__ == "__main__":
    main(pipeline)
