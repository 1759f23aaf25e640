"""Codecs of images: JPEG, JPEG 2000, JPEG XL, AVIF, and single pictures of HEVC.

Each takes and gives uint8 ``[y, x, 3]`` and has a scale of its own, from which a comparison takes several settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import imagecodecs
import numpy as np


@dataclass(frozen=True)
class Lossy:
    """A codec with settings.

    Parameters
    ----------
    name : str
        How tables call it.
    encode : callable
        ``encode(signal, setting) -> bytes``.
    decode : callable
        ``decode(bytes) -> signal``.
    settings : tuple of float
        Those to try, which should reach from low to high quality.
    size : callable
        ``size(bytes) -> int``: how many of the bytes count.
    """

    name: str
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    settings: tuple[float, ...]
    size: Callable[[bytes], int] = len


def codecs(small: bool) -> tuple[Lossy, ...]:
    """The codecs, for tiles of 32x32 where `small`, else for photographs: with as much effort as time allows."""
    chroma, effort, speed = ("444", 9, 0) if small else ("420", 7, 6)

    def jpeg(image: np.ndarray, quality: float) -> bytes:
        return bytes(imagecodecs.jpeg8_encode(image, int(quality), subsampling=chroma, optimize=True))

    def jpeg2000(image: np.ndarray, target: float) -> bytes:
        return bytes(imagecodecs.jpeg2k_encode(image, int(target), codecformat="j2k", reversible=False))

    def jpegxl(image: np.ndarray, distance: float) -> bytes:
        data = imagecodecs.jpegxl_encode(image, distance=distance, effort=effort, usecontainer=False, numthreads=1)
        return bytes(data)

    def avif(image: np.ndarray, quality: float) -> bytes:
        data = imagecodecs.avif_encode(
            image, int(quality), speed=speed, pixelformat="444", codec="aom", numthreads=1
        )  # fmt: skip
        return bytes(data)

    def hevc(image: np.ndarray, qp: float) -> bytes:
        return hevc_intra(to_ycbcr(image), int(qp), "medium" if small else "slow")

    return (
        Lossy("JPEG 4:4:4" if small else "JPEG 4:2:0", jpeg, imagecodecs.jpeg8_decode,
              (10, 25, 45, 60, 75, 85, 92, 96) if small else (8, 15, 30, 50, 70, 83, 92, 96)),
        Lossy("JPEG 2000", jpeg2000, imagecodecs.jpeg2k_decode, (28, 30, 32, 34, 36, 38, 40)),
        Lossy(f"JPEG XL e{effort}", jpegxl, imagecodecs.jpegxl_decode, (0.6, 1, 1.8, 3, 5, 8, 12, 20)),
        Lossy(f"AVIF s{speed} 4:4:4", avif, imagecodecs.avif_decode,
              (5, 15, 30, 45, 60, 75, 87) if small else (3, 9, 16, 30, 45, 60, 72, 82)),
        Lossy("HEVC intra 4:4:4", hevc, lambda data: from_ycbcr(hevc_pictures(data)[0]),
              (15, 20, 25, 30, 35, 40, 45, 49)),
    )  # fmt: skip


def to_ycbcr(image: np.ndarray) -> np.ndarray:
    """Colours as luma and chroma of the full range by BT.601, uint8 ``[3, y, x]``."""
    r, g, b = np.moveaxis(image.astype(np.float64), -1, 0)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    planes = luma, (b - luma) / 1.772 + 128, (r - luma) / 1.402 + 128
    return np.clip(np.rint(np.stack(planes)), 0, 255).astype(np.uint8)


def from_ycbcr(planes: np.ndarray) -> np.ndarray:
    """Inverse of `to_ycbcr`, but for rounding."""
    luma, blue, red = planes.astype(np.float64)
    r, b = luma + 1.402 * (red - 128), luma + 1.772 * (blue - 128)
    colours = r, (luma - 0.299 * r - 0.114 * b) / 0.587, b
    return np.clip(np.rint(np.stack(colours, -1)), 0, 255).astype(np.uint8)


def hevc_intra(planes: np.ndarray, qp: int, preset: str) -> bytes:
    """Code one picture ``[3, y, x]`` by x265, all of whose packets count."""
    return hevc(planes[None], qp, preset, "keyint=1")


def hevc(pictures: np.ndarray, qp: int, preset: str, more: str = "") -> bytes:
    """Code pictures as video by x265.

    Parameters
    ----------
    pictures : numpy.ndarray
        uint8 ``[t, plane, y, x]``: three planes of one size, or one of grey.
    qp : int
        Quantisation parameter.
    preset : str
        How much x265 tries.
    more : str
        Further parameters of x265.
    """
    import av

    count, planes, height, width = pictures.shape
    form = "gray" if planes == 1 else "yuv444p"
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = width, height, form
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25, 1)
    told = f"qp={qp}:info=0:range=full:log-level=none:pools=none:frame-threads=1" + (f":{more}" if more else "")
    context.options = {"preset": preset, "tune": "psnr", "x265-params": told}
    packets = []
    for t in range(count):
        values = pictures[t, 0] if planes == 1 else pictures[t]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), form)
        frame.pts = t
        packets += context.encode(frame)
    packets += context.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def hevc_pictures(data: bytes) -> np.ndarray:
    """Decode what `hevc` made, in the order of display: uint8 ``[t, plane, y, x]``."""
    import av

    context = av.CodecContext.create("hevc", "r")
    frames = [f for packet in (*context.parse(data), *context.parse(b"")) for f in context.decode(packet)]
    frames += context.decode(None)
    pictures = np.stack([frame.to_ndarray() for frame in frames])
    if pictures.ndim == 3 and frames[0].format.name.startswith("gray"):
        return pictures[:, None]
    return pictures.reshape(len(frames), 3, frames[0].height, frames[0].width)
