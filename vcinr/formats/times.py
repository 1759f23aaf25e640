"""Times that count from a date (CF conventions: ``days since 2000-01-01``), recounted from another without rounding."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import cftime  # type: ignore[import-untyped]
import numpy as np

from vcinr.errors import InputError, one_line

MICROSECONDS = {
    "day": 86_400_000_000, "hour": 3_600_000_000, "minute": 60_000_000, "second": 1_000_000, "millisecond": 1000,
    "microsecond": 1,
}  # fmt: skip
"""Units of a fixed length."""
_SHORT = {
    "d": "day", "h": "hour", "hr": "hour", "min": "minute", "s": "second", "sec": "second", "msec": "millisecond",
    "ms": "millisecond", "us": "microsecond",
}  # fmt: skip
_TIMES = re.compile(r"\s*([A-Za-z]+)\s+since\s+(\S.*)", re.IGNORECASE)


def exact(value: Any) -> Fraction:
    """A number without any rounding."""
    return Fraction(int(value)) if isinstance(value, np.integer) else Fraction(float(value))


def unit_of(units: str) -> str | None:
    """The name of the unit that times are in; None where it has no fixed length."""
    found = _TIMES.match(units)
    word = found[1].lower() if found else ""
    word = _SHORT.get(word, _SHORT.get(word.removesuffix("s"), word.removesuffix("s")))
    return word if word in MICROSECONDS else None


def parsed(place: str, units: str) -> tuple[int, str]:
    """Microseconds of a unit of time, and the date from which it counts."""
    unit, found = unit_of(units), _TIMES.match(units)
    if unit is None or found is None:
        raise InputError(
            f"{place}: {units!r} are no units of time with a fixed length; write days or hours since a date"
        )
    return MICROSECONDS[unit], found[2]


@functools.lru_cache(maxsize=4096)
def instant(date: str, calendar: str) -> int:
    """A date in microseconds from the year 2000; raises InputError for what is none."""
    try:
        one, start = (cftime.num2date(0, f"seconds since {text}", calendar) for text in (date, "2000-01-01"))
    except Exception as error:  # cftime has its own for each way in which a date can be wrong
        raise InputError(f"the date {date!r} means nothing in the calendar {calendar!r} ({one_line(error)})") from None
    past = one - start
    return (past.days * 86400 + past.seconds) * 1_000_000 + past.microseconds


def counted_anew(values: np.ndarray, old: str, new: str, calendar: str, fills: Sequence[Any]) -> np.ndarray:
    """Times of one unit and date in another, exactly, in the same dtype; raises InputError where that cannot be."""
    (unit, date), (target, since) = parsed("", old), parsed("", new)
    factor, shift = Fraction(unit, target), Fraction(instant(date, calendar) - instant(since, calendar), target)

    def one(value: Any) -> Any:
        if value in fills or not np.isfinite(value):
            return value
        number = exact(value) * factor + shift
        if values.dtype.kind == "f":
            result = values.dtype.type(float(number))
            same = bool(np.isfinite(result)) and exact(result) == number
        else:
            limits = np.iinfo(values.dtype)
            same = number.denominator == 1 and limits.min <= number <= limits.max
            result = values.dtype.type(int(number)) if same else value
        if not same:
            raise InputError(f"{value} {old} is no exact number of {new} as {values.dtype}")
        return result

    distinct, where = np.unique(values, return_inverse=True)
    return np.array([one(v) for v in distinct], values.dtype)[where.reshape(values.shape)]
