"""Rate-distortion optimised quantisation of latents that enter linearly, under an error bound.

Rounding is right for the squared error. Under a pointwise bound, errors within the bound cost nothing, so most codes
can move towards values that their table finds likely (as in trellis quantisation, Sullivan & Baker 1991, with the bits
of the residual coder as the distortion). This is a greedy coordinate descent: a code moves by one as long as that saves
bits.
"""

from __future__ import annotations

import numpy as np

from vcinr.compiled import inner, outer

_OUTSIDE, _BEYOND = 4.0, 1.0
"""Estimated bits of the residual coder: for a value outside the bound, and for each further bound beyond it."""
_SWEEPS = 3  # rounds over all codes, at most
_BLOCK = 1024  # points after which a move is given up if it cannot save bits any more


def outside_bits(over: np.ndarray) -> float:
    """Estimate of the bits that the residual coder needs for values outside the bound.

    Parameters
    ----------
    over : numpy.ndarray
        ``[n]``: how far each of these values is beyond the bound, in units of the bound.
    """
    return _OUTSIDE * len(over) + _BEYOND * float(over.sum())


def refine(
    z: np.ndarray, residual: np.ndarray, effect: np.ndarray, bits: np.ndarray, offset: np.ndarray, tolerance: float
) -> np.ndarray:
    """Move codes to where they and the residual together need fewer bits.

    Parameters
    ----------
    z : numpy.ndarray
        Codes, int64 ``[n, d]``.
    residual : numpy.ndarray
        ``[n, P]``: the signals less their prior for z; 0 where masked.
    effect : numpy.ndarray
        ``[d, P]``: what the prior gains when z_k grows by one.
    bits : numpy.ndarray
        ``[d, S]``: bits of the symbols offset_k + s.
    offset : numpy.ndarray
        ``[d]``: the first symbols.
    tolerance : float
        The error bound on the residual.

    Returns
    -------
    numpy.ndarray
        The moved codes, int64 ``[n, d]``.
    """
    z, residual = np.array(z, np.int64, order="C"), np.array(residual, np.float64, order="C") / tolerance
    _descend(z, residual, np.array(effect, np.float64, order="C") / tolerance, np.array(bits, np.float64, order="C"),
             np.array(offset, np.int64))  # fmt: skip
    return z


@outer
def _descend(z: np.ndarray, residual: np.ndarray, effect: np.ndarray, bits: np.ndarray, offset: np.ndarray) -> None:
    """Move the codes z in place, and update the residual; `residual` and `effect` are in units of the bound."""
    signals, d = z.shape
    points = residual.shape[1]
    for i in range(signals):
        cost = _needed_bits(residual[i], residual[i], 0.0)
        for _ in range(_SWEEPS):
            moved = False
            for k in range(d - 1, -1, -1):  # the least important latents first
                symbol = z[i, k] - offset[k]
                if not 0 <= symbol < bits.shape[1]:
                    continue
                best, best_move, best_cost = -1e-9, 0, cost
                for move in (-1, 1):
                    if not 0 <= symbol + move < bits.shape[1]:
                        continue
                    change = bits[k, symbol + move] - bits[k, symbol]
                    total_limit = cost + best - change
                    total = 0.0
                    for p in range(0, points, _BLOCK):
                        total += _needed_bits(residual[i, p : p + _BLOCK], effect[k, p : p + _BLOCK], move)
                        if total >= total_limit:
                            break
                    if total < total_limit:
                        best, best_move, best_cost = change + total - cost, move, total
                if best_move != 0:
                    z[i, k] += best_move
                    cost, moved = best_cost, True
                    for p in range(points):
                        residual[i, p] -= best_move * effect[k, p]
            if not moved:
                break


@inner(
    fastmath={"reassoc", "nsz", "contract"}
)  # only the encoder runs this, so results need not be the same everywhere
def _needed_bits(residual: np.ndarray, effect: np.ndarray, move: float) -> float:
    """`outside_bits` of residual - move * effect, in units of the bound."""
    total = 0.0
    for p in range(residual.size):
        over = abs(residual[p] - move * effect[p]) - 1.0
        total += _OUTSIDE + _BEYOND * over if over > 0.0 else 0.0
    return total
