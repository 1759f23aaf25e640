"""The model artifact: everything a decoder (and an encoder) needs, one file, named by its SHA-256.

Layout, little-endian: ``VCINRMDL`` | u16 version | u32 header length | header, JSON | tensors | u32 CRC-32 of all
before it. The header lists every tensor's name, dtype, shape and stored length; large float tensors are stored
as float16, small ones as float32, integers deflated. A model in memory always holds the values its bytes decode to,
so training-time figures and a reader's are of the same network.
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
_MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, ConfigError, zlib.error,
)  # fmt: skip
DELTA = 2.0**-18
"""Least slack of the float32 decoder between machines and BLAS builds, as a fraction of the model's scale."""


@dataclass(frozen=True, eq=False)
class Model:
    """A meta-learned INR, its normalisation and, once trained, its quantiser.

    Parameters
    ----------
    spec
        Shape of the network.
    params
        float32 arrays by name, among them ``phi_0`` ``[variables, d]`` in the order of `normalisation` and the Meta-SGD
        step sizes ``alpha`` ``[d]``.
    system
        The coordinate system (:mod:`vcinr.signals.coordinates`).
    dims
        Names of the dimensions that signals lay over in training.
    normalisation
        (offset, scale) by variable.
    encode_steps, encode_points
        Inner steps of the encoder, and at how many points of a larger grid it takes them.
    quantiser
        Tensors of :class:`vcinr.quantise.state.Quantiser` by name; empty before it is trained.
    provenance
        Facts about the training (data, seed, version), JSON-able; no part of decoding.
    encode_loop
        The encoder's inner loop (:mod:`vcinr.meta.inner`).
    slack
        How far another machine's decoder may be off, as a fraction of the scale, at least `DELTA`. Encoders leave as
        much of an error bound.
    feature_dim
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
        """The artifact's bytes."""
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
        """Hex SHA-256 of the artifact: the model's name."""
        return hashlib.sha256(self.data).hexdigest()

    def scaling(self, variable: str) -> tuple[float, float]:
        """(offset, scale) of `variable`; raises ModelError naming the variables the model knows."""
        if variable in self.normalisation:
            return self.normalisation[variable]
        raise ModelError(
            f"model {self.sha256[:12]} was not trained on variable {variable!r} but on "
            f"{', '.join(self.normalisation)}; train one with `vcinr train` or compress without a model"
        )

    def index(self, variable: str) -> int:
        """Row of `variable` in phi_0; raises ModelError like `scaling`."""
        self.scaling(variable)
        return list(self.normalisation).index(variable)

    def start(self, variable: str) -> np.ndarray:
        """phi_0 of `variable`, ``[d]``: where its inner loop starts, and what its coded latents are relative to."""
        return self.params["phi_0"][self.index(variable)]

    @property
    def linear(self) -> bool:
        """Whether the latents enter linearly: then one evaluation of the network serves all signals on a domain."""
        return conditioning(self.spec.conditioning).linear


def freeze(model: Model) -> Model:
    """The model as a reader will see it: its parameters rounded to their stored precision."""
    return from_bytes(model.data, "model")


def save_model(model: Model, path: str | Path) -> None:
    """Write the artifact atomically."""
    with written_aside(path) as aside:
        aside.write_bytes(model.data)


def load_model(path: str | Path) -> Model:
    """Read an artifact; raises ModelError naming `path` and what is wrong with it."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model ({error.strerror})") from None
    return from_bytes(data, str(path))


def from_bytes(data: bytes, origin: str) -> Model:
    """Decode an artifact; every length is checked before it is used. Raises ModelError naming `origin`."""
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
        tensors, position, room = {}, fixed + length, MAX_BYTES
        for name, kind, shape, stored in header["tensors"]:
            if kind not in _KINDS:  # NumPy itself would try to understand any text
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
        model.__dict__["data"] = data  # what is named by its digest, whatever another encoder would make of it
    except _MALFORMED as error:
        raise ModelError(f"{origin}: the model is malformed ({type(error).__name__}: {error})") from None
    return model


def _check(model: Model) -> None:
    """Raise ValueError unless the parts fit each other, so that no later step meets a shape it does not expect.

    Shapes are compared with what the file holds before anything of the declared size is made.
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
    """`model` completed by a quantiser."""
    return replace(model, quantiser=dict(quantiser), provenance={**model.provenance, **provenance})


_KINDS = ("<i4", "|u1", "<f4", "<f2", "rows8")
"""Integers, deflated; floats; and matrices in 8 bits: a step for each row, float32, then int8, deflated."""


def _pack(name: str, array: np.ndarray) -> tuple[str, bytes]:
    """How a tensor is stored: kind and bytes. Large weights of the network take 8 bits, other large tensors 16."""
    if array.dtype.kind in "iu":
        kind = "|u1" if array.dtype == np.uint8 else "<i4"
        return kind, zlib.compress(array.astype(kind).tobytes(), 9)
    if name.startswith("inr/siren.") and array.ndim == 2 and min(array.shape) > 8:
        steps, codes = rows_in_8_bits(array)
        return "rows8", steps.astype("<f4").tobytes() + zlib.compress(codes.tobytes(), 9)
    kind = "<f2" if array.size > 1024 else "<f4"
    return kind, array.astype(kind).tobytes()


def rows_in_8_bits(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps float32 ``[rows]`` and codes int8 ``[rows, columns]`` of a matrix; their product is exact in float32.

    What has been rounded once is not changed again: a step has 16 bits, and the largest code of a row is 127.
    """
    exact = np.abs(array.astype(np.float64)).max(1) / 127
    fraction, exponent = np.frexp(exact)
    steps = np.ldexp(np.ceil(fraction * 2**16) / 2**16, exponent)
    codes = np.rint(array / np.where(steps > 0, steps, 1)[:, None])
    return steps.astype(np.float32), np.clip(codes, -127, 127).astype(np.int8)


def _unpack(blob: bytes, kind: str, shape: tuple[int, ...], room: int) -> np.ndarray:
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
