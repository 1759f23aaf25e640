"""Rate-distortion optimised quantisation of latents that enter linearly, for an error bound.

Rounding is right for squared error; under a pointwise bound any error within it costs nothing, so that most
codes may move towards what their table finds likely (Sullivan & Baker 1991, trellis quantisation, with the
residual coder's bits for a distortion). Greedy coordinate descent: a code moves by one while that saves bits.
"""

from __future__ import annotations

import numpy as np

from vcinr.compiled import inner, outer

_OUTSIDE, _BEYOND = 4.0, 1.0
"""What the residual coder is taken to need: bits for a value outside the bound, and for each bound beyond it."""
_SWEEPS = 3
_BLOCK = 1024  # points between two looks at whether a move can still pay


def outside_bits(over: np.ndarray) -> float:
    """What values outside the bound are taken to need; over ``[n]``: how many bounds each is beyond it."""
    return _OUTSIDE * len(over) + _BEYOND * float(over.sum())


def refine(
    z: np.ndarray, left: np.ndarray, effect: np.ndarray, bits: np.ndarray, offset: np.ndarray, tolerance: float
) -> np.ndarray:
    """Codes that need fewer bits in all.

    z int64 ``[n, d]``; left ``[n, P]``, the signals less the prior of z, 0 where masked; effect ``[d, P]``, what one
    more of z_k adds to the prior; bits ``[d, S]`` of the symbols offset_k + s; tolerance: what `left` may be off.
    """
    z, left = np.array(z, np.int64, order="C"), np.array(left, np.float64, order="C") / tolerance
    _descend(z, left, np.array(effect, np.float64, order="C") / tolerance, np.array(bits, np.float64, order="C"),
             np.array(offset, np.int64))  # fmt: skip
    return z


@outer
def _descend(z: np.ndarray, left: np.ndarray, effect: np.ndarray, bits: np.ndarray, offset: np.ndarray) -> None:
    signals, d = z.shape
    points = left.shape[1]
    for i in range(signals):
        cost = _needed(left[i], left[i], 0.0)
        for _ in range(_SWEEPS):
            moved = False
            for k in range(d - 1, -1, -1):  # the least important first
                symbol = z[i, k] - offset[k]
                if not 0 <= symbol < bits.shape[1]:
                    continue
                best, way, reached = -1e-9, 0, cost
                for move in (-1, 1):
                    if not 0 <= symbol + move < bits.shape[1]:
                        continue
                    change = bits[k, symbol + move] - bits[k, symbol]
                    limit = cost + best - change
                    total = 0.0
                    for p in range(0, points, _BLOCK):
                        total += _needed(left[i, p : p + _BLOCK], effect[k, p : p + _BLOCK], move)
                        if total >= limit:
                            break
                    if total < limit:
                        best, way, reached = change + total - cost, move, total
                if way != 0:
                    z[i, k] += way
                    cost, moved = reached, True
                    for p in range(points):
                        left[i, p] -= way * effect[k, p]
            if not moved:
                break


@inner(fastmath={"reassoc", "nsz", "contract"})  # a writer's choice: order does not matter
def _needed(left: np.ndarray, effect: np.ndarray, move: float) -> float:
    """`outside_bits` of left - move * effect, in bounds."""
    total = 0.0
    for p in range(left.size):
        over = abs(left[p] - move * effect[p]) - 1.0
        total += _OUTSIDE + _BEYOND * over if over > 0.0 else 0.0
    return total
