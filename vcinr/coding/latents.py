"""Adaptive coding of quantised latents: the learned tables are where the counters start.

The codes z ``[T, C, d]`` of a chunk's signals (times, levels) are coded signal by signal, each dimension as its
difference from a prediction in time (none, the code before, or a running mean, whichever has been nearest lately),
by `kernels.integer`: under contexts of the dimension, of the dimensions before it and of its own past. What the
static tables know of a dimension is the counters' first state, so that a single signal costs what it costs
under the tables, and many signals cost what they turn out to be. Dimensions after the last that is not zero in all
signals are left out: how many are coded comes first, in whole bytes. Integers throughout.
"""

from __future__ import annotations

import numpy as np

from vcinr.coding import kernels
from vcinr.errors import CorruptError


def encode(z: np.ndarray, offset: np.ndarray, frequency: np.ndarray) -> bytes:
    """z int64 ``[T, C, d]`` -> bytes. Tables as in `quantise.state.Quantiser`, of one rate: ``[d]`` and ``[d, S]``.

    Raises OverflowError for a code of kernels.LIMIT or more.
    """
    if np.abs(z).max(initial=0) >= kernels.LIMIT // 2:
        raise OverflowError("latent code too large")
    used = int(np.flatnonzero((z != 0).any((0, 1)))[-1]) + 1 if z.any() else 0
    head = used.to_bytes(_head(len(offset)), "little")
    if not used:
        return head
    coder, usual = _start(offset[:used], frequency[:used])
    data = np.empty(0, np.uint8)
    data = kernels.latent_codes(coder, data, np.array(z[..., :used], np.int64, order="C"), usual, True)
    return head + kernels.stream(coder, data)


def decode(data: bytes, times: int, levels: int, offset: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Inverse of `encode`: z int64 ``[times, levels, d]``; raises CorruptError."""
    size = _head(len(offset))
    used = int.from_bytes(data[:size], "little")
    if used > len(offset) or len(data) < size or (used == 0 and len(data) > size):
        raise CorruptError("more latents than the model has, or less than it says")
    z = np.zeros((times, levels, len(offset)), np.int64)
    if used:
        coder, usual = _start(offset[:used], frequency[:used])
        stream, some = kernels.open_stream(coder, data[size:]), np.zeros((times, levels, used), np.int64)
        kernels.latent_codes(coder, stream, some, usual, False)
        kernels.check_end(coder, stream)
        z[..., :used] = some
    return z


def _head(latents: int) -> int:
    """Bytes that say how many are coded."""
    return (latents.bit_length() + 7) // 8


def _start(offset: np.ndarray, frequency: np.ndarray) -> tuple[kernels.Coder, np.ndarray]:
    """A coder whose counters expect what the tables do, and how large they expect the codes to be."""
    coder = kernels.coder(max(256, 3 * len(offset)))
    coder.weight[:, : kernels.PRIMED] = (1 << 16) // kernels.PRIMED
    coder.weight[:, kernels.PRIMED :] = (1 << 16) // 20
    usual, longest = np.zeros(len(offset), np.int64), int(np.count_nonzero(frequency.any(0))) if len(offset) else 1
    kernels.prime(
        coder.counter, usual, np.array(offset, np.int64), np.array(frequency[:, :longest], np.int64, order="C")
    )
    return coder, usual
