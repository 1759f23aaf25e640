"""Video by the package PyAV: MP4, MKV, WebM, AVI and Y4M, read as the red, green and blue that are shown.

The variable is ``video(frame, y, x, channel)`` uint8. The sound of a video is left out, and a note that a player should
turn it is not followed. MP4 (H.264 of RGB) and MKV (FFV1) are written without loss.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import File, Format, Groups, flat_list, only, values_of

LIMIT = 2 * 10**9
"""Bytes of the frames of a video that is read: they are held in memory."""

_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
_RANGES = {1: "limited", 2: "full"}


def recognises(file: File) -> bool:
    """Whether a file is in one of these containers."""
    head = file.head
    return (
        head.startswith((b"\x1aE\xdf\xa3", b"YUV4MPEG2 "))
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or (head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"M4A "))
    )


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    return {"": _dataset(str(path), name)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL."""
    return {"": _dataset(stream, name)}


def check_size(frames: int, height: int, width: int, name: str) -> None:
    """Raise InputError for a video whose frames take too much memory."""
    size = 3 * frames * height * width
    if size > LIMIT:
        raise InputError(
            f"{name}: {frames} frames of {width}x{height} are {size / 1e9:.1f} GB, and {LIMIT / 1e9:g} GB are read; "
            "cut it into shorter clips"
        )


def video_dataset(frames: np.ndarray, rate: Fraction | None) -> xr.Dataset:
    """The data set of frames ``[frame, y, x, channel]``; the rate is in frames a second."""
    attrs: dict[str, Any] = {"channels": ["red", "green", "blue"]}
    if rate:
        attrs["frame_rate"] = f"{rate.numerator}/{rate.denominator}"
    return xr.Dataset({"video": (("frame", "y", "x", "channel"), frames, attrs)})


def _dataset(source: Any, name: str) -> xr.Dataset:
    """The first video stream of a file."""
    import av

    with av.open(source) as container:
        if not container.streams.video:
            raise InputError(f"{name}: it has no video; leave it out")
        stream = container.streams.video[0]
        check_size(max(stream.frames, 1), stream.height, stream.width, name)
        frames: list[np.ndarray] = []
        ticks: list[int | None] = []
        decoded: Any = None
        for decoded in container.decode(stream):
            frames.append(decoded.to_ndarray(format="rgb24"))  # by the matrix and the range that the stream states
            ticks.append(decoded.pts)
            if frames[-1].shape != frames[0].shape:
                raise InputError(f"{name}: its frames have several sizes; cut it into clips of one size")
            check_size(len(frames), frames[0].shape[0], frames[0].shape[1], name)
        if not frames:
            raise InputError(f"{name}: cut off before its first frame; copy it again")
        _check_end(container, decoded, len(frames), ticks, name)
        dataset = video_dataset(np.stack(frames), stream.average_rate)
        attrs = dataset["video"].attrs
        attrs["pixel_format"] = decoded.format.name
        if int(decoded.colorspace) in _MATRICES:
            attrs["colour_matrix"] = _MATRICES[int(decoded.colorspace)]
        if int(decoded.color_range) in _RANGES:
            attrs["colour_range"] = _RANGES[int(decoded.color_range)]
        steps = np.diff([t for t in ticks if t is not None])
        if len(steps) > 1 and np.ptp(steps) > 2 + 0.1 * np.median(steps):  # some containers round times to milliseconds
            attrs["frame_times"] = [0.0, *(float(t * stream.time_base) for t in np.cumsum(steps).tolist())]
    return dataset


def _check_end(container: Any, last: Any, count: int, ticks: list[int | None], name: str) -> None:
    """Raise InputError where the last frame ends before the file says that its video does.

    Frames are counted in AVI files alone: in MP4 files some may be there to be skipped.
    """
    stream = container.streams.video[0]
    if container.format.name == "avi" and count < stream.frames:
        raise InputError(f"{name}: cut off, it has {count} of {stream.frames} frames; copy it again")
    if "DURATION" in stream.metadata:  # of Matroska: hours:minutes:seconds from time 0
        hours, minutes, rest = stream.metadata["DURATION"].strip("\0 ").split(":")
        declared = int(hours) * 3600 + int(minutes) * 60 + Fraction(rest)
    elif stream.duration:
        declared = (stream.duration + (stream.start_time or 0)) * stream.time_base
    else:
        return
    times = [t for t in ticks if t is not None]
    step = last.duration or (int(np.median(np.diff(times))) if len(times) > 1 else 0)
    if not times or not step:
        return
    reached = (max(times) + step) * stream.time_base
    if declared - reached > Fraction(6, 10) * step * stream.time_base:
        raise InputError(
            f"{name}: cut off, its frames end after {float(reached):.3f} of {float(declared):.3f} seconds; "
            "copy it again"
        )


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write MP4 or MKV, exact to the bit."""
    only(dataset, path, "video")
    frames = values_of(dataset, path, "video", ("frame", "y", "x", "channel"))
    attrs = dataset["video"].attrs
    if frames.dtype != np.uint8 or frames.shape[3] != 3 or not frames.size:
        raise InputError(
            f"{path}: video is {frames.dtype} of shape {frames.shape} and needs uint8, frames and 3 colours"
        )
    if "frame_times" in attrs or "frame_durations_ms" in attrs:
        raise InputError(
            f"{path}: its frames last unequally long; set attribute frame_rate of video, and delete "
            f"{'frame_times' if 'frame_times' in attrs else 'frame_durations_ms'}"
        )
    try:
        rate = Fraction(str(flat_list(attrs["frame_rate"])[0]))
    except (KeyError, ValueError, ZeroDivisionError):
        raise InputError(f"{path}: no frames per second; set attribute frame_rate of video, such as '25/1'") from None
    import av

    # The name of the container is given, since that of the file may be a temporary one.
    kind = {".mp4": "mp4", ".mkv": "matroska"}[path.suffix]
    with av.open(str(path), "w", format=kind, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream({"mp4": "libx264rgb", "matroska": "ffv1"}[kind], rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = {"mp4": "rgb24", "matroska": "bgr0"}[kind]
        stream.options = {
            "mp4": {"qp": "0", "x264-params": "log-level=none"},
            "matroska": {"level": "3", "slicecrc": "1"},
        }[kind]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


FORMAT = Format(
    name="MP4, MKV and other video",
    recognises=recognises,
    read=read,
    read_stream=read_stream,
    suffixes=(".mp4", ".mkv", ".webm", ".avi", ".y4m", ".mov", ".m4v"),
    written=(".mkv", ".mp4"),
    write=write,
)
