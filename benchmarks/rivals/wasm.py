"""Codecs that run through WebAssembly: EBCC (JPEG 2000 and a bounded residual) and a Fourier-feature network.

Both are slow, so they are not among `benchmarks.rivals.RIVALS`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.rivals.base import Rival, checked
from vcinr.errors import InputError


def _ebcc(base_ratio: float) -> Rival:
    def codec(abs_error: float) -> Any:
        from numcodecs_wasm_ebcc import Ebcc

        return Ebcc(residual="absolute", error=abs_error, base_cr=base_ratio)

    def encode(values: np.ndarray, abs_error: float) -> bytes:
        values = checked(values, abs_error)
        if values.dtype != np.float32 or values.shape[-1] < 32 or values.shape[-2] < 32:
            raise InputError("EBCC takes float32 maps of 32 by 32 points or more")
        return np.asarray(codec(abs_error).encode(values)).tobytes()

    def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        return np.asarray(codec(1.0).decode(np.frombuffer(data, np.uint8))).view(dtype).reshape(shape)

    return Rival(f"EBCC {base_ratio:g}", encode, decode)


EBCC = (_ebcc(30.0),)
"""With a base ratio of 30 for its JPEG 2000 layer; 100 gave the same sizes."""


def fourier_network(values: np.ndarray, epochs: int = 600) -> tuple[bytes, np.ndarray]:
    """Overfit a Fourier-feature network to a small field (Tancik et al. 2020).

    Parameters
    ----------
    values : np.ndarray
        The field, finite, float32 or float64.
    epochs : int
        Passes over the field.

    Returns
    -------
    tuple of bytes and np.ndarray
        The network's bytes, and the field decoded from them.
    """
    from numcodecs_wasm_fourier_network import FourierNetwork

    values = checked(values, 1.0)
    codec = FourierNetwork(
        fourier_features=8, fourier_scale=2.0, learning_rate=1e-2, mini_batch_size=None, num_blocks=1,
        num_epochs=epochs, seed=0,
    )  # fmt: skip
    data = np.asarray(codec.encode(values)).tobytes()
    decoded = np.empty_like(values)
    codec.decode(np.frombuffer(data, np.uint8), out=decoded)
    return data, decoded
