"""One of the processes in which a stage of training runs: ``torchrun ... -m vcinr.worker FOLDER``.

:mod:`vcinr.processes` starts it, and says what it is told and answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vcinr import stages
from vcinr.config import Params
from vcinr.errors import VcinrError
from vcinr.meta.ranks import joined
from vcinr.places import written_aside
from vcinr.processes import PROGRESS, RESULT, TOLD
from vcinr.progress import Progress

STAGES: dict[str, Callable[..., dict[str, Any]]] = {"learn": stages.learn, "complete": stages.complete}
"""The stages that several processes can run together."""


def _tell(progress: Progress) -> None:
    # Where the parent has been killed, nobody listens: the error ends training, so that it does not go on by itself.
    print(PROGRESS + json.dumps({**asdict(progress), "values": dict(progress.values)}), flush=True)


def main(folder: Path) -> None:
    """Run the stage that the folder tells of, and answer there.

    An error of the user's making is an answer too: torchrun need not try again.
    """
    told = json.loads((folder / TOLD).read_text())
    params = Params.model_validate_json(told["params"])
    paths = {key: Path(path) for key, path in told["paths"].items()}
    try:
        with joined(params.device) as ranks:
            result = STAGES[told["stage"]](params, **paths, seconds=told["seconds"], ranks=ranks, watch=_tell)
            if not ranks.first:
                return
        answer: dict[str, Any] = {"result": result}
    except VcinrError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    with written_aside(folder / RESULT) as aside:
        aside.write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
