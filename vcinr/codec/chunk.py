"""The layout of a chunk's bytes (docs/format.md): sections, side streams and checksum.

A chunk consists of these parts, little-endian: ``VC`` | u8 version | u8 mode | u32 CRC-32 of everything else and of the
field | u16 flags | the sections that the flags announce | stream. The sections come in the order of `Sections`, each as
a LEB128 length and its bytes. In mode `LOSSLESS` the stream holds the values
(`vcinr.coding.lossless`); in mode `LOSSY` it is the bitstream of the latents.

The checksum starts from a digest of the field, the dtype and the chunk shape (`seed_of`). A chunk that is read under
other metadata than it was written with is therefore an error, and never gives other values.
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
from vcinr.coding.leb128 import leb128, read_leb128
from vcinr.coding.residual import Plan, coder_of, pack, unpack
from vcinr.errors import CorruptError

VERSION = 1
MAGIC = b"VC"
LOSSLESS, LOSSY = 0, 1


@dataclass(frozen=True)
class Sections:
    """The sections of a chunk, in the order in which they are stored. Section i has the flag 2^i.

    Attributes
    ----------
    extent, mask, specials, prior, constant, residual, exceptions, log : bytes or None
        The bytes of each section, or None where it is absent. `extent` is the shape of the part of the chunk that lies
        inside the array. `mask` says which values are set aside, and `specials` holds them. `prior` names the rate and
        the coder of the latents. `constant` is a number that is added to all values. `residual` has the step, the plan
        and the stream of the residual coder. `exceptions` are values that are stored verbatim. `log` is present where
        logarithms of the values are coded, and holds their signs.
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
        """The sections that are present, by name, in the order in which they are stored."""
        by_name = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: section for name, section in by_name.items() if section is not None}

    @property
    def cost(self) -> int:
        """Bytes of the sections, each with one byte for its length (longer lengths are not counted)."""
        return sum(1 + len(section) for section in self.present.values())

    def __or__(self, other: Sections) -> Sections:
        """The sections of both. Where both have a section, that of `other` is taken."""
        return Sections(**{**self.present, **other.present})


@dataclass(frozen=True)
class Chunk:
    """The parts of a chunk.

    Attributes
    ----------
    mode : int
        `LOSSLESS` or `LOSSY`.
    sections : Sections
        The sections.
    stream : bytes
        The bytes after the sections: the values in lossless mode, the latents in lossy mode.
    """

    mode: int
    sections: Sections
    stream: bytes

    def pack(self, seed: int) -> bytes:
        """The chunk's bytes; `seed` is what `seed_of` gives for its field, dtype and shape."""
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
        """Inverse of `pack`.

        Parameters
        ----------
        data : bytes
            The chunk's bytes.
        seed : int or None
            As in `pack`. The checksum is verified before anything is parsed; None skips this.

        Raises
        ------
        CorruptError
            For bytes that are not a chunk, or not a chunk of this field, dtype and shape.
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
    """CRC-32 of everything besides a chunk's bytes that its decoding depends on.

    Parameters
    ----------
    field : Field
        The field of the chunk. It keeps the result, because a field has many chunks.
    dtype : numpy.dtype
        The array's dtype.
    chunk_shape : tuple of int
        The shape of the array's chunks.

    Returns
    -------
    int
        The value from which the chunk's checksum starts.
    """
    seed = field.seeds.get((dtype, chunk_shape))
    if seed is not None:
        return seed
    metadata: list[Any] = [
        field.variable, field.signal_axes, [[float(v).hex() for v in axis] for axis in field.domain.columns],
        field.model.sha256 if field.model else None, [float(v).hex() for v in field.scaling],
        [float(f).hex() if dtype.kind == "f" else str(f) for f in field.fill],
        None if field.limits is None else [float(v).hex() for v in field.limits],
        dtype.newbyteorder("<").str, chunk_shape,
    ]  # fmt: skip
    if field.feature_axis is not None:
        metadata.append(field.feature_axis)
    positions = field.positions_sha256 if field.positions is None else field.positions.sha256
    if positions is not None:
        metadata.append({"positions": positions})
    seed = field.seeds[dtype, chunk_shape] = zlib.crc32(json.dumps(metadata, separators=(",", ":")).encode())
    return seed


def needs_positions(data: bytes) -> bool:
    """Whether a chunk can be decoded only where positions are known; False for bytes that are not a chunk."""
    try:
        section = Chunk.unpack(data, None).sections.residual
        return section is not None and coder_of(read_residual(section)[1]).needs_positions
    except CorruptError:
        return False


def describe(data: bytes, *, patches: bool = False) -> dict[str, int | str | None]:
    """The mode of a chunk and the sizes of its parts.

    The checksum is not verified, since that needs the field.

    Parameters
    ----------
    data : bytes
        The chunk's bytes.
    patches : bool
        Whether its model is one of experts for patches, which a chunk does not say.

    Returns
    -------
    dict
        ``mode`` ("lossless" or "lossy") and ``bytes``, the size of the whole chunk. A lossy chunk also has ``rate``,
        the rate of its model (None without a prior), and the bytes of its ``stream`` and of each of its sections, by
        name.
    """
    chunk = Chunk.unpack(data, None)
    if chunk.mode == LOSSLESS:
        return {"mode": "lossless", "bytes": len(data)}
    sizes: dict[str, int | str | None] = {name: len(section) for name, section in chunk.sections.present.items()}
    section = chunk.sections.prior
    rate = None if section is None else read_patches(section) if patches else read_prior(section)[0]
    return {"mode": "lossy", "bytes": len(data), "rate": rate, **sizes, "stream": len(chunk.stream)}


# --- sections


def extent_section(shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> Sections:
    """The section of the extent `shape`; no section where it is the whole chunk."""
    return Sections() if shape == chunk_shape else Sections(extent=b"".join(leb128(n) for n in shape))


def read_extent(section: bytes | None, chunk_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the part of the chunk that lies inside the array: the whole chunk without a section."""
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


def mask_sections(signals: np.ndarray, valid: np.ndarray, *, quick: bool = False) -> Sections:
    """The mask and the values under it.

    Parameters
    ----------
    signals : numpy.ndarray
        The chunk's values ``[n, *signal]``.
    valid : numpy.ndarray
        bool, of the same shape: False for values that are set aside.
    quick : bool
        Whether time counts more than bytes: where the mask is large, and for the values.

    Returns
    -------
    Sections
        `mask` and `specials`; neither where all values are valid.
    """
    if valid.all():
        return Sections()
    hidden = signals[~valid]
    bits = hidden.view(f"u{hidden.dtype.itemsize}")  # NaN is not equal to itself, but its bits are
    if (bits == bits[0]).all():
        body = b"\0" + hidden[:1].astype(hidden.dtype.newbyteorder("<")).tobytes()
    else:
        body = b"\1" + lossless.encode(hidden, quick=quick)
    return Sections(mask=lossless.encode_mask(~valid, quick=quick), specials=body)


def read_specials(section: bytes | None, count: int, dtype: np.dtype) -> np.ndarray:
    """The `count` values under the mask, in C order of the signals ``[n, *signal]``."""
    data = section or b""
    if data[:1] == b"\0" and len(data) == 1 + dtype.itemsize:
        value = np.frombuffer(data[1:], dtype.newbyteorder("<")).astype(dtype)
        return np.repeat(value, count)
    if data[:1] == b"\1":
        return lossless.decode(data[1:], (count,), dtype)
    raise CorruptError("values under the mask are malformed")


def prior_section(rate: int, coder: int) -> Sections:
    """The section that names the rate of the model's quantiser and the number of the latents' coder."""
    return Sections(prior=bytes([rate << 3 | coder]))


def patches_section(rate: int) -> Sections:
    """The section that names the rate of a model of patches (:mod:`vcinr.patches.model`)."""
    return Sections(prior=bytes([rate]))


def read_patches(section: bytes) -> int:
    """The rate of a model of patches."""
    if len(section) != 1:
        raise CorruptError("section has a wrong length")
    return section[0]


def read_prior(section: bytes) -> tuple[int, int]:
    """The rate of the model's quantiser, and the number of the latents' coder."""
    if len(section) != 1:
        raise CorruptError("section has a wrong length")
    return section[0] >> 3, section[0] & 7


def constant_section(value: float) -> Sections:
    """The section of a number that is added to all values; it is stored as float32."""
    return Sections(constant=struct.pack("<f", value))


def read_constant(section: bytes | None) -> float:
    """The number that is added to all values; 0 without a section."""
    return 0.0 if section is None else _number(section, "<f")


def residual_section(step: float, plan: Plan, stream: bytes) -> Sections:
    """The section of a residual, which the residual coder has coded as `stream` with a step and a plan."""
    return Sections(residual=struct.pack("<d", step) + pack(plan) + stream)


def read_residual(section: bytes) -> tuple[float, Plan, bytes]:
    """The step, the plan and the stream of the residual coder."""
    step, (plan, size) = _number(section[:8], "<d"), unpack(section[8:])
    if step <= 0:
        raise CorruptError("residual step is malformed")
    return step, plan, section[8 + size :]


def log_section(signals: np.ndarray, valid: np.ndarray, *, quick: bool = False) -> Sections:
    """The section of the valid values' signs: empty if all are positive, one byte if all are negative, else a mask.

    Arguments are those of `mask_sections`.
    """
    negative = valid & (signals < 0)
    if not negative.any():
        return Sections(log=b"")
    if negative[valid].all():
        return Sections(log=b"\1")
    return Sections(log=b"\2" + lossless.encode_mask(negative, quick=quick))


def read_signs(section: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The signs, 1.0 or -1.0: one for each value of `shape`, or a single number where all are the same."""
    if section in (b"", b"\1"):
        return np.array(-1.0 if section else 1.0)
    if section[:1] != b"\2":
        raise CorruptError("signs are malformed")
    return np.where(lossless.decode_mask(section[1:], shape), -1.0, 1.0)


def exceptions_section(values: np.ndarray, where: np.ndarray) -> Sections:
    """The section of values that are stored verbatim.

    Parameters
    ----------
    values : numpy.ndarray
        The values inside the array, in the array's own order of axes.
    where : numpy.ndarray
        Flat indices of the values to store, in ascending order.
    """
    gaps = np.diff(where, prepend=0).astype("<i8")
    verbatim = values.ravel()[where]
    body = lossless.deflate(gaps.tobytes() + verbatim.astype(verbatim.dtype.newbyteorder("<")).tobytes())
    return Sections(exceptions=struct.pack("<Q", len(where)) + body)


def apply_exceptions(out: np.ndarray, section: bytes) -> None:
    """Overwrite elements of `out`, a C-contiguous array, with the values that are stored verbatim."""
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
    """The finite number that a section consists of; `layout` is its format for `struct`."""
    if len(section) != struct.calcsize(layout):
        raise CorruptError("section has a wrong length")
    (value,) = struct.unpack(layout, section)
    if not math.isfinite(value):
        raise CorruptError("section holds no finite number")
    return value
