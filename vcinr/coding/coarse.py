"""Coarse copies of arrays: one value stands for a block of k along each axis of a volume.

The last three axes longer than 1 are those of volumes, as for bits (`vcinr.coding.bits.items_of`). Blocks at the end
are smaller where k does not divide a length.
"""

from __future__ import annotations

import numpy as np

from vcinr.coding.bits import items_of


def coarse_shape(shape: tuple[int, ...], factor: int) -> tuple[int, int, int, int]:
    """The shape ``[N, d, h, w]`` of the coarse copy of an array of `shape` by a factor."""
    items, *lengths = items_of(shape)
    depth, height, width = (-(-n // factor) for n in lengths)
    return items, depth, height, width


def grown(coarse: np.ndarray, shape: tuple[int, ...], factor: int) -> np.ndarray:
    """The array of `shape` in which each value of its coarse copy fills its block."""
    whole = coarse
    for axis, length in enumerate(items_of(shape)[1:], 1):
        # Only as often as it is needed: a factor may be larger than any length.
        whole = np.repeat(whole, min(factor, length), axis)[(slice(None),) * axis + (slice(length),)]
    return whole.reshape(shape)


def sums_in_blocks(values: np.ndarray, factor: int) -> np.ndarray:
    """The sums over the blocks of a volume array.

    Parameters
    ----------
    values : numpy.ndarray
        ``[N, D, H, W]`` of numbers or truth values.
    factor : int
        Length of a block along each axis, from 1 on.

    Returns
    -------
    numpy.ndarray
        int32 ``[N, d, h, w]``.
    """
    sums = values.astype(np.int32)
    for axis, length in enumerate(values.shape[1:], 1):
        if length:
            sums = np.add.reduceat(sums, np.arange(0, length, factor), axis)
    return sums
