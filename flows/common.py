"""What all flows share: where files lie, how progress and results are shown, and how errors end a run."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Flow, get_run_logger
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import get_current_settings

from vcinr.config import Params
from vcinr.errors import ConfigError, DownloadError, EngineLost, VcinrError
from vcinr.kinds import load
from vcinr.places import is_url, written_aside
from vcinr.progress import Progress, Watch

PARAMS = "params.yaml"
LOG_EVERY, ARTIFACT_EVERY = 1.0, 5.0  # seconds between updates of progress, at least
RETRY_DELAYS = [5.0, 20.0]  # seconds before the second and the third try of work that uses the network

_on_terminal = False  # `main` sets it to True; a run that is served has only its log


@dataclass(frozen=True)
class Places:
    """The paths at which the stages read and write for one source. dvc.yaml declares the same paths."""

    source: str
    archive_name: str
    raw: Path = Path("data/raw")
    plots: Path = Path("plots")
    report: Path = Path("report")
    metrics: Path = Path("metrics")

    @property
    def signals(self) -> Path:
        """Signals in their splits, which ingestion writes."""
        return Path("data/signals", f"{self.source}.zarr")

    @property
    def training(self) -> Path:
        """The folder of the meta-trained model and its history."""
        return Path("training", self.source)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of meta-training, outside the training folder, which DVC empties before the stage runs."""
        return Path("training", f"{self.source}.checkpoint")

    @property
    def trained(self) -> Path:
        """The model after meta-training, without a quantiser."""
        return self.training / "model.vcinr"

    @property
    def modulations(self) -> Path:
        """The latents of all signals."""
        return Path("data/modulations", f"{self.source}.zarr")

    @property
    def model(self) -> Path:
        """The complete model, with its quantiser."""
        return Path("models", f"{self.source}.vcinr")

    @property
    def quantiser_history(self) -> Path:
        """The quantiser's learning curves."""
        return Path("models", f"{self.source}-history.csv")

    @property
    def archive(self) -> Path:
        """The archive that the source's archive data are compressed to."""
        return Path("archives", f"{self.archive_name}.zarr")


def places_of(params: Params) -> Places:
    """The paths of the active source; raises ConfigError where none is chosen."""
    if params.source is None:
        raise ConfigError(f"{PARAMS}: no source is chosen; set source: {{name: ..., archive: ...}}")
    return Places(params.source.name, params.source.archive)


def transient(error: BaseException | None) -> bool:
    """Whether trying again may help: a download or a connection failed, not a file that is missing or not readable."""
    if error is None:
        return False
    if isinstance(error, DownloadError | EngineLost):
        return True
    lasting = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
    if isinstance(error, OSError):
        return not isinstance(error, lasting)
    return transient(error.__cause__ or error.__context__)


def server_url() -> str:
    """The address of this process's Prefect server. Child processes that do not get it start servers of their own."""
    with get_client(sync_client=True) as client:
        return str(client.api_url).rstrip("/")


def tries_after_the_first(paths: Iterable[str]) -> int:
    """How often to retry work on some paths: not at all for local files, but a network may recover."""
    return len(RETRY_DELAYS) if any(map(is_url, paths)) else 0


def worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's retry condition for tasks: whether the error that ended a try is `transient`."""
    try:
        state.result()
    except Exception as error:
        return transient(error)
    return False


def say(line: str) -> None:
    """Print a line on standard error where a flow runs as a command; see `main`."""
    if _on_terminal:
        print(line, file=sys.stderr, flush=True)


def watcher(stage: str) -> Watch:
    """Make a callback that shows progress in the run's log, in an artifact and, under `main`, on the terminal."""
    log = get_run_logger()
    last = {"log": float("-inf"), "artifact": float("-inf")}
    artifact: list[Any] = []

    def watch(progress: Progress) -> None:
        now, final = time.monotonic(), progress.step >= progress.total
        if final or now - last["log"] >= LOG_EVERY:
            last["log"] = now
            say(str(progress))
            log.info("%s", progress)
        if final or now - last["artifact"] >= ARTIFACT_EVERY:
            last["artifact"] = now
            percent = 100.0 * progress.step / max(1, progress.total)
            # Errors are ignored: a busy server must not end hours of training.
            with contextlib.suppress(Exception):
                if artifact:
                    update_progress_artifact(artifact[0], percent, description=str(progress))
                else:
                    key = f"{artifact_key(stage)}-progress"
                    artifact.append(create_progress_artifact(percent, key, str(progress)))

    return watch


def record(stage: str, summary: Mapping[str, Any], path: Path | None = None) -> None:
    """Publish a stage's summary as a table artifact and, where `path` is given, as a JSON file of metrics."""
    if path is not None:
        with written_aside(path) as aside:
            aside.write_text(json.dumps(summary, indent=2) + "\n")
    rows = [{"figure": name, "value": value} for name, value in _flat(summary)]
    # Errors are ignored: the table repeats what the file holds, and the stage is complete without the server.
    with contextlib.suppress(Exception):
        create_table_artifact(rows, f"{artifact_key(stage)}-summary", f"Summary of {stage}")


def artifact_key(name: str) -> str:
    """A name in the characters that Prefect allows in an artifact's key."""
    return re.sub("[^a-z0-9]+", "-", name.lower())


def _flat(summary: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The entries of nested mappings, with names joined by dots."""
    rows: list[tuple[str, Any]] = []
    for name, value in summary.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value if isinstance(value, int | float | str) else json.dumps(value)))
    return rows


class _OneLine(logging.Filter):
    """Removes the traceback of a `VcinrError` from the log, because its message says all that a user needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], VcinrError):
            record.exc_info = record.exc_text = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_OneLine())


def main(flow: Flow[..., Any], **arguments: Any) -> None:
    """Run a flow as a command.

    The terminal shows its progress; a `VcinrError` is shown as one line and gives the exit status 1. The parameters
    file is checked before anything starts. Prefect's own log goes to its server only.

    Parameters
    ----------
    flow : prefect.Flow
        The flow.
    **arguments
        Its arguments.
    """
    global _on_terminal
    _on_terminal = True
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.setLevel(logging.CRITICAL)
    try:
        load(PARAMS)
        if not get_current_settings().api.url:
            say(f"{flow.name}: starting, with a Prefect server of its own")
        flow(**arguments)
    except VcinrError as error:
        say(f"{flow.name}: {error}")
        sys.exit(1)
