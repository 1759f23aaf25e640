"""The model file: everything that a decoder and an encoder need to know of a model, named by its SHA-256.

It is a container (:mod:`vcinr.container`) in which weight matrices of the network are stored in 8 bits.

A model should be used only after `freeze` has rounded it to these types, so that figures of training hold for the
network that a reader evaluates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vcinr import container
from vcinr.container import Named
from vcinr.inr.conditioning import conditioning
from vcinr.inr.siren import shapes
from vcinr.inr.spec import InrSpec
from vcinr.places import written_aside
from vcinr.signals import Points, coordinates

DELTA = 2.0**-18
"""Smallest slack for differences between machines and BLAS builds in float32, as a fraction of the model's scale."""

_NODES = "graph/nodes"  # the tensor of the nodes' spectral coordinates


@dataclass(frozen=True, eq=False)
class Model(Named):
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
    tile : tuple of int, optional
        Lengths of the tiles that the model learned from, where these were pieces of larger signals, whose points have
        their indices as coordinates. It then applies to signals of any size, tile by tile
        (:mod:`vcinr.signals.tiles`). None where it learned from whole signals, and applies to these.
    nodes : numpy.ndarray, optional
        Spectral coordinates of the graph on which it was trained, float32 ``[d_in, P]``, in 8 bits a number
        (:func:`vcinr.signals.graph.spectral_coordinates`); None for models of other coordinate systems.
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
    tile: tuple[int, ...] | None = None
    nodes: np.ndarray | None = None

    @cached_property
    def data(self) -> bytes:
        """The bytes of the model file."""
        tensors = {**{f"inr/{k}": v for k, v in self.params.items()}}
        tensors.update({f"quantiser/{k}": v for k, v in self.quantiser.items()})
        if self.nodes is not None:
            tensors[_NODES] = self.nodes
        header = {
            "spec": self.spec.to_dict(),
            "system": dict(self.system),
            "dims": list(self.dims),
            **({} if self.feature_dim is None else {"feature_dim": self.feature_dim}),
            **({} if self.tile is None else {"tile": list(self.tile)}),
            "normalisation": [[k, *v] for k, v in self.normalisation.items()],
            "encode_loop": self.encode_loop,
            "encode_steps": self.encode_steps,
            "encode_points": self.encode_points,
            "slack": self.slack,
            "provenance": dict(self.provenance),
        }
        return container.pack(header, tensors, _in_8_bits, version=1 if self.tile is None and self.nodes is None else 3)

    def index(self, variable: str) -> int:
        """The row of a variable in phi_0; raises ModelError as `scaling` does."""
        self.scaling(variable)
        return list(self.normalisation).index(variable)

    def start(self, variable: str) -> np.ndarray:
        """phi_0 of a variable ``[d]``, from which its inner loop starts; its latents are coded relative to it."""
        return self.params["phi_0"][self.index(variable)]

    @cached_property
    def domain(self) -> Points | None:
        """The nodes of the graph that its signals lie on; None where data say where their samples lie."""
        return None if self.nodes is None else Points(tuple(self.nodes))

    @property
    def features(self) -> int:
        """Number of features of a point."""
        return self.spec.d_out

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
    return from_bytes(container.read(path), str(path))


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
    return from_parts(*container.unpack(data, origin), data, origin)


def from_parts(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray], data: bytes, origin: str) -> Model:
    """The model of an unpacked container; raises ModelError, which names `origin`, where its parts do not fit."""
    try:
        groups: dict[str, dict[str, np.ndarray]] = {"inr": {}, "quantiser": {}}
        tensors = dict(tensors)
        nodes = tensors.pop(_NODES, None)
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
            None if header.get("tile") is None else tuple(header["tile"]),
            nodes,
        )
        _check(model)
        # The digest that names the model is of these very bytes; another zlib might deflate to different ones.
        model.__dict__["data"] = data
    except container.MALFORMED as error:
        raise container.malformed(origin, error) from None
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
    if model.tile is not None and (
        model.system["system"] != "box"
        or not len(model.tile) == len(model.dims) == len(model.system["bounds"])
        or any(type(n) is not int or not 0 < n < 1 << 31 for n in model.tile)
    ):
        raise ValueError(f"the tiles have the lengths {model.tile!r}")
    if not DELTA <= model.slack < 1:
        raise ValueError(f"slack is {model.slack}")
    coordinates.check(dict(model.system))
    if spec.d_in != coordinates.dimension(dict(model.system)):
        raise ValueError("the network does not fit its coordinate system")
    if (model.system["system"] == "spectral") != (model.nodes is not None):
        raise ValueError("the coordinates of a graph's nodes are missing, or have no use")
    if model.nodes is not None and (model.nodes.ndim != 2 or len(model.nodes) != spec.d_in or not model.nodes.size):
        raise ValueError("the nodes of the graph have another number of coordinates")
    if model.nodes is not None and not np.isfinite(model.nodes).all():
        raise ValueError("the coordinates of the graph's nodes are not finite")
    if any(not math.isfinite(offset) or not 0 < scale < math.inf for offset, scale in model.normalisation.values()):
        raise ValueError("the normalisation is not made of numbers")


def with_quantiser(model: Model, quantiser: Mapping[str, np.ndarray], provenance: Mapping[str, Any]) -> Model:
    """Complete a model with a quantiser's tensors, and add to its provenance."""
    return replace(model, quantiser=dict(quantiser), provenance={**model.provenance, **provenance})


def _in_8_bits(name: str, array: np.ndarray) -> bool:
    """Whether a tensor is stored in 8 bits a number: spectral coordinates, and weight matrices of the network.

    These are of more than 8 rows and columns.
    """
    return name == _NODES or (name.startswith("inr/siren.") and array.ndim == 2 and min(array.shape) > 8)
