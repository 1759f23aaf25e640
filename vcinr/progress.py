"""Progress of long work: one small record, handed to whoever watches (a terminal, a Prefect flow, nobody)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far long work has come.

    Parameters
    ----------
    stage
        What is being done.
    step, total
        How many steps of how many are done.
    values
        The figures worth watching (loss, psnr_db, ...); errors are in the variable's units.
    seconds_left
        An estimate; None where there is none.
    """

    stage: str
    step: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None

    def __str__(self) -> str:
        figures = "  ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        left = "" if self.seconds_left is None else f"  {_clock(self.seconds_left)} left"
        return f"{self.stage} {self.step}/{self.total}  {figures}{left}"


Watch = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Watch nothing."""


def terminal(progress: Progress) -> None:
    """One line on standard error for each record."""
    print(progress, file=sys.stderr, flush=True)


class Clock:
    """Estimates how long a loop still takes, from the steps that this run has done.

    Parameters
    ----------
    total
        How many steps there are.
    done
        How many were done before: a resumed run does not start at 0.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.start, self.began = total, done, time.monotonic()

    @property
    def spent(self) -> float:
        """Return the seconds since this run of the loop began."""
        return time.monotonic() - self.began

    def left(self, step: int) -> float | None:
        """Return an estimate of the seconds left after `step` steps; None before the first."""
        done = step - self.start
        return None if done <= 0 else self.spent / done * (self.total - step)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
