"""How far training has come: measured in steps or, with a time budget, by the clock."""

from __future__ import annotations

from vcinr.progress import Clock

_LOOKS = 20
"""Least number of validations within a time budget."""


class Pace:
    """The progress of a loop, with or without a time budget.

    Without a budget only what is displayed depends on the clock, so that training is deterministic.

    Parameters
    ----------
    steps : int
        Largest number of steps.
    seconds : float, optional
        The budget: no step begins after that time, in which the time of earlier runs is included.
    done : int
        Steps of earlier runs, where this run resumes from their checkpoint.
    spent : float
        Seconds of earlier runs.
    """

    def __init__(self, steps: int, seconds: float | None = None, *, done: int = 0, spent: float = 0.0) -> None:
        self.steps, self.seconds = steps, seconds
        self._before, self._looked = spent, spent
        self._clock = Clock(steps, done)

    @property
    def spent(self) -> float:
        """Seconds since the loop first began, without the breaks between runs."""
        return self._before + self._clock.spent

    @property
    def out_of_time(self) -> bool:
        """Whether the budget is used up; False without a budget."""
        return self.seconds is not None and self.spent >= self.seconds

    def position(self, step: int) -> float:
        """Position in the schedule of learning rates after `step` steps, from 0 to `steps`.

        It is the step itself; within a budget, the part of the budget that is spent, times `steps`, where that is
        further. So rates warm up and decay within the budget, however fast the machine is.
        """
        if self.seconds is None:
            return step
        return max(float(step), self.steps * min(1.0, self.spent / self.seconds))

    def look_due(self) -> bool:
        """Whether a validation is due within a budget; asking when it is due starts the next interval."""
        if self.seconds is None or self.spent < min(self.seconds, self._looked + self.seconds / _LOOKS):
            return False
        self._looked = self.spent
        return True

    def left(self, step: int) -> float | None:
        """Estimate of the seconds left after `step` steps; None before the first step without a budget."""
        by_steps = self._clock.left(step)
        if self.seconds is None:
            return by_steps
        by_time = max(0.0, self.seconds - self.spent)
        return by_time if by_steps is None else min(by_steps, by_time)
