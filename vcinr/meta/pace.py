"""How far training has come: by its steps or, where it has a time budget, by the clock."""

from __future__ import annotations

from vcinr.progress import Clock

_LOOKS = 20
"""How often, within a budget, training looks at held-out signals at least."""


class Pace:
    """The progress of a loop of at most `steps`, in a time budget if it has one.

    Without a budget nothing here depends on the clock but what is displayed, so that training is deterministic.

    Parameters
    ----------
    steps : int
        At most so many steps.
    seconds : float, optional
        The budget: no step begins after so much time, that of earlier runs included.
    done : int
        Steps of earlier runs, from whose checkpoint this one goes on.
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
        """Whether the budget is used up."""
        return self.seconds is not None and self.spent >= self.seconds

    def position(self, step: int) -> float:
        """Where the schedule of learning rates is after `step` steps, from 0 to `steps`.

        It is the step itself, or as large a part of `steps` as of the budget is spent, where that is further. So rates
        warm up and decay within the budget, at whatever speed the machine takes steps.
        """
        if self.seconds is None:
            return step
        return max(float(step), self.steps * min(1.0, self.spent / self.seconds))

    def look_due(self) -> bool:
        """Whether, within a budget, it is time for another look at held-out signals; each look starts a new wait."""
        if self.seconds is None or self.spent < min(self.seconds, self._looked + self.seconds / _LOOKS):
            return False
        self._looked = self.spent
        return True

    def left(self, step: int) -> float | None:
        """Seconds left after `step` steps, None before the first."""
        by_steps = self._clock.left(step)
        if self.seconds is None:
            return by_steps
        by_time = max(0.0, self.seconds - self.spent)
        return by_time if by_steps is None else min(by_steps, by_time)
