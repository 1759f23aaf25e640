"""The container of model files: a header of JSON and named tensors under a checksum.

Layout, little-endian: ``VCINRMDL`` | u16 version | u32 header length | header, JSON | tensors | u32 CRC-32 of all that
comes before it. The header lists the name, type, shape and stored length of each tensor. Matrices may be stored in 8
bits a number, other large float tensors are float16, small ones float32, and integers are deflated.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.errors import ConfigError, ModelError

MAGIC = b"VCINRMDL"
VERSION = 4
"""Latest version. Networks are written as version 1, those of tiles or on graphs as version 3, other kinds of models
(:mod:`vcinr.models`) as version 2, and models of patches whose coders do not start empty as version 4."""
MAX_BYTES = 1 << 30
"""Largest size of a model file, and of its tensors in memory."""
MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, ConfigError, zlib.error,
)  # fmt: skip
"""What code raises that takes the parts of a malformed file for sound ones."""


class Named:
    """What all models have: a name, which is a digest of their bytes, and the scaling of each variable."""

    normalisation: Mapping[str, tuple[float, float]]

    @property
    def data(self) -> bytes:
        """The bytes of the model file."""
        raise NotImplementedError

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of `data` in hexadecimal digits: the name of the model."""
        return hashlib.sha256(self.data).hexdigest()

    def scaling(self, variable: str) -> tuple[float, float]:
        """The (offset, scale) of a variable; raises ModelError for one that the model was not trained on."""
        if variable in self.normalisation:
            return self.normalisation[variable]
        raise ModelError(
            f"model {self.sha256[:12]} was not trained on variable {variable!r} but on "
            f"{', '.join(self.normalisation)}; train one with `vcinr train` or compress without a model"
        )


def read(path: str | Path) -> bytes:
    """Read a model file; raises ModelError, which names `path`, where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model ({error.strerror})") from None


def malformed(origin: str, error: Exception) -> ModelError:
    """The error for a model from `origin` whose parts raised `error`, one of `MALFORMED`."""
    return ModelError(f"{origin}: the model is malformed ({type(error).__name__}: {error})")


def pack(
    header: Mapping[str, Any], tensors: Mapping[str, np.ndarray], in_8_bits: Callable[[str, np.ndarray], bool],
    version: int,
) -> bytes:  # fmt: skip
    """Make the bytes of a model file.

    Parameters
    ----------
    header : mapping
        What JSON can hold.
    tensors : mapping of str to numpy.ndarray
        Integers of up to 32 bits, and floats.
    in_8_bits : callable
        Whether a tensor, given its name and itself, is a matrix to be stored in 8 bits a number (`rows_in_8_bits`).
    version : int
        Version of the format.
    """
    table, blobs = [], []
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        kind, blob = _pack(array, in_8_bits(name, array))
        table.append([name, kind, list(array.shape), len(blob)])
        blobs.append(blob)
    text = json.dumps({**header, "tensors": table}, sort_keys=True, separators=(",", ":")).encode()
    body = MAGIC + struct.pack("<HI", version, len(text)) + text + b"".join(blobs)
    return body + struct.pack("<I", zlib.crc32(body))


def unpack(data: bytes, origin: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Inverse of `pack`, for bytes that are not trusted: every length is checked before it is used.

    Parameters
    ----------
    data : bytes
        The bytes.
    origin : str
        Where they come from, for error messages.

    Returns
    -------
    header : dict
        The header.
    tensors : dict
        float32, int32 and uint8 arrays by name.

    Raises
    ------
    ModelError
        For bytes that are not a model, or that are damaged, malformed or of a later version.
    """
    fixed = len(MAGIC) + 6
    if data[: len(MAGIC)] != MAGIC or len(data) < fixed + 4 or len(data) > MAX_BYTES:
        raise ModelError(f"{origin}: not a vcinr model; train one with `vcinr train`")
    version, length = struct.unpack_from("<HI", data, len(MAGIC))
    if version > VERSION:
        raise ModelError(f"{origin}: model of format version {version}, this vcinr reads up to {VERSION}; upgrade it")
    if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ModelError(f"{origin}: the model is damaged (checksum mismatch); copy it again")
    try:
        header = json.loads(data[fixed : fixed + length])
        tensors, position, room = {}, fixed + length, MAX_BYTES  # room: bytes that further tensors may have in memory
        for name, kind, shape, stored in header["tensors"]:
            if kind not in _KINDS:  # np.dtype would accept many other texts
                raise ValueError(f"tensor {name!r} has the type {kind!r}")
            tensors[name] = _unpack(data[position : position + stored], kind, tuple(shape), room)
            room -= tensors[name].nbytes
            position += stored
    except MALFORMED as error:
        raise malformed(origin, error) from None
    return header, tensors


_KINDS = ("<i4", "|u1", "<f4", "<f2", "rows8")
"""How tensors are stored: integers deflated, floats as they are, and ``rows8`` (see `rows_in_8_bits`) for matrices: a
float32 step for each row, then the int8 codes, deflated."""


def _pack(array: np.ndarray, in_8_bits: bool) -> tuple[str, bytes]:
    """Choose how to store a tensor; returns the kind, one of `_KINDS`, and the bytes.

    Floats that are not stored in 8 bits take 16 where there are more than 1024 of them, and else 32.
    """
    if array.dtype.kind in "iu":
        kind = "|u1" if array.dtype == np.uint8 else "<i4"
        return kind, zlib.compress(array.astype(kind).tobytes(), 9)
    if in_8_bits:
        steps, codes = rows_in_8_bits(array)
        return "rows8", steps.astype("<f4").tobytes() + zlib.compress(codes.tobytes(), 9)
    kind = "<f2" if array.size > 1024 else "<f4"
    return kind, array.astype(kind).tobytes()


def rows_in_8_bits(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise a matrix, each row with a step of its own.

    Returns
    -------
    steps : numpy.ndarray
        float32 ``[rows]``. They have 16 significant bits, so that step * code is exact in float32.
    codes : numpy.ndarray
        int8 ``[rows, columns]``, from -127 to 127.

    Notes
    -----
    A matrix that has been rounded in this way is not changed by doing it again, since the largest code of a row is 127.
    """
    exact = np.abs(array.astype(np.float64)).max(1) / 127
    fraction, exponent = np.frexp(exact)
    steps = np.ldexp(np.ceil(fraction * 2**16) / 2**16, exponent)
    codes = np.rint(array / np.where(steps > 0, steps, 1)[:, None])
    return steps.astype(np.float32), np.clip(codes, -127, 127).astype(np.int8)


def _unpack(blob: bytes, kind: str, shape: tuple[int, ...], room: int) -> np.ndarray:
    """Inverse of `_pack`; raises ValueError for a malformed tensor, or one of more than `room` bytes in memory."""
    if any(not isinstance(n, int) or n < 0 for n in shape) or (kind == "rows8" and len(shape) != 2):
        raise ValueError("tensor of a wrong shape")
    dtype = np.dtype("i1" if kind == "rows8" else kind)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size > room:
        raise ValueError("tensors too large")
    steps = None
    if kind == "rows8":
        steps, blob = np.frombuffer(blob[: 4 * shape[0]], "<f4"), blob[4 * shape[0] :]
    if dtype.kind in "iu":
        blob = zlib.decompressobj().decompress(blob, size + 1)
    if len(blob) != size or (steps is not None and len(steps) != shape[0]):
        raise ValueError("tensor length does not fit its shape")
    array = np.frombuffer(blob, dtype).reshape(shape)
    if steps is not None:
        return steps[:, None].astype(np.float32) * array.astype(np.float32)
    return array.astype({"i": np.int32, "u": np.uint8, "f": np.float32}[dtype.kind])
