"""Sound by the package soundfile: WAV, FLAC, AIFF, Ogg and MP3.

The variable is ``sound(time)`` for one channel and ``sound(time, channel)`` for several. Integers of 8 and 16 bits are
int16, those of 24 and 32 bits int32, each with its own values, and the attribute `bits` says how many there are. Floats
keep their type; Ogg and MP3 become float32. WAV, AIFF and FLAC are written, without loss.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import File, Format, Groups, flat_list, only, values_of

_TYPES = {
    "PCM_S8": ("int16", 8), "PCM_U8": ("int16", 8), "PCM_16": ("int16", 16), "PCM_24": ("int32", 24),
    "PCM_32": ("int32", 32), "DOUBLE": ("float64", None), "ULAW": ("int16", 16), "ALAW": ("int16", 16),
}  # fmt: skip
"""Of each way in which samples are stored: their type here, and how many bits of it count."""

_TAGS = ("title", "artist", "album", "comment", "copyright", "date", "genre", "tracknumber", "license")


def recognises(file: File) -> bool:
    """Whether a file is sound of one of these formats."""
    head = file.head
    return (
        (head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE")
        or (head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"))
        or head.startswith(
            (b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xe3", b"\xff\xe2")
        )
    )


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    return {"": _dataset(path.read_bytes(), name)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole."""
    return {"": _dataset(stream.read(), name)}


def _dataset(data: bytes, name: str) -> xr.Dataset:
    import soundfile

    _check_length(data, name)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        dtype, bits = _TYPES.get(file.subtype, ("float32", None))
        values = file.read(dtype=dtype)
        if len(values) < file.frames:
            raise InputError(f"{name}: cut off, it has {len(values)} of {file.frames} samples; copy it again")
        attrs = {"sample_rate": int(file.samplerate), "subtype": str(file.subtype)}
        attrs |= {k: v for k, v in file.copy_metadata().items() if k in _TAGS and v}
    if bits is not None:
        attrs["bits"] = bits
        values = values >> (8 * values.itemsize - bits)  # libsndfile puts them into the upper bits
    return xr.Dataset({"sound": (("time", "channel")[: values.ndim], values, attrs)})


def _check_length(data: bytes, name: str) -> None:
    """Raise InputError for a file that ends too early, of which libsndfile would read the rest in silence."""
    if data[:4] == b"OggS":
        last = data[data.rfind(b"OggS") :]  # the last page, which says so
        sizes = last[27 : 27 + last[26]] if len(last) > 26 else b""
        if not sizes or not last[5] & 4 or len(last) < 27 + len(sizes) + sum(sizes):
            raise InputError(f"{name}: cut off, the end of its last page is missing; copy it again")
    if data[:4] not in (b"RIFF", b"FORM"):
        return
    order = "<" if data[:4] == b"RIFF" else ">"
    start = 12
    while start + 8 <= len(data):
        kind = data[start : start + 4]
        (size,) = struct.unpack_from(f"{order}I", data, start + 4)
        start += 8 + size + size % 2
        if kind in (b"data", b"SSND") and size != 2**32 - 1 and start - size % 2 > len(data):  # -1: written as a stream
            raise InputError(f"{name}: cut off, it has {len(data)} of at least {start} bytes; copy it again")


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write WAV, AIFF or FLAC."""
    only(dataset, path, "sound")
    values = values_of(dataset, path, "sound", ("time",), ("time", "channel"))
    attrs = dataset["sound"].attrs
    kind = {".wav": "WAV", ".flac": "FLAC", ".aiff": "AIFF", ".aif": "AIFF"}[path.suffix]
    if "sample_rate" not in attrs:
        raise InputError(f"{path}: no samples per second; set attribute sample_rate of sound")
    rate = flat_list(attrs["sample_rate"])[0]
    if rate != int(rate) or not 0 < rate < 2**31:
        raise InputError(f"{path}: attribute sample_rate of sound is {rate}, and must be a whole number above 0")
    if values.ndim == 2 and values.shape[1] == 1:
        raise InputError(f"{path}: sound has one channel; take it out of its dimension with isel(channel=0)")
    subtype, shift = _subtype(values, attrs, kind, path)
    if kind == "FLAC" and not len(values):
        raise InputError(f"{path}: a .flac file cannot be empty; write .wav")
    if values.nbytes > 2**32 - 2**20 and kind != "FLAC":
        raise InputError(f"{path}: {kind} files end at 4 GB; write .flac, or cut the sound into parts")
    import soundfile

    channels = 1 if values.ndim == 1 else values.shape[1]
    with soundfile.SoundFile(path, "w", int(rate), channels, subtype, format=kind) as file:
        for tag in _TAGS:
            if tag in attrs:
                setattr(file, tag, str(attrs[tag]))
        file.write(values << shift if shift else values)
    if kind != "FLAC" and values.dtype.kind == "f":
        _forget_time(path)


def _forget_time(path: Path) -> None:
    """Clear the time at which the peaks of floats were found, so that a sound always becomes the same file."""
    with open(path, "r+b") as file:
        head = file.read(1 << 12)
        order: Literal["little", "big"] = "little" if head[:4] == b"RIFF" else "big"
        at = 12
        while at + 16 <= len(head) and head[at : at + 4] != b"PEAK":
            size = int.from_bytes(head[at + 4 : at + 8], order)
            at += 8 + size + size % 2
        if at + 16 <= len(head):
            file.seek(at + 12)  # after name, size and version
            file.write(bytes(4))


def _subtype(values: np.ndarray, attrs: dict[str, object], kind: str, path: Path) -> tuple[str, int]:
    """How samples are stored in a file, and by how many bits they are shifted to the left for it."""
    name = values.dtype.name
    if name in ("float32", "float64"):
        if kind == "FLAC":
            raise InputError(f"{path}: .flac files hold integers and sound is {name}; write .wav")
        return {"float32": "FLOAT", "float64": "DOUBLE"}[name], 0
    if name not in ("int16", "int32"):
        raise InputError(f"{path}: sound is {name} and must be int16, int32, float32 or float64")
    width = 8 * values.itemsize
    bits = int(flat_list(attrs.get("bits", width))[0])
    if bits not in ((8, 16) if name == "int16" else (24, 32)):
        raise InputError(f"{path}: sound is {name} of {bits} bits, and int16 has 8 or 16, int32 24 or 32; correct bits")
    if bits == 32 and kind == "FLAC":
        raise InputError(f"{path}: .flac files hold up to 24 bits and sound has 32; write .wav")
    if values.size and (values.min() < -(2 ** (bits - 1)) or values.max() >= 2 ** (bits - 1)):
        raise InputError(f"{path}: sound has values beyond its {bits} bits; correct the attribute bits")
    return ("PCM_U8" if kind == "WAV" else "PCM_S8") if bits == 8 else f"PCM_{bits}", width - bits


FORMAT = Format(
    name="WAV, FLAC and other sound",
    recognises=recognises,
    read=read,
    read_stream=read_stream,
    suffixes=(".wav", ".flac", ".aiff", ".aif", ".ogg", ".oga", ".mp3"),
    written=(".flac", ".wav", ".aiff", ".aif"),
    write=write,
)
