"""Codecs of images of many bands, each of which is coded by itself: JPEG 2000, JPEG XL and SPERR.

All take and give uint16 ``[y, x, band]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import imagecodecs
import numpy as np

from benchmarks.rivals.images import Lossy
from benchmarks.rivals.sperr import SPERR_RMS


def _joined(parts: Sequence[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _parts(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _by_band(
    name: str, encode: Callable[[np.ndarray, float], bytes], decode: Callable[[bytes], np.ndarray],
    settings: tuple[float, ...],
) -> Lossy:  # fmt: skip
    def whole(image: np.ndarray, setting: float) -> bytes:
        return _joined([encode(np.ascontiguousarray(band), setting) for band in np.moveaxis(image, -1, 0)])

    def back(data: bytes) -> np.ndarray:
        return np.stack([decode(part) for part in _parts(data)], -1)

    return Lossy(name, whole, back, settings)


def _jpeg2000(band: np.ndarray, psnr: float) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(band, int(psnr), codecformat="j2k", reversible=False))


def _jpegxl(band: np.ndarray, distance: float) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(band, distance=distance, effort=7, usecontainer=False, numthreads=1))


def _sperr(band: np.ndarray, psnr: float) -> bytes:
    shape = np.array(band.shape, "<u4").tobytes()
    return shape + SPERR_RMS.encode(band.astype(np.float32), 65535 * 10 ** (-psnr / 20))


def _sperr_back(data: bytes) -> np.ndarray:
    rows, columns = np.frombuffer(data[:8], "<u4")
    values = SPERR_RMS.decode(data[8:], (int(rows), int(columns)), np.dtype("f4"))
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


CODECS = (
    _by_band("JPEG 2000", _jpeg2000, imagecodecs.jpeg2k_decode, (30, 32, 34, 36, 38, 40, 42, 44)),
    _by_band("JPEG XL e7", _jpegxl, imagecodecs.jpegxl_decode, (0.3, 0.6, 1, 1.8, 3, 5, 8)),
    _by_band("SPERR", _sperr, _sperr_back, (30, 33, 36, 39, 42, 45)),
)
