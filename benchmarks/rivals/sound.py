"""Codecs of sound: MP3 and Opus, by PyAV. Each takes and gives int16 of one channel.

The bytes are those of all packets, without a container. A decoder's delay is found by cross-correlation and removed,
which costs the codec nothing.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from benchmarks.rivals.images import Lossy

_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)


def _packets(codec: str, samples: np.ndarray, rate: int, bits: float, form: str, options: dict[str, str]) -> bytes:
    """Code samples, and return what a decoder is told of the codec, and the packets; `size_of` counts the latter."""
    import av

    context: Any = av.CodecContext.create(codec, "w")
    context.sample_rate, context.format, context.layout, context.bit_rate = rate, form, "mono", int(bits)
    context.time_base, context.options = Fraction(1, rate), options
    context.open()
    size = context.frame_size or 960
    packets = []
    for start in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + size], form, "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        packets += context.encode(frame)
    packets += context.encode(None)
    parts = [bytes(context.extradata or b""), *map(bytes, packets)]
    return b"".join(len(part).to_bytes(2, "little") + part for part in parts)


def _unpack(data: bytes) -> list[bytes]:
    packets, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "little")
        packets.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return packets


def size_of(data: bytes) -> int:
    """The bytes of the packets alone."""
    return sum(len(packet) for packet in _unpack(data)[1:])


def _samples(codec: str, data: bytes, wanted: int) -> np.ndarray:
    """Decode packets to floats at a sample rate."""
    import av
    from scipy.signal import resample_poly

    head, *packets = _unpack(data)
    context: Any = av.CodecContext.create(codec, "r")
    if head:
        context.extradata = head
    frames = [f for p in packets for f in context.decode(av.Packet(p))]
    frames += context.decode(None)
    values = np.concatenate([f.to_ndarray().mean(0) for f in frames])  # planar, of one channel or two equal ones
    if frames[0].format.name == "s16p":
        values = values / 32768
    rate = frames[0].sample_rate
    return values if rate == wanted else resample_poly(values, 1, rate // wanted)


def aligned_to(samples: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Shift what was decoded, floats on [-1, 1], to where it fits int16 `samples` best, and return int16."""
    size = 1 << (len(samples) + len(decoded)).bit_length()
    spectrum = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(samples.astype(np.float64), size))
    lags = np.fft.irfft(spectrum, size)
    lag = int(np.argmax(np.concatenate([lags[:4000], lags[-200:]])))
    lag = lag if lag < 4000 else lag - 4200
    shifted = decoded[lag:] if lag >= 0 else np.concatenate([np.zeros(-lag), decoded])
    shifted = np.pad(shifted[: len(samples)], (0, max(0, len(samples) - len(shifted))))
    return np.clip(np.rint(32768 * shifted), -32768, 32767).astype(np.int16)


def codecs(rate: int) -> tuple[Lossy, ...]:
    """The codecs for sound of a sample rate. Opus takes only some rates."""

    def mp3(samples: np.ndarray, bits: float) -> bytes:
        return _packets("libmp3lame", samples, rate, bits, "s16p", {"compression_level": "0"})

    def opus(samples: np.ndarray, bits: float) -> bytes:
        return _packets("libopus", samples, rate, bits, "s16", {"application": "audio"})

    low = (8e3, 16e3, 24e3, 32e3, 48e3, 64e3)
    found = [
        Lossy("MP3", mp3, lambda data: _samples("mp3", data, rate), low if rate <= 24_000 else (*low[3:], 96e3, 128e3))
    ]
    if rate in _OPUS_RATES:
        bits = (8e3, 12e3, 16e3, 20e3, 24e3, 32e3, 48e3)
        found.append(Lossy("Opus", opus, lambda data: _samples("opus", data, rate), bits))
    return tuple(found)
