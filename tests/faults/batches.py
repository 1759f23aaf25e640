"""Batches that fail on purpose. Each call leaves a mark in a file, so that a test can count how often a batch ran."""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from vcinr.bulk.engines import engine_of, report, run
from vcinr.progress import Progress


@dataclass(frozen=True)
class Fake:
    """A batch of a name, which takes some seconds and does what `act` says."""

    folder: Path
    name: str
    act: str = ""
    seconds: float = 0.0


class Peculiar(Exception):
    """An exception that is not made again from its arguments alone, and so cannot be pickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def work(batch: Fake) -> str:
    """Leave a mark, do as the batch says, and return its name."""
    with open(batch.folder / batch.name, "a") as marks:
        marks.write(f"{os.getpid()}\n")
    time.sleep(batch.seconds)
    match batch.act:
        case "die":
            os._exit(3)
        case "refuse":
            raise ConnectionResetError("no luck")
        case "peculiar":
            raise Peculiar("one", "two")
        case "unpicklable":
            return lambda: batch.name  # type: ignore[return-value]
        case "threads":
            return os.environ["OMP_NUM_THREADS"]
        case "tell":
            logging.getLogger("vcinr").info("%s speaks", batch.name)
            logging.getLogger("vcinr").debug("too low for anyone")
            report(Progress(batch.name, 1, 2, {"loss": 0.5}))
    return batch.name


def fakes(folder: Path, count: int, seconds: float = 0.0, **acts: str) -> list[Fake]:
    """Batches b0, b1, ..., of which some act: ``b3="die"``."""
    return [Fake(folder, f"b{i}", acts.get(f"b{i}", ""), seconds) for i in range(count)]


def counts(folder: Path) -> dict[str, int]:
    """How often each batch has begun."""
    return {path.name: len(path.read_text().split()) for path in folder.glob("b*")}


def pids(folder: Path) -> set[int]:
    """The processes that have run batches."""
    return {int(line) for path in folder.glob("b*") for line in path.read_text().split()}


def drive_for_a_minute(folder: Path) -> None:
    """Run three batches of a minute each, one after another in a process."""
    list(run(engine_of("processes", workers=1), work, fakes(folder, 3, seconds=60.0)))


def end_at_once(*_: object) -> None:
    """Stands for the main function of a worker process."""
    os._exit(4)
