"""vcinr's chunk codec as a codec to measure: encoded and decoded in memory, without an archive."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vcinr.codec.decode import decode
from vcinr.codec.encode import encode
from vcinr.codec.latents import latents_of
from vcinr.codec.promise import Bound, Field

Measured = tuple[int, np.ndarray, dict[str, Any]]
"""Bytes, decoded values, and parts: ``model_bytes``, ``encode_seconds``, ``decode_seconds``, ``modes``."""


@dataclass
class ChunkCodec:
    """The chunk codec on one array, at a bound, a PSNR or a rate of the model.

    The latents of an array are looked for once, and their time is counted in every run's encode time.

    Parameters
    ----------
    place : Field
        What writer and reader know of the array.
    peak : float
        The range that a PSNR refers to.
    signals : int, optional
        Length of a chunk along the first axis; by default the whole array is one chunk.
    """

    place: Field
    peak: float
    signals: int | None = None
    _values: np.ndarray | None = field(default=None, init=False, repr=False)
    _latents: list[np.ndarray | None] = field(default_factory=list, init=False, repr=False)
    _seconds: float = field(default=0.0, init=False, repr=False)

    def at_bound(self, values: np.ndarray, number: float) -> Measured:
        """Encode and decode `values` within the absolute error `number`."""
        return self._measure(values, Bound("absolute", number))

    def at_psnr(self, values: np.ndarray, number: float) -> Measured:
        """Encode and decode `values` at a PSNR of `number` dB or more."""
        return self._measure(values, Bound("psnr", number, self.peak))

    def at_rate(self, values: np.ndarray, number: float) -> Measured:
        """Encode and decode `values` by their latents alone, at the model's rate `number` and without a bound."""
        return self._measure(values, None, int(number))

    def _measure(self, values: np.ndarray, bound: Bound | None, rate: int | None = None) -> Measured:
        size = self.signals or len(values)
        chunks = [values[i : i + size] for i in range(0, len(values), size)]
        self._find_latents(values, chunks)
        began = time.perf_counter()
        encoded = [
            encode(chunk, self.place, bound, rate=rate, latents=latents)
            for chunk, latents in zip(chunks, self._latents, strict=True)
        ]
        coded = time.perf_counter()
        decoded = [
            decode(e.data, chunk.shape, chunk.dtype, self.place) for e, chunk in zip(encoded, chunks, strict=True)
        ]
        done = time.perf_counter()
        model = self.place.model
        parts = {
            "model_bytes": 0 if model is None else len(model.data),
            "encode_seconds": self._seconds + coded - began,
            "decode_seconds": done - coded,
            "modes": dict(Counter(e.mode for e in encoded)),
        }
        return sum(len(e.data) for e in encoded), np.concatenate(decoded), parts

    def _find_latents(self, values: np.ndarray, chunks: list[np.ndarray]) -> None:
        if self._values is not values:
            began = time.perf_counter()
            self._latents = [latents_of(chunk, self.place) for chunk in chunks]
            self._values, self._seconds = values, time.perf_counter() - began
