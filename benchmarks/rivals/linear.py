"""Uniform quantisation, then a lossless coder of integers: pcodec, or JPEG XL with the maps one below the other."""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np

from benchmarks.rivals.base import Rival, checked, half_ulp
from vcinr.errors import InputError

_HEAD = struct.Struct("<dd")  # lowest value, step


def _quantise(values: np.ndarray, abs_error: float, levels: int) -> tuple[bytes, np.ndarray]:
    values = checked(values, abs_error)
    step = 2 * (abs_error - half_ulp(values))
    low = float(values.min())
    if step <= 0 or (float(values.max()) - low) / step >= levels - 1:
        raise InputError(f"bound {abs_error:g} asks for more than {levels} levels over this data")
    return _HEAD.pack(low, step), np.rint((values.astype(np.float64) - low) / step)


def _dequantise(data: bytes, codes: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    low, step = _HEAD.unpack_from(data)
    return (low + codes.astype(np.float64) * step).astype(dtype).reshape(shape)


def _encode_pcodec(values: np.ndarray, abs_error: float) -> bytes:
    head, codes = _quantise(values, abs_error, 2**32)
    return head + imagecodecs.pcodec_encode(codes.astype(np.uint32))


def _decode_pcodec(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    codes = imagecodecs.pcodec_decode(data[_HEAD.size :], shape=shape, dtype=np.dtype(np.uint32))
    return _dequantise(data, codes, shape, dtype)


def _encode_jpegxl(values: np.ndarray, abs_error: float) -> bytes:
    head, codes = _quantise(values, abs_error, 2**16)
    plane = codes.astype(np.uint16).reshape(-1, values.shape[-1])
    return head + imagecodecs.jpegxl_encode(plane, lossless=True, effort=7, numthreads=1)


def _decode_jpegxl(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return _dequantise(data, imagecodecs.jpegxl_decode(data[_HEAD.size :], numthreads=1), shape, dtype)


PCODEC = Rival("linear + pcodec", _encode_pcodec, _decode_pcodec)
JPEGXL = Rival("linear + JPEG XL", _encode_jpegxl, _decode_jpegxl)
