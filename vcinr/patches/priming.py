"""Where a model's coders start: counters and weights as they were after coding signals that it was trained on.

A chunk of few patches ends before empty counters have learnt what is usual. Odds are kept in 8 bits and counts are cut,
so that counters soon follow the signal at hand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vcinr.coding.kernels import INPUTS, NODES, SETS, Coder
from vcinr.patches.kernels import CONTEXTS

_MOST_SEEN = 30  # a start counts as much as so many decisions at most: with 12 and 100 clips need 0.3 % more bits
_PART = 24  # logits are kept in so many of their units
_ZERO = 128  # what stands for even odds
SHAPES = {"odds": (INPUTS, NODES, CONTEXTS), "seen": (INPUTS, NODES, CONTEXTS), "weight": (SETS * NODES, INPUTS)}
"""Shapes of the parts of a `Start`."""
TYPES: dict[str, np.dtype[Any]] = {"odds": np.dtype(np.uint8), "seen": np.dtype(np.uint8), "weight": np.dtype(np.int32)}
"""Their types."""


class Start(NamedTuple):
    """Where a coder starts.

    Attributes
    ----------
    odds : numpy.ndarray
        uint8 ``[INPUTS, NODES, CONTEXTS]``: of each counter the logit of a 1, in parts, from 128 on.
    seen : numpy.ndarray
        uint8, of the same shape: how many decisions it counts as; 0 for a counter that starts empty.
    weight : numpy.ndarray
        int32 ``[SETS * NODES, INPUTS]``: the mixing weights.
    """

    odds: np.ndarray
    seen: np.ndarray
    weight: np.ndarray


def start_of(c: Coder) -> Start:
    """The start that makes another coder expect about what this one does now."""
    seen = np.minimum(c.counter & 1023, _MOST_SEEN).astype(np.uint8)
    logit = c.stretch[c.counter >> 15].astype(np.int64)
    odds = np.clip((logit + _PART // 2) // _PART + _ZERO, 0, 255)
    return Start(np.where(seen > 0, odds, 0).astype(np.uint8), seen, c.weight.astype(np.int32))


def set_off(c: Coder, start: Start) -> None:
    """Set a new coder's counters and weights to a start."""
    most = len(c.squash) // 2
    table = c.squash[np.clip(_PART * (np.arange(256) - _ZERO), -most, most) + most].astype(np.int32) << 5
    known = start.seen > 0
    c.counter[known] = table[start.odds[known]] << 10 | start.seen[known]
    c.weight[:] = start.weight
