"""Codecs of video: H.264, HEVC, AV1 and VP9, by PyAV. Each takes and gives uint8 ``[frame, y, x, 3]``.

Colours are full-range YCbCr by BT.601, at the full resolution or at half of it (4:2:0), from which colours are
interpolated. The bytes are those of all packets, without a container.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from benchmarks.rivals.images import Lossy, from_ycbcr, to_ycbcr

_HEVC = "info=0:range=full:log-level=none:pools=none:frame-threads=1"


def _packets(codec: str, form: str, options: dict[str, str], clip: np.ndarray) -> bytes:
    """Code a clip; each packet follows its length, and `size_of` counts the packets alone."""
    import av

    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = clip.shape[2], clip.shape[1], form
    context.time_base, context.framerate, context.thread_count = Fraction(1, 25), Fraction(25, 1), 1
    context.color_range, context.options = 2, options
    packets = []
    for t, image in enumerate(clip):
        frame = av.VideoFrame.from_ndarray(_planes(image, form), form)
        frame.pts = t
        packets += context.encode(frame)
    packets += context.encode(None)
    return b"".join(packet.size.to_bytes(4, "little") + bytes(packet) for packet in packets)


def _planes(image: np.ndarray, form: str) -> np.ndarray:
    """YCbCr of an image as PyAV takes it."""
    planes = to_ycbcr(image)
    if form == "yuv444p":
        return planes
    height, width = image.shape[:2]
    small = planes[1:].reshape(2, height // 2, 2, width // 2, 2).mean((2, 4))
    chroma = np.rint(small).astype(np.uint8).reshape(height // 2, width)
    return np.concatenate([planes[0], chroma])


def _clip(codec: str, data: bytes) -> np.ndarray:
    """Decode packets."""
    import av

    context: Any = av.CodecContext.create(codec, "r")
    context.thread_count = 1
    frames = [frame for packet in _unpack(data) for frame in context.decode(av.Packet(packet))]
    frames += context.decode(None)
    return np.stack([_image(frame) for frame in frames])


def _image(frame: Any) -> np.ndarray:
    height, width = frame.height, frame.width
    values = frame.to_ndarray()
    if frame.format.name in ("yuv444p", "yuvj444p"):
        return from_ycbcr(values.reshape(3, height, width))
    small = values[height:].reshape(2, height // 2, width // 2)
    return from_ycbcr(np.stack([values[:height], *map(_doubled, small)]))


def _doubled(plane: np.ndarray) -> np.ndarray:
    """A plane at twice the resolution, interpolated between the centres of its points."""
    values = plane.astype(np.float64)
    for axis in (0, 1):
        ahead = np.concatenate([values.take(range(1, values.shape[axis]), axis), values.take([-1], axis)], axis)
        behind = np.concatenate([values.take([0], axis), values.take(range(values.shape[axis] - 1), axis)], axis)
        both = np.stack([0.75 * values + 0.25 * behind, 0.75 * values + 0.25 * ahead], axis + 1)
        values = both.reshape([n * (2 if a == axis else 1) for a, n in enumerate(values.shape)])
    return np.clip(np.rint(values), 0, 255)


def _unpack(data: bytes) -> list[bytes]:
    packets, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        packets.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return packets


def size_of(data: bytes) -> int:
    """The bytes of the packets alone."""
    return sum(map(len, _unpack(data)))


def _x264(clip: np.ndarray, qp: float) -> bytes:
    return _packets("libx264", "yuv444p", {"preset": "veryslow", "tune": "psnr", "qp": f"{qp:g}"}, clip)


def _x265(form: str, clip: np.ndarray, qp: float) -> bytes:
    options = {"preset": "slower", "tune": "psnr", "x265-params": f"qp={qp:g}:{_HEVC}"}
    return _packets("libx265", form, options, clip)


def _av1(clip: np.ndarray, qp: float) -> bytes:
    options = {"preset": "4", "svtav1-params": f"rc=0:qp={qp:g}:lp=1:aq-mode=0"}
    return _packets("libsvtav1", "yuv420p", options, clip)


def _vp9(clip: np.ndarray, quality: float) -> bytes:
    options = {"deadline": "good", "cpu-used": "0", "crf": f"{quality:g}", "b": "0", "auto-alt-ref": "1",
               "lag-in-frames": "24"}  # fmt: skip
    return _packets("libvpx-vp9", "yuv444p", options, clip)


CODECS = (
    Lossy("H.264 veryslow 4:4:4", _x264, lambda data: _clip("h264", data), (20, 24, 28, 32, 36, 40), size_of),
    Lossy("HEVC slower 4:4:4", lambda clip, qp: _x265("yuv444p", clip, qp), lambda data: _clip("hevc", data),
          (22, 26, 30, 35), size_of),
    Lossy("HEVC slower 4:2:0", lambda clip, qp: _x265("yuv420p", clip, qp), lambda data: _clip("hevc", data),
          (26, 31, 36), size_of),
    Lossy("AV1 preset 4 4:2:0", _av1, lambda data: _clip("libdav1d", data), (20, 30, 40, 50), size_of),
    Lossy("VP9 4:4:4", _vp9, lambda data: _clip("vp9", data), (26, 36, 46, 56), size_of),
)  # fmt: skip
