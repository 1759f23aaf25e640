"""Video by the package PyAV: MP4, MKV, WebM, AVI and Y4M, read as the red, green and blue that are shown.

The variable is ``video(frame, y, x, channel)`` uint8. The sound of a video is left out, and a note that a player should
turn it is not followed. MP4 (H.264 of RGB) and MKV (FFV1) are written without loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
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


def video_dataset(frames: np.ndarray, starts: Sequence[Fraction], rate: Fraction | None) -> xr.Dataset:
    """The data set of a video.

    Parameters
    ----------
    frames
        ``[frame, y, x, channel]``.
    starts
        When each frame begins, in seconds; empty where it is not known. They are kept where frames last unequally
        long: `frame_ticks`, in units of `time_base` seconds from the first frame.
    rate
        Frames a second, on the average, if it is known.
    """
    attrs: dict[str, Any] = {"channels": ["red", "green", "blue"]}
    if rate:
        attrs["frame_rate"] = f"{rate.numerator}/{rate.denominator}"
    steps = [float(b - a) for a, b in pairwise(starts)]
    # Some containers round times to milliseconds.
    if len(steps) > 1 and max(steps) - min(steps) > 0.002 + 0.1 * float(np.median(steps)):
        base = math.lcm(*((s - starts[0]).denominator for s in starts))
        attrs["time_base"] = f"1/{base}"
        attrs["frame_ticks"] = [int((s - starts[0]) * base) for s in starts]
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
        # Frames come in the order in which they are shown. Old files have times in the order of the stream.
        times = sorted(t for t in ticks if t is not None)
        times = times if len(times) == len(frames) else []
        _check_end(container, times, decoded.duration, name)
        dataset = video_dataset(np.stack(frames), [t * stream.time_base for t in times], stream.average_rate)
        attrs = dataset["video"].attrs
        attrs["pixel_format"] = decoded.format.name
        if int(decoded.colorspace) in _MATRICES:
            attrs["colour_matrix"] = _MATRICES[int(decoded.colorspace)]
        if int(decoded.color_range) in _RANGES:
            attrs["colour_range"] = _RANGES[int(decoded.color_range)]
    return dataset


def _check_end(container: Any, times: list[int], last: int | None, name: str) -> None:
    """Raise InputError where the last frame, which lasts `last`, ends before the file says that its video does.

    Frames are not counted: files may have some that are to be skipped, and count others that are empty.
    """
    stream = container.streams.video[0]
    steps = np.diff(times)
    step = last or (int(np.median(steps)) if len(steps) else 0)
    if container.format.name == "avi":  # which counts time in frames
        declared = max(stream.frames, stream.duration or 0) * stream.time_base
        step = max(step, int(steps.max(initial=0)))
    elif "DURATION" in stream.metadata:  # of Matroska: hours:minutes:seconds from time 0
        hours, minutes, rest = stream.metadata["DURATION"].strip("\0 ").split(":")
        declared = int(hours) * 3600 + int(minutes) * 60 + Fraction(rest)
    else:
        declared = ((stream.duration or 0) + (stream.start_time or 0)) * stream.time_base
    if not times or not step:
        return
    reached = (times[-1] + step) * stream.time_base
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
    try:
        rate = Fraction(str(flat_list(attrs["frame_rate"])[0]))
    except (KeyError, ValueError, ZeroDivisionError):
        raise InputError(f"{path}: no frames per second; set attribute frame_rate of video, such as '25/1'") from None
    kind = {".mp4": "mp4", ".mkv": "matroska"}[path.suffix]
    base, ticks = _times(attrs, len(frames), path)
    if kind == "matroska" and any((t * base * 1000).denominator > 1 for t in ticks):
        raise InputError(f"{path}: .mkv files have times in milliseconds, and these are finer; write .mp4")
    import av

    with av.open(str(path), "w", format=kind, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream({"mp4": "libx264rgb", "matroska": "ffv1"}[kind], rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = {"mp4": "rgb24", "matroska": "bgr0"}[kind]
        stream.options = {
            "mp4": {"qp": "0", "x264-params": "log-level=none"},
            "matroska": {"level": "3", "slicecrc": "1"},
        }[kind]
        if ticks:
            stream.time_base = stream.codec_context.time_base = base
        for i, values in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(values, format="rgb24")
            if ticks:
                frame.pts, frame.time_base = ticks[i], base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _times(attrs: dict[str, Any], count: int, path: Path) -> tuple[Fraction, list[int]]:
    """Unit and beginnings of frames that last unequally long; none where all last equally long."""
    if "frame_ticks" not in attrs:
        return Fraction(1), []
    ticks = [int(t) for t in flat_list(attrs["frame_ticks"])]
    try:
        base = Fraction(str(flat_list(attrs["time_base"])[0]))
    except (KeyError, ValueError, ZeroDivisionError):
        base = Fraction(0)
    if len(ticks) != count or base <= 0 or any(b <= a for a, b in pairwise(ticks)):
        raise InputError(
            f"{path}: frame_ticks and time_base do not say when each of the {count} frames begins; delete frame_ticks "
            "to make all last equally long"
        )
    return base, ticks


FORMAT = Format(
    name="MP4, MKV and other video",
    recognises=recognises,
    read=read,
    read_stream=read_stream,
    suffixes=(".mp4", ".mkv", ".webm", ".avi", ".y4m", ".mov", ".m4v"),
    written=(".mkv", ".mp4"),
    write=write,
)
