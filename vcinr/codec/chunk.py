"""The layout of a chunk's bytes (docs/format.md): sections, side streams and checksum.

A chunk, little-endian: ``VC`` | u8 version | u8 mode | u32 CRC-32 of all else and of the field | u16 flags | the
sections that the flags announce, in the order of `Sections`, each a LEB128 length and its bytes | stream. In mode
`LOSSLESS` the stream is the shuffled, deflated bytes of the values, in mode `LOSSY` the bitstream of the latents. The
checksum starts from a digest of the field, dtype and chunk shape (`seed_of`), so a chunk read under other metadata than
it was written with is an error, not another value.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from vcinr.codec.promise import Field
from vcinr.coding import lossless
from vcinr.coding.residual import Plan, pack, unpack
from vcinr.errors import CorruptError

VERSION = 1
MAGIC = b"VC"
LOSSLESS, LOSSY = 0, 1


@dataclass(frozen=True)
class Sections:
    """The sections of a chunk, in their order; None where one is absent. Section i has the flag 2^i.

    extent: the part of the chunk inside the array. mask: which values are set aside. specials: these values. prior:
    rate and coder of the latents. constant: a number added to everything. residual: step, plan and stream of the
    residual coder. exceptions: values stored verbatim. log: signs, where logarithms are coded.
    """

    extent: bytes | None = None
    mask: bytes | None = None
    specials: bytes | None = None
    prior: bytes | None = None
    constant: bytes | None = None
    residual: bytes | None = None
    exceptions: bytes | None = None
    log: bytes | None = None

    @property
    def present(self) -> dict[str, bytes]:
        """Those that are there, by name, in their order."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: section for name, section in named.items() if section is not None}

    @property
    def cost(self) -> int:
        """Bytes that they take, but for lengths of more than one byte."""
        return sum(1 + len(section) for section in self.present.values())

    def __or__(self, other: Sections) -> Sections:
        """Both; where both have a section, that of `other`."""
        return Sections(**{**self.present, **other.present})


@dataclass(frozen=True)
class Chunk:
    """The parts of a chunk: its mode, sections and stream."""

    mode: int
    sections: Sections
    stream: bytes

    def pack(self, seed: int) -> bytes:
        """The chunk's bytes; `seed` as of `seed_of`."""
        flags, body = 0, b""
        present = self.sections.present
        for i, name in enumerate(_NAMES):
            if name in present:
                flags |= 1 << i
                body += leb128(len(present[name])) + present[name]
        head, rest = bytes([VERSION, self.mode]), struct.pack("<H", flags) + body + self.stream
        return MAGIC + head + struct.pack("<I", zlib.crc32(rest, zlib.crc32(head, seed))) + rest

    @classmethod
    def unpack(cls, data: bytes, seed: int | None) -> Chunk:
        """Inverse of `pack`. The checksum is checked before anything is parsed, unless `seed` is None.

        Raises
        ------
        CorruptError
            For bytes that are not a chunk, or not one of this field, dtype and shape.
        """
        if len(data) < 10 or data[:2] != MAGIC:
            raise CorruptError("not a vcinr chunk")
        body = data[8:]
        if seed is not None and zlib.crc32(body, zlib.crc32(data[2:4], seed)) != struct.unpack("<I", data[4:8])[0]:
            raise CorruptError("checksum mismatch: the chunk or the array's metadata is damaged")
        if data[2] > VERSION:
            raise CorruptError(f"chunk of format version {data[2]}; this vcinr reads up to {VERSION}: upgrade it")
        (flags,) = struct.unpack_from("<H", body)
        if data[3] not in (LOSSLESS, LOSSY) or flags >= 1 << len(_NAMES):
            raise CorruptError("chunk of an unknown mode")
        position, sections = 2, {}
        for i, name in enumerate(_NAMES):
            if flags >> i & 1:
                length, position = read_leb128(body, position)
                if length > len(body) - position:
                    raise CorruptError("section is longer than its chunk")
                sections[name] = body[position : position + length]
                position += length
        return cls(data[3], Sections(**sections), body[position:])


_NAMES = tuple(f.name for f in fields(Sections))


def seed_of(field: Field, dtype: np.dtype, chunk_shape: tuple[int, ...]) -> int:
    """CRC-32 of all that decoding a chunk depends on besides its bytes."""
    seed = field.seeds.get((dtype, chunk_shape))
    if seed is not None:
        return seed
    known: list[Any] = [
        field.variable, field.signal_axes, [[float(v).hex() for v in axis] for axis in field.domain.columns],
        field.model.sha256 if field.model else None, [float(v).hex() for v in field.scaling],
        [float(f).hex() if dtype.kind == "f" else str(f) for f in field.fill],
        None if field.limits is None else [float(v).hex() for v in field.limits],
        dtype.newbyteorder("<").str, chunk_shape,
    ]  # fmt: skip
    if field.feature_axis is not None:
        known.append(field.feature_axis)
    seed = field.seeds[dtype, chunk_shape] = zlib.crc32(json.dumps(known, separators=(",", ":")).encode())
    return seed


def describe(data: bytes) -> dict[str, int | str | None]:
    """Mode and section sizes of a chunk, as it states them: its checksum, which needs the field, is not checked."""
    chunk = Chunk.unpack(data, None)
    if chunk.mode == LOSSLESS:
        return {"mode": "lossless", "bytes": len(data)}
    sizes: dict[str, int | str | None] = {name: len(section) for name, section in chunk.sections.present.items()}
    rate = None if chunk.sections.prior is None else read_prior(chunk.sections.prior)[0]
    return {"mode": "lossy", "bytes": len(data), "rate": rate, **sizes, "stream": len(chunk.stream)}


# --- sections


def extent_section(shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> Sections:
    """The extent, where it is not the whole chunk."""
    return Sections() if shape == chunk_shape else Sections(extent=b"".join(leb128(n) for n in shape))


def read_extent(section: bytes | None, chunk_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The part of the chunk that lies inside the array."""
    if section is None:
        return chunk_shape
    shape, position = [], 0
    for full in chunk_shape:
        n, position = read_leb128(section, position)
        if n > full:
            raise CorruptError("extent exceeds the chunk")
        shape.append(n)
    if position != len(section):
        raise CorruptError("extent is malformed")
    return tuple(shape)


def mask_sections(signals: np.ndarray, valid: np.ndarray) -> Sections:
    """The mask of what is not `valid` ``[n, *signal]``, and the values under it."""
    if valid.all():
        return Sections()
    hidden = signals[~valid]
    bits = hidden.view(f"u{hidden.dtype.itemsize}")
    if (bits == bits[0]).all():
        body = b"\0" + hidden[:1].astype(hidden.dtype.newbyteorder("<")).tobytes()
    else:
        body = b"\1" + lossless.encode(hidden)
    return Sections(mask=lossless.encode_mask(~valid), specials=body)


def read_specials(section: bytes | None, count: int, dtype: np.dtype) -> np.ndarray:
    """The values under the mask, `count` of them."""
    data = section or b""
    if data[:1] == b"\0" and len(data) == 1 + dtype.itemsize:
        one = np.frombuffer(data[1:], dtype.newbyteorder("<")).astype(dtype)
        return np.repeat(one, count)
    if data[:1] == b"\1":
        return lossless.decode(data[1:], count, dtype)
    raise CorruptError("values under the mask are malformed")


def prior_section(rate: int, coder: int) -> Sections:
    """Rate of the model's quantiser and number of the latents' coder."""
    return Sections(prior=bytes([rate << 3 | coder]))


def read_prior(section: bytes) -> tuple[int, int]:
    """Rate of the model's quantiser and number of the latents' coder."""
    if len(section) != 1:
        raise CorruptError("section has a wrong length")
    return section[0] >> 3, section[0] & 7


def constant_section(value: float) -> Sections:
    """A number, as float32, that is added to everything."""
    return Sections(constant=struct.pack("<f", value))


def read_constant(section: bytes | None) -> float:
    """The number added to everything; 0 where there is none."""
    return 0.0 if section is None else _number(section, "<f")


def residual_section(step: float, plan: Plan, stream: bytes) -> Sections:
    """What the residual coder made with that step and plan."""
    return Sections(residual=struct.pack("<d", step) + pack(plan) + stream)


def read_residual(section: bytes) -> tuple[float, Plan, bytes]:
    """Step, plan and stream of the residual coder."""
    step, plan = _number(section[:8], "<d"), unpack(section[8:9])
    if step <= 0:
        raise CorruptError("residual step is malformed")
    return step, plan, section[9:]


def log_section(signals: np.ndarray, valid: np.ndarray) -> Sections:
    """Signs of the valid values: nothing if all are positive, one byte if all are negative, else a mask."""
    negative = valid & (signals < 0)
    if not negative.any():
        return Sections(log=b"")
    return Sections(log=b"\1" if negative[valid].all() else b"\2" + lossless.encode_mask(negative))


def read_signs(section: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """1 or -1 for every value ``shape``, or for all of them."""
    if section in (b"", b"\1"):
        return np.array(-1.0 if section else 1.0)
    if section[:1] != b"\2":
        raise CorruptError("signs are malformed")
    return np.where(lossless.decode_mask(section[1:], shape), -1.0, 1.0)


def exceptions_section(values: np.ndarray, where: np.ndarray) -> Sections:
    """The values at flat indices `where`, verbatim."""
    gaps = np.diff(where, prepend=0).astype("<i8")
    verbatim = values.ravel()[where]
    body = lossless.deflate(gaps.tobytes() + verbatim.astype(verbatim.dtype.newbyteorder("<")).tobytes())
    return Sections(exceptions=struct.pack("<Q", len(where)) + body)


def apply_exceptions(out: np.ndarray, section: bytes) -> None:
    """Put the values that are stored verbatim into `out`, which is contiguous."""
    if len(section) < 8:
        raise CorruptError("exceptions are malformed")
    (count,) = struct.unpack_from("<Q", section)
    if count > out.size:
        raise CorruptError("more exceptions than values")
    body = lossless.inflate(section[8:], count * (8 + out.dtype.itemsize))
    where = np.cumsum(np.frombuffer(body[: 8 * count], "<i8"))
    if count and (where.min() < 0 or where.max() >= out.size):
        raise CorruptError("exception outside the chunk")
    out.reshape(-1)[where] = np.frombuffer(body[8 * count :], out.dtype.newbyteorder("<"))


def _number(section: bytes, layout: str) -> float:
    if len(section) != struct.calcsize(layout):
        raise CorruptError("section has a wrong length")
    (value,) = struct.unpack(layout, section)
    if not math.isfinite(value):
        raise CorruptError("section holds no finite number")
    return value


def leb128(value: int) -> bytes:
    """A number in as few bytes as it takes, seven bits each, the lowest first."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def read_leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number, and the position after it."""
    value = 0
    for shift in range(0, 63, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise CorruptError("length is malformed")
