"""Training in several processes of one machine: torchrun is started as a child, and its processes run a stage.

What they are told, and what they answer, are JSON files in a temporary folder; progress comes as lines of JSON on the
first one's standard output. The other side of this is :mod:`vcinr.worker`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vcinr import errors
from vcinr.config import Params
from vcinr.errors import VcinrError
from vcinr.progress import Progress, Watch

MAX_RESTARTS = 3
"""How often training goes on from its checkpoint after a process has died."""
TOLD, RESULT, PROGRESS = "told.json", "result.json", "vcinr-progress "
"""Files of the folder that parent and children share, and the beginning of a line of progress."""
_GRACE = 10.0  # seconds that torchrun has to end its processes before it is killed


def in_processes(
    stage: str, params: Params, paths: Mapping[str, Path], seconds: float | None, watch: Watch
) -> dict[str, Any]:  # fmt: skip
    """Run a stage in ``params.processes`` processes; if one dies, all are started again, at most `MAX_RESTARTS` times.

    Parameters
    ----------
    stage : str
        Name of a function of :mod:`vcinr.stages`: ``learn`` or ``complete``.
    params : Params
        The parameters.
    paths : mapping of str to Path
        Its other arguments by name.
    seconds : float or None
        Its time budget.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        What the stage returns.

    Raises
    ------
    VcinrError
        What the stage raises, and where a process dies again and again.
    """
    with tempfile.TemporaryDirectory(prefix="vcinr-") as name:
        folder = Path(name)
        told = {
            "stage": stage, "params": params.model_copy(update={"processes": 1}).model_dump_json(),
            "paths": {key: str(path) for key, path in paths.items()}, "seconds": seconds,
        }  # fmt: skip
        (folder / TOLD).write_text(json.dumps(told))
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={params.processes}",
            f"--max-restarts={MAX_RESTARTS}", "-m", "vcinr.worker", name,
        ]  # fmt: skip
        status = _watched(command, folder / "errors.txt", watch)
        result = folder / RESULT
        answer = json.loads(result.read_text()) if result.exists() else None
        if answer is not None and "error" in answer:
            raise getattr(errors, answer["error"], VcinrError)(answer["message"])
        if answer is None or status:
            lines = [line for line in (folder / "errors.txt").read_text().splitlines() if "Error" in line]
            why = f": {lines[0].strip()[:200]}" if lines else ""
            raise VcinrError(
                f"training in {params.processes} processes ended with status {status}{why}; the same command goes on "
                "from the checkpoint, also with another number of processes"
            )
        return answer["result"]


def _watched(command: list[str], log: Path, watch: Watch) -> int:
    """Run a command to its end, or end it where this process is interrupted; returns its exit status."""
    # One thread for each process unless the caller says otherwise, as torchrun has it, but without its warning.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with open(log, "w") as complaints:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(PROGRESS):
                    watch(Progress(**json.loads(line.removeprefix(PROGRESS))))
            return process.wait()
        finally:
            process.terminate()  # torchrun ends its processes; nothing happens where it has ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            process.kill()
            if process.stdout is not None:
                process.stdout.close()
