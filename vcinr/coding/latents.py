"""Adaptive coding of quantised latents, which starts from what the learned tables know.

The codes z ``[T, C, d]`` (times, levels, dimensions) are coded signal by signal, by `kernels.latent_codes`. Each code
is predicted from earlier signals of the same level, as zero, the last code or a running mean, whichever has been
nearest lately. The difference is coded by `kernels.integer` under contexts of the dimension, of the dimensions before
it and of its own past.

Counters start from the static tables: a single signal costs what it costs under the tables, while many signals cost
what their actual statistics need. Dimensions after the last one that is not zero in all signals are left out; their
number comes first, in whole bytes. All arithmetic is in integers.
"""

from __future__ import annotations

import numpy as np

from vcinr.coding import kernels
from vcinr.errors import CorruptError


def encode(z: np.ndarray, offset: np.ndarray, frequency: np.ndarray) -> bytes:
    """Encode the latents of a chunk.

    Parameters
    ----------
    z : numpy.ndarray
        int64 ``[T, C, d]``.
    offset, frequency : numpy.ndarray
        ``[d]`` and ``[d, S]``: the static tables of one rate, as in `quantise.state.Quantiser`.

    Returns
    -------
    bytes
        The stream.

    Raises
    ------
    OverflowError
        For codes of kernels.LIMIT / 2 or more.
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
    """Inverse of `encode`.

    Parameters
    ----------
    data : bytes
        The stream.
    times, levels : int
        T and C of the codes.
    offset, frequency : numpy.ndarray
        The same tables as in `encode`.

    Returns
    -------
    numpy.ndarray
        z int64 ``[times, levels, d]``.

    Raises
    ------
    CorruptError
        For bytes that no encoder makes.
    """
    size = _head(len(offset))
    used = int.from_bytes(data[:size], "little")
    if used > len(offset) or len(data) < size or (used == 0 and len(data) > size):
        raise CorruptError("the stream declares more latents than the model has, or has a wrong number of bytes")
    z = np.zeros((times, levels, len(offset)), np.int64)
    if used:
        coder, usual = _start(offset[:used], frequency[:used])
        stream, coded = kernels.open_stream(coder, data[size:]), np.zeros((times, levels, used), np.int64)
        kernels.latent_codes(coder, stream, coded, usual, False)
        kernels.check_end(coder, stream)
        z[..., :used] = coded
    return z


def _head(latents: int) -> int:
    """Number of bytes in which the number of coded dimensions is stored."""
    return (latents.bit_length() + 7) // 8


def _start(offset: np.ndarray, frequency: np.ndarray) -> tuple[kernels.Coder, np.ndarray]:
    """A coder whose counters expect what the tables say, and the usual size of each dimension's codes, in 1/16."""
    coder = kernels.coder(max(256, 3 * len(offset)))
    # At first the inputs that know the tables decide nearly alone; the others earn their weights.
    coder.weight[:, : kernels.PRIMED] = (1 << 16) // kernels.PRIMED
    coder.weight[:, kernels.PRIMED :] = (1 << 16) // 20
    usual, longest = np.zeros(len(offset), np.int64), int(np.count_nonzero(frequency.any(0))) if len(offset) else 1
    kernels.prime(
        coder.counter, usual, np.array(offset, np.int64), np.array(frequency[:, :longest], np.int64, order="C")
    )
    return coder, usual
