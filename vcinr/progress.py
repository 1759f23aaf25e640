"""Progress of long work: a small record that is given to whoever watches, such as a terminal or a Prefect flow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far some long work has come.

    Parameters
    ----------
    stage : str
        Name of the work.
    step, total : int
        How many steps have been done, and how many there are.
    values : mapping of str to float
        Figures worth watching, such as loss and psnr_db; errors are in the variable's units.
    seconds_left : float, optional
        Estimated time until the end; None where there is no estimate.
    note : str
        Anything else worth a word, such as who did the step.
    """

    stage: str
    step: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    note: str = ""

    def __str__(self) -> str:
        figures = "  ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        left = "" if self.seconds_left is None else f"  {_clock(self.seconds_left)} left"
        note = f"  {self.note}" if self.note else ""
        return f"{self.stage} {self.step}/{self.total}  {figures}{left}{note}"


Watch = Callable[[Progress], None]
"""A function that is told of progress."""


def silent(_: Progress) -> None:
    """Ignore progress."""


def terminal(progress: Progress) -> None:
    """Print each record as a line on standard error."""
    print(progress, file=sys.stderr, flush=True)


class Clock:
    """Estimates how long a loop still takes, from the pace of this run.

    Parameters
    ----------
    total : int
        Number of steps of the loop.
    done : int
        Number of steps that had been done when this run began: a resumed run does not start at 0.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.start, self.began = total, done, time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since this run of the loop began."""
        return time.monotonic() - self.began

    def left(self, step: int) -> float | None:
        """Estimated seconds until the end, once `step` steps have been done; None before this run's first step."""
        done = step - self.start
        return None if done <= 0 else self.spent / done * (self.total - step)


def _clock(seconds: float) -> str:
    """Seconds as minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
