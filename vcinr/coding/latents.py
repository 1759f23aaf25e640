"""Adaptive coding of quantised latents: the learned tables are where the counters start.

The codes z ``[T, C, d]`` of a chunk's signals (times, levels) are coded signal by signal, each dimension as its
difference from a prediction in time (none, the code before, or a running mean, whichever has been nearest lately),
by `kernels.integer`: under contexts of the dimension, of the dimensions before it and of its own past. What the
static tables know of a dimension is the counters' first state, so that a single signal costs what it costs
under the tables, and many signals cost what they turn out to be. Integers throughout.
"""

from __future__ import annotations

import numpy as np

from vcinr.coding import kernels


def encode(z: np.ndarray, offset: np.ndarray, frequency: np.ndarray) -> bytes:
    """z int64 ``[T, C, d]`` -> bytes. Tables as in `quantise.state.Quantiser`, of one rate: ``[d]`` and ``[d, S]``.

    Raises OverflowError for a code of kernels.LIMIT or more.
    """
    if np.abs(z).max(initial=0) >= kernels.LIMIT // 2:
        raise OverflowError("latent code too large")
    coder, usual = _start(offset, frequency)
    data = kernels.latent_codes(coder, np.empty(0, np.uint8), np.array(z, np.int64, order="C"), usual, True)
    return kernels.stream(coder, data)


def decode(data: bytes, times: int, levels: int, offset: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Inverse of `encode`: z int64 ``[times, levels, d]``."""
    coder, usual = _start(offset, frequency)
    stream, z = kernels.open_stream(coder, data), np.zeros((times, levels, len(offset)), np.int64)
    kernels.latent_codes(coder, stream, z, usual, False)
    kernels.check_end(coder, stream)
    return z


def _start(offset: np.ndarray, frequency: np.ndarray) -> tuple[kernels.Coder, np.ndarray]:
    """A coder whose counters expect what the tables do, and how large they expect the codes to be."""
    coder = kernels.coder(max(256, 3 * len(offset)))
    coder.weight[:, : kernels.PRIMED] = (1 << 16) // kernels.PRIMED
    coder.weight[:, kernels.PRIMED :] = (1 << 16) // 20
    usual = np.zeros(len(offset), np.int64)
    kernels.prime(coder.counter, usual, np.array(offset, np.int64), np.array(frequency, np.int64, order="C"))
    return coder, usual
