"""What a rival codec is, and what several of them need: checks, shapes, and coding level by level."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vcinr.errors import InputError

Encode = Callable[[np.ndarray, float], bytes]
Decode = Callable[[bytes, tuple[int, ...], np.dtype[Any]], np.ndarray]
Number = Literal["bound", "rms", "quality"]


@dataclass(frozen=True)
class Rival:
    """One setting of one codec.

    Parameters
    ----------
    name : str
        How tables call this setting.
    encode : callable
        ``encode(values, number) -> bytes``, for finite float32 or float64 values.
    decode : callable
        ``decode(bytes, shape, dtype) -> values``.
    number : {"bound", "rms", "quality"}
        What `encode` takes: the largest error allowed, the root mean square error to aim at, both in the units of the
        data, or a level on a scale of the codec's own.
    model_bytes : int
        Bytes that a decoder needs besides the stream.
    parts : callable, optional
        ``parts(bytes) -> mapping``: where the bytes of a stream go.
    """

    name: str
    encode: Encode
    decode: Decode
    number: Number = "bound"
    model_bytes: int = 0
    parts: Callable[[bytes], Mapping[str, Any]] | None = None

    def aim(self, rms: float) -> float:
        """Return the number to give `encode` for an RMS error of about `rms`.

        Errors that are spread evenly within a bound E have an RMS of E / sqrt(3).

        Raises
        ------
        InputError
            If the codec has a scale of its own, on which no error can be looked up.
        """
        if self.number == "quality":
            raise InputError(f"{self.name} takes a quality, which says nothing of the error")
        return rms if self.number == "rms" else rms * math.sqrt(3)


def checked(values: np.ndarray, number: float) -> np.ndarray:
    """Return `values` as a contiguous array; raise InputError for values or numbers that a rival cannot take."""
    if values.dtype not in (np.float32, np.float64) or values.size == 0 or not np.isfinite(values).all():
        raise InputError("rival codecs take finite float32 or float64 values; fill masked cells first")
    if not (number > 0 and math.isfinite(number)):
        raise InputError(f"the error bound must be a positive number, got {number}")
    return np.ascontiguousarray(values)


def half_ulp(values: np.ndarray) -> float:
    """Return what rounding to the dtype of `values` can add to the error of a result computed in float64."""
    return float(np.spacing(np.abs(values).max())) / 2


def at_most_4d(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` with its leading axes joined, for codecs that take at most four."""
    return (math.prod(shape[:-3]), *shape[-3:]) if len(shape) > 4 else shape


def by_level(rival: Rival) -> Rival:
    """Return `rival` applied to every level of ``[T, C, H, W]`` on its own, as a volume over time."""
    length = struct.Struct("<I")

    def encode(values: np.ndarray, number: float) -> bytes:
        if values.ndim != 4:
            raise InputError("by level: four axes are needed")
        parts = [rival.encode(np.ascontiguousarray(values[:, k]), number) for k in range(values.shape[1])]
        return b"".join(length.pack(len(part)) + part for part in parts)

    def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        levels, at = [], 0
        while at < len(data):
            (size,) = length.unpack_from(data, at)
            at += length.size
            levels.append(rival.decode(data[at : at + size], (shape[0], *shape[2:]), dtype))
            at += size
        return np.stack(levels, 1)

    return Rival(f"{rival.name} by level", encode, decode, rival.number)
