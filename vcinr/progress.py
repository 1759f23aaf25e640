"""Progress of long work: one small record, handed to whoever watches (a terminal, a Prefect flow, nobody)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """`step` of `total` of `stage` is done; `values` are the figures worth watching (loss, psnr_db, ...)."""

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
    """Estimates the time left of a loop from the steps this run has done (a resumed run starts at `done`)."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.start, self.began = total, done, time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since this run of the loop began."""
        return time.monotonic() - self.began

    def left(self, step: int) -> float | None:
        """Seconds left after `step` steps, None before the first."""
        done = step - self.start
        return None if done <= 0 else self.spent / done * (self.total - step)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
