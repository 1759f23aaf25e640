"""Codecs of sound, by PyAV: MP3, Opus and AAC, and FLAC, which rounds floats to 16 or 24 bits.

Each takes and gives int16, int32 or floats ``[time]`` or ``[time, channel]``, of one channel or two. The bytes are
those of all packets, without a container. A decoder's delay is found by cross-correlation and removed, which costs the
codec nothing. Opus takes only some sample rates; sound of others is resampled for it and back, which counts as its
error.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from benchmarks.rivals.images import Lossy

FLAC = "FLAC"
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def full_scale(samples: np.ndarray) -> float:
    """What codecs take for 1: 2^15 of int16, 2^23 or 2^31 of int32, of floats 1 or their largest."""
    largest = float(np.abs(samples.astype(np.float64)).max(initial=0.0))
    if samples.dtype.kind == "f":
        return max(1.0, largest)
    return 2.0**15 if samples.dtype.itemsize == 2 else 2.0**23 if largest <= 2**23 else 2.0**31


def _packets(
    codec: str, samples: np.ndarray, rate: int, form: str, options: dict[str, str], bits: float | None = None
) -> bytes:  # fmt: skip
    """Code samples ``[channel, time]`` of the type of `form`.

    Returns what a decoder is told of the codec, and the packets; `size_of` counts the latter.
    """
    import av

    layout = "mono" if len(samples) == 1 else "stereo"
    context: Any = av.CodecContext.create(codec, "w")
    context.sample_rate, context.format, context.layout = rate, form, layout
    context.time_base, context.options = Fraction(1, rate), options
    if bits is not None:
        context.bit_rate = int(bits)
    context.open()
    size = context.frame_size or 960
    packets = []
    for start in range(0, samples.shape[1], size):
        part = samples[:, start : start + size]
        planes = part if form.endswith("p") else part.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), form, layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        packets += context.encode(frame)
    packets += context.encode(None)
    parts = [bytes(context.extradata or b""), *map(bytes, packets)]
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _unpack(data: bytes) -> list[bytes]:
    packets, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        packets.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return packets


def size_of(data: bytes) -> int:
    """The bytes of the packets alone."""
    return sum(len(packet) for packet in _unpack(data)[1:])


def _samples(codec: str, data: bytes, rate: int, wanted: int, channels: int) -> np.ndarray:
    """Decode packets to floats ``[time]`` or ``[time, channel]`` at a sample rate."""
    import av

    head, *packets = _unpack(data)
    context: Any = av.CodecContext.create(codec, "r")
    if head:
        context.extradata = head
    if codec == "flac":
        context.sample_rate, context.layout = rate, "mono" if channels == 1 else "stereo"
    frames = [f for p in packets for f in context.decode(av.Packet(p))]
    with contextlib.suppress(av.error.EOFError):  # FLAC keeps nothing back
        frames += context.decode(None)
    form = frames[0].format.name
    parts = [f.to_ndarray() for f in frames]
    if not form.endswith("p"):
        parts = [part.reshape(-1, len(f.layout.channels)).T for part, f in zip(parts, frames, strict=True)]
    values = np.concatenate(parts, 1)
    values = values / {"s16": 2**15, "s32": 2**31}.get(form.removesuffix("p"), 1)
    values = values.mean(0) if channels == 1 else values.T  # of one channel, decoders may make two equal ones
    return _resampled(values, frames[0].sample_rate, wanted)


def _resampled(values: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted:
        return values
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    return np.asarray(resample_poly(values, wanted // common, rate // common))


def aligned_to(samples: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Shift what was decoded, in units of `full_scale`, to where it fits `samples` best, and give it their type."""
    first, other = (v.reshape(len(v), -1).mean(1, dtype=np.float64) for v in (samples, decoded))
    size = 1 << (len(samples) + len(decoded)).bit_length()
    lags = np.fft.irfft(np.fft.rfft(other, size) * np.conj(np.fft.rfft(first, size)), size)
    lag = int(np.argmax(np.concatenate([lags[:4000], lags[-200:]])))
    lag = lag if lag < 4000 else lag - 4200
    none = ((0, 0),) * (decoded.ndim - 1)
    shifted = decoded[lag:] if lag >= 0 else np.pad(decoded, ((-lag, 0), *none))
    shifted = shifted[: len(samples)]
    shifted = full_scale(samples) * np.pad(shifted, ((0, len(samples) - len(shifted)), *none))
    if samples.dtype.kind == "f":
        return shifted.astype(samples.dtype)
    limits = np.iinfo(samples.dtype)
    return np.clip(np.rint(shifted), limits.min, limits.max).astype(samples.dtype)


def _planes(samples: np.ndarray, form: str) -> np.ndarray:
    """Samples as ``[channel, time]`` of a type that codecs take."""
    planes = samples.reshape(len(samples), -1).T
    if form == "s16" and planes.dtype == np.int16:
        return planes
    values = planes.astype(np.float64) / full_scale(samples)
    if form == "flt":
        return values.astype(np.float32)
    scale = {"s16": 2**15, "s24": 2**23}[form]
    whole = np.clip(np.rint(values * scale), -scale, scale - 1).astype(np.int32)
    return whole.astype(np.int16) if form == "s16" else whole << 8  # 24 bits lie in the upper ones of 32


def codecs(rate: int, channels: int = 1, *, deep: bool = False) -> tuple[Lossy, ...]:
    """Return the codecs for sound.

    Parameters
    ----------
    rate : int
        Samples in a second.
    channels : int
        1 or 2.
    deep : bool
        Whether samples are more than int16: the codecs then get floats where they take them.
    """
    wide = "flt" if deep else "s16"

    def mp3(samples: np.ndarray, bits: float) -> bytes:
        return _packets("libmp3lame", _planes(samples, wide), rate, f"{wide}p", {"compression_level": "0"}, bits)

    heard = rate if rate in _OPUS_RATES else 48_000

    def opus(samples: np.ndarray, bits: float) -> bytes:
        planes, form = _planes(samples, wide), wide
        if heard != rate:
            planes, form = _planes(_resampled(_planes(samples, "flt").T, rate, heard), "flt"), "flt"
        return _packets("libopus", planes, heard, form, {"application": "audio"}, bits)

    def aac(samples: np.ndarray, bits: float) -> bytes:
        return _packets("aac", _planes(samples, "flt"), rate, "fltp", {"aac_coder": "twoloop"}, bits)

    def flac(samples: np.ndarray, bits: float) -> bytes:
        form = "s16" if bits == 16 else "s24"
        return _packets("flac", _planes(samples, form), rate, form.replace("24", "32"), {"compression_level": "12"})

    def made(name: str, codec: str, encode: Any, settings: Sequence[float], at: int = rate) -> Lossy:
        return Lossy(name, encode, lambda data: _samples(codec, data, at, rate, channels), tuple(settings), size_of)

    low = (8e3, 16e3, 24e3, 32e3, 48e3, 64e3)
    lossy_bits = low if rate <= 24_000 else (*low[3:], 96e3, 128e3)
    found = []
    if rate in _MP3_RATES:
        found.append(made("MP3", "mp3", mp3, [channels * bits for bits in lossy_bits]))
    if heard == rate or deep or channels > 1 or rate > 16_000:
        opus_bits = (8e3, 12e3, 16e3, 20e3, 24e3, 32e3, 48e3, *((64e3, 96e3) if rate > 24_000 else ()))
        found.append(made("Opus", "opus", opus, [channels * bits for bits in opus_bits], heard))
    if (deep or channels > 1) and rate in _AAC_RATES:
        found.append(made("AAC", "aac", aac, [channels * bits for bits in lossy_bits]))
    if deep or channels > 1:
        found.append(made(FLAC, "flac", flac, (16, 24) if deep else (16,)))
    return tuple(found)
