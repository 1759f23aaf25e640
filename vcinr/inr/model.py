"""The model file: everything that a decoder and an encoder need to know of a model, named by its SHA-256.

Layout, little-endian: ``VCINRMDL`` | u16 version | u32 header length | header, JSON | tensors | u32 CRC-32 of all that
comes before it. The header lists the name, type, shape and stored length of each tensor. Weight matrices of the network
are stored in 8 bits, other large float tensors as float16, small ones as float32, and integers deflated.

A model should be used only after `freeze` has rounded it to these types, so that figures of training hold for the
network that a reader evaluates.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.errors import ConfigError, ModelError
from vcinr.inr.conditioning import conditioning
from vcinr.inr.siren import shapes
from vcinr.inr.spec import InrSpec
from vcinr.places import written_aside
from vcinr.signals import coordinates

MAGIC = b"VCINRMDL"
VERSION = 1
MAX_BYTES = 1 << 30
"""Largest size of a model file, and of its tensors in memory."""
_MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, ConfigError, zlib.error,
)  # fmt: skip
DELTA = 2.0**-18
"""Smallest slack for differences between machines and BLAS builds in float32, as a fraction of the model's scale."""


@dataclass(frozen=True, eq=False)
class Model:
    """A meta-learned INR, its normalisation and, once trained, its quantiser.

    Parameters
    ----------
    spec : InrSpec
        Shape of the network.
    params : mapping of str to numpy.ndarray
        Parameters of the network, float32. Among them are ``phi_0`` ``[variables, d]``, whose rows are in the order of
        `normalisation`, and the step sizes ``alpha`` ``[d]`` of Meta-SGD.
    system : mapping
        The coordinate system (:mod:`vcinr.signals.coordinates`).
    dims : tuple of str
        Names of the dimensions over which a signal lay in training.
    normalisation : mapping of str to (float, float)
        (offset, scale) of each variable. The network works on (value - offset) / scale.
    encode_steps : int
        Number of inner steps that the encoder takes.
    encode_points : int
        Largest number of points at which the encoder takes them; of a larger grid it uses only so many.
    quantiser : mapping of str to numpy.ndarray
        Tensors of :class:`vcinr.quantise.state.Quantiser`; empty before it is trained.
    provenance : mapping
        Facts about the training, such as data, seed and method, that JSON can hold. Decoding does not use them.
    encode_loop : str
        Name of the encoder's inner loop (:mod:`vcinr.meta.inner`).
    slack : float
        How much another machine's decoder may differ, as a fraction of the scale; at least `DELTA`. Encoders
        subtract it from an error bound.
    feature_dim : str, optional
        Name of the dimension along which the d_out features of a point lay in training; None where there was none.
    """

    spec: InrSpec
    params: Mapping[str, np.ndarray]
    system: Mapping[str, Any]
    dims: tuple[str, ...]
    normalisation: Mapping[str, tuple[float, float]]
    encode_steps: int
    encode_points: int
    quantiser: Mapping[str, np.ndarray] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    encode_loop: str = "meta-sgd"
    slack: float = DELTA
    feature_dim: str | None = None

    @cached_property
    def data(self) -> bytes:
        """The bytes of the model file."""
        tensors = {**{f"inr/{k}": v for k, v in self.params.items()}}
        tensors.update({f"quantiser/{k}": v for k, v in self.quantiser.items()})
        table, blobs = [], []
        for name in sorted(tensors):
            array = np.asarray(tensors[name])
            kind, blob = _pack(name, array)
            table.append([name, kind, list(array.shape), len(blob)])
            blobs.append(blob)
        header = {
            "spec": self.spec.to_dict(),
            "system": dict(self.system),
            "dims": list(self.dims),
            **({} if self.feature_dim is None else {"feature_dim": self.feature_dim}),
            "normalisation": [[k, *v] for k, v in self.normalisation.items()],
            "encode_loop": self.encode_loop,
            "encode_steps": self.encode_steps,
            "encode_points": self.encode_points,
            "slack": self.slack,
            "provenance": dict(self.provenance),
            "tensors": table,
        }
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        body = MAGIC + struct.pack("<HI", VERSION, len(text)) + text + b"".join(blobs)
        return body + struct.pack("<I", zlib.crc32(body))

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

    def index(self, variable: str) -> int:
        """The row of a variable in phi_0; raises ModelError as `scaling` does."""
        self.scaling(variable)
        return list(self.normalisation).index(variable)

    def start(self, variable: str) -> np.ndarray:
        """phi_0 of a variable ``[d]``, from which its inner loop starts; its latents are coded relative to it."""
        return self.params["phi_0"][self.index(variable)]

    @property
    def linear(self) -> bool:
        """Whether the output is affine in the latents, so that one evaluation of the basis serves all signals."""
        return conditioning(self.spec.conditioning).linear


def freeze(model: Model) -> Model:
    """Return the model as a reader will see it, with its parameters rounded to their stored precision."""
    return from_bytes(model.data, "model")


def save_model(model: Model, path: str | Path) -> None:
    """Write a model file. It appears at `path` only once it is complete."""
    with written_aside(path) as aside:
        aside.write_bytes(model.data)


def load_model(path: str | Path) -> Model:
    """Read a model file; raises ModelError, which names `path`, where it cannot be read or is malformed."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model ({error.strerror})") from None
    return from_bytes(data, str(path))


def from_bytes(data: bytes, origin: str) -> Model:
    """Decode the bytes of a model file, which are not trusted: every length is checked before it is used.

    Parameters
    ----------
    data : bytes
        The bytes.
    origin : str
        Where they come from, for error messages.

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
        groups: dict[str, dict[str, np.ndarray]] = {"inr": {}, "quantiser": {}}
        for name, array in tensors.items():
            group, _, key = name.partition("/")
            groups[group][key] = array
        model = Model(
            InrSpec(**header["spec"]),
            groups["inr"],
            header["system"],
            tuple(header["dims"]),
            {str(k): (float(offset), float(scale)) for k, offset, scale in header["normalisation"]},
            int(header["encode_steps"]),
            int(header["encode_points"]),
            groups["quantiser"],
            header["provenance"],
            str(header.get("encode_loop", "meta-sgd")),
            float(header.get("slack", DELTA)),
            header.get("feature_dim"),
        )
        _check(model)
        # The digest that names the model is of these very bytes; another zlib might deflate to different ones.
        model.__dict__["data"] = data
    except _MALFORMED as error:
        raise ModelError(f"{origin}: the model is malformed ({type(error).__name__}: {error})") from None
    return model


def _check(model: Model) -> None:
    """Raise ValueError unless the parts of a model fit each other, so that later code can rely on their shapes.

    Nothing of a declared size is allocated before the shapes have been compared with those of the stored tensors.
    """
    spec = model.spec
    for name, value in spec.to_dict().items():
        if name not in ("omega_0", "conditioning") and (type(value) is not int or not 0 <= value < 1 << 20):
            raise ValueError(f"{name} is {value!r}")
    if (
        spec.latent < 1
        or spec.depth < 2
        or spec.depth > 1024
        or spec.mapping_blocks > 1024
        or not math.isfinite(spec.omega_0)
    ):
        raise ValueError("the network has an impossible shape")
    expected = shapes(spec, len(model.normalisation)) | {"alpha": (spec.latent,)}
    if {k: v.shape for k, v in model.params.items()} != expected:
        raise ValueError("the network's parameters do not have the shapes it states")
    conditioning(spec.conditioning).check(spec, model.params)
    if not isinstance(model.feature_dim, str | None):
        raise ValueError(f"the features' dimension is {model.feature_dim!r}")
    if not DELTA <= model.slack < 1:
        raise ValueError(f"slack is {model.slack}")
    coordinates.check(dict(model.system))
    if spec.d_in != coordinates.dimension(dict(model.system)):
        raise ValueError("the network does not fit its coordinate system")
    if any(not math.isfinite(offset) or not 0 < scale < math.inf for offset, scale in model.normalisation.values()):
        raise ValueError("the normalisation is not made of numbers")


def with_quantiser(model: Model, quantiser: Mapping[str, np.ndarray], provenance: Mapping[str, Any]) -> Model:
    """Complete a model with a quantiser's tensors, and add to its provenance."""
    return replace(model, quantiser=dict(quantiser), provenance={**model.provenance, **provenance})


_KINDS = ("<i4", "|u1", "<f4", "<f2", "rows8")
"""How tensors are stored: integers deflated, floats as they are, and ``rows8`` (see `rows_in_8_bits`) for matrices: a
float32 step for each row, then the int8 codes, deflated."""


def _pack(name: str, array: np.ndarray) -> tuple[str, bytes]:
    """Choose how to store a tensor; returns the kind, one of `_KINDS`, and the bytes.

    Weight matrices of the network with more than 8 rows and columns take 8 bits for each number, other tensors of more
    than 1024 numbers 16 bits, all others 32 bits.
    """
    if array.dtype.kind in "iu":
        kind = "|u1" if array.dtype == np.uint8 else "<i4"
        return kind, zlib.compress(array.astype(kind).tobytes(), 9)
    if name.startswith("inr/siren.") and array.ndim == 2 and min(array.shape) > 8:
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
