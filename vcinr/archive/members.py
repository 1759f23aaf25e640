"""The signals of files that share an array: which part of it each has, and the errors that were seen of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from vcinr.formats.base import ITEM, NAME, ROW_SIZE


@dataclass(frozen=True, eq=False)
class Members:
    """The N signals of an array.

    Parameters
    ----------
    names : tuple of str
        Names of their files.
    axis : int
        The array axis along which they follow one another.
    ends : numpy.ndarray
        Where each ends along it, int64 ``[N]``.
    worst, squared, valid : numpy.ndarray
        Of each, as far as `add` has been told: the largest error, the sum of squared errors, and the number of values;
        float64, float64 and int64 ``[N]``.
    iou : numpy.ndarray
        Of shapes, their IoU, float64 ``[N]``; NaN where none was given.
    """

    names: tuple[str, ...]
    axis: int
    ends: np.ndarray
    worst: np.ndarray
    squared: np.ndarray
    valid: np.ndarray
    iou: np.ndarray

    def add(self, part: Sequence[slice], errors: np.ndarray, kept: np.ndarray) -> None:
        """Count the errors of a chunk's values, which are `part` of the array; those that are not `kept` do not count.

        Signals may lie in several chunks, and be told of in any order.
        """
        for number, inside in self._pieces(part[self.axis]):
            index = (*(slice(None) for _ in range(self.axis)), inside)
            seen = errors[index][kept[index]]
            with np.errstate(over="ignore"):
                self.worst[number] = max(self.worst[number], float(seen.max(initial=0.0)))
                self.squared[number] += float(np.square(seen).sum())
            self.valid[number] += seen.size

    def merge(self, other: Members) -> None:
        """Add what was seen of the same signals in other chunks."""
        np.maximum(self.worst, other.worst, out=self.worst)
        with np.errstate(over="ignore"):
            self.squared[:] += other.squared
        self.valid[:] += other.valid
        self.iou[:] = np.where(np.isnan(self.iou), other.iou, self.iou)

    def _pieces(self, part: slice) -> Iterator[tuple[int, slice]]:
        """The signals within a part of the axis: their numbers, and where they lie in it."""
        number, begin = int(np.searchsorted(self.ends, part.start, side="right")), part.start
        while begin < part.stop and number < len(self.ends):
            end = min(int(self.ends[number]), part.stop)
            yield number, slice(begin - part.start, end - part.start)
            number, begin = number + 1, end


def members_of(group: xr.Dataset, array: xr.DataArray) -> Members | None:
    """Find the signals in an array of joined files (:mod:`vcinr.kinds.files`).

    Parameters
    ----------
    group : xarray.Dataset
        The original's group, with names and lengths.
    array : xarray.DataArray
        One of its variables.

    Returns
    -------
    Members or None
        None where it holds no such signals.
    """
    if NAME not in group.variables or group.variables[NAME].dims != (ITEM,):
        return None
    names = tuple(str(name) for name in group.variables[NAME].values)
    count, dims = len(names), list(map(str, array.dims))
    if ITEM in dims:
        axis, ends = dims.index(ITEM), np.arange(1, count + 1)
    elif ROW_SIZE in group.variables and group.variables[ROW_SIZE].attrs.get("sample_dimension") in dims:
        axis = dims.index(group.variables[ROW_SIZE].attrs["sample_dimension"])
        ends = np.cumsum(np.asarray(group.variables[ROW_SIZE].values, np.int64))
    else:
        return None
    return Members(
        names, axis, ends, np.zeros(count), np.zeros(count), np.zeros(count, np.int64), np.full(count, np.nan)
    )


def peak_of(kind: str, dtype: np.dtype, attrs: Any, low: float, high: float) -> tuple[float, str]:
    """Choose the peak of a PSNR.

    Parameters
    ----------
    kind : str
        The kind of signal.
    dtype : numpy.dtype
        Of the numbers as stored.
    attrs : mapping
        Of the variable; the attribute ``bits`` says how many of an integer's bits count.
    low, high : float
        The least and the greatest stored number of all signals that share the array.

    Returns
    -------
    peak : float
        In units of the stored numbers: for sound full scale, which is 1 for floats; the largest number of so many bits
        for unsigned integers; and else the range, which is 0 for a constant.
    words : str
        What it is.
    """
    bits = int(np.ravel(attrs.get("bits", 8 * dtype.itemsize))[0])
    if kind == "sound":
        return (1.0 if dtype.kind == "f" else 2.0 ** (bits - 1)), "full scale"
    if dtype.kind == "u":
        return 2.0**bits - 1, f"{2**bits - 1}"
    return (high - low if high > low else 0.0), "the range"
