"""The model of a kind of patches: geometry, experts and normalisation, in one file that is named by its SHA-256.

It is a container (:mod:`vcinr.container`) whose header says ``"kind": "patches"``. Predictions and bases are stored in
8 bits a number. Decoding is exact: the stored numbers are all that enters it, and the arithmetic is that of
:func:`vcinr.patches.kernels.patches`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from vcinr import container
from vcinr.container import Named
from vcinr.errors import CorruptError
from vcinr.patches import priming
from vcinr.patches.geometry import Geometry
from vcinr.patches.kernels import EXPERTS, Patching
from vcinr.patches.priming import Start

KIND = "patches"
MAX_MOTION = 64
"""Largest displacement of a patch."""
RATES = 192
"""Number of steps by which latents may be quantised, from coarse to fine, 16 in each octave."""
PER_HALVING = 8.0
"""Number of rates by which the squared error of quantisation halves."""
MAX_VALUES = 4096
"""Largest number of values of a patch, and of values around it."""


CODERS = ("codes", "experts", "lengths")
"""The coders of each set of experts, in order, as the tensors of their starts are called."""
LATER = ("one", "two")
"""What the tensors of experts are called that look at one and at two other planes."""
MAX_LEVELS = 16
"""Largest number of levels of planes that have a step of their own."""


class Experts(NamedTuple):
    """Experts that also look at other planes of a signal; shapes are those of `PatchModel`."""

    predict: np.ndarray
    basis: np.ndarray


@dataclass(frozen=True, eq=False)
class PatchModel(Named):
    """Experts for patches.

    Parameters
    ----------
    geometry : Geometry
        Size of the patches and of what is seen around them.
    dims : tuple of str
        Names of the one to three dimensions that are cut into patches.
    feature_dim : str or None
        Name of the dimension along which the F features of a point lie.
    normalisation : mapping of str to (float, float)
        (offset, scale) of each variable; predictions and bases work on (value - offset) / scale.
    middle : numpy.ndarray
        float32 ``[F]``: the mean of each feature.
    predict : numpy.ndarray
        float32 ``[K, C * F, Q]``: each expert's linear prediction of the Q = P F values of a patch from the values at C
        points around it, both less the mean of the latter.
    basis : numpy.ndarray
        float32 ``[K, Q, Q]``: each expert's functions, in the order of their energy.
    provenance : mapping
        Facts about the training that JSON can hold.
    later : tuple of Experts
        For a geometry with groups, the experts of planes that look at one and at two others; then `predict` and `basis`
        are those of the first plane. Else empty.
    starts : tuple of Start
        Where coders start, three for each set of experts in the order of `CODERS`. Where it is empty, so are they.
    """

    geometry: Geometry
    dims: tuple[str, ...]
    feature_dim: str | None
    normalisation: Mapping[str, tuple[float, float]]
    middle: np.ndarray
    predict: np.ndarray
    basis: np.ndarray
    provenance: Mapping[str, Any] = field(default_factory=dict)
    later: tuple[Experts, ...] = ()
    starts: tuple[Start, ...] = ()

    @property
    def features(self) -> int:
        """Number F of features of a point."""
        return len(self.middle)

    @cached_property
    def data(self) -> bytes:
        """The bytes of the model file."""
        g = self.geometry
        header = {
            "kind": KIND,
            "size": list(g.size), "back": list(g.back), "ahead": list(g.ahead),
            **({"motion": g.motion} if g.motion else {}),
            **({"group": g.group, "margin": g.margin, "finer": list(g.finer)} if g.group else {}),
            "dims": list(self.dims), "feature_dim": self.feature_dim,
            "normalisation": [[k, *v] for k, v in self.normalisation.items()],
            "provenance": dict(self.provenance),
        }  # fmt: skip
        tensors = {"middle": self.middle}
        for prefix, experts in zip(("", *(f"{name}/" for name in LATER)), self.all_experts, strict=False):
            for name, stack in experts._asdict().items():
                tensors |= {f"{prefix}{name}/{k}": matrix for k, matrix in enumerate(stack)}
        for prefix, start in zip(_starts(len(self.all_experts)), self.starts, strict=False):
            tensors |= {f"{prefix}{name}": part for name, part in start._asdict().items()}
        version = 4 if self.starts else 2  # earlier readers would take the starts for damage
        return container.pack(header, tensors, lambda name, _: "predict" in name or "basis" in name, version)

    @property
    def all_experts(self) -> tuple[Experts, ...]:
        """Those that look at no other plane, and with groups those that look at one and at two."""
        return Experts(self.predict, self.basis), *self.later

    @cached_property
    def reading(self) -> tuple[Patching, ...]:
        """What a decoder needs, of all experts."""
        g, middle = self.geometry, self.middle.astype(np.float64)
        motion = np.array([0 if g.group else g.motion], np.int64)
        return tuple(
            Patching(
                np.array(g.size, np.int64), g.offsets, g.near, middle,
                np.ascontiguousarray(experts.predict, np.float64), np.ascontiguousarray(experts.basis, np.float64),
                np.zeros((0, 0, 0)), motion,
            )
            for experts in self.all_experts
        )  # fmt: skip

    @cached_property
    def writing(self) -> tuple[Patching, ...]:
        """What an encoder needs. The stored bases are only nearly orthonormal, so that their inverse analyses."""
        return tuple(p._replace(analysis=np.ascontiguousarray(np.linalg.inv(p.basis))) for p in self.reading)


_START = "start/"  # tensors of this name


def _starts(sets: int) -> tuple[str, ...]:
    """What the names of the tensors of each coder's start begin with."""
    return tuple(f"{_START}{number}/{name}/" for number in range(sets) for name in CODERS)


def step_of(rate: int) -> float:
    """The step of a rate in the model's units, exact: 2^-(rate / 16), but linear within each octave."""
    if not 0 <= rate < RATES:
        raise CorruptError(f"rate {rate} is not one of {RATES}")
    octave, part = divmod(rate, 16)
    return math.ldexp((32 - part) / 32, -octave)


def bits_of(
    around: np.ndarray, target: np.ndarray, experts: Iterable[tuple[np.ndarray, np.ndarray]], step: float
) -> np.ndarray:
    """Estimate how many bits patches need under each expert.

    Parameters
    ----------
    around, target : numpy.ndarray
        From `vcinr.patches.geometry.windows`.
    experts : iterable
        (predict, basis) of K experts, as in `PatchModel`.
    step : float
        The step of the latents.

    Returns
    -------
    numpy.ndarray
        float32 ``[K, N]``: about log2(1 + |latent| / step) for each latent.
    """
    latents = ((target - around @ predict) @ basis.T for predict, basis in experts)
    return np.stack([0.5 * np.log2(1 + np.square(latent * np.float32(1 / (0.6 * step)))).sum(1) for latent in latents])


def fits(geometry: Geometry, features: int) -> bool:
    """Whether a patch has values, and neither it nor what is seen around it has more than `MAX_VALUES`."""
    if not 1 <= geometry.points * features <= MAX_VALUES:
        return False
    lengths = (n + b + a for n, b, a in zip(geometry.size, geometry.back, geometry.ahead, strict=True))
    # The whole box first: the known points in it are listed only where there are not too many.
    if math.prod(lengths) * features > 4 * MAX_VALUES:
        return False
    return geometry.seen(2 if geometry.group else 0) * features <= MAX_VALUES


def _geometry_of(header: Mapping[str, Any]) -> Geometry:
    """The geometry of a header; raises ValueError where it has none."""
    lengths = [tuple(header[name]) for name in ("size", "back", "ahead")]
    if any(len(n) != 3 or any(type(v) is not int or not 0 <= v < 1 << 12 for v in n) for n in lengths):
        raise ValueError("the geometry is no lengths of three axes")
    size, back, ahead = lengths
    motion, group, margin = (header.get(name, 0) for name in ("motion", "group", "margin"))
    if type(motion) is not int or not 0 <= motion <= MAX_MOTION or (motion and size[0] != 1):
        raise ValueError(f"the motion is {motion!r}")
    if any(type(n) is not int or not 0 <= n < 1 << 12 for n in (group, margin)):
        raise ValueError(f"the groups are {group!r} and their margin is {margin!r}")
    if group and (not motion or back[0] or ahead[0]):
        raise ValueError("groups have motion, and look around a patch in its own plane alone")
    finer = tuple(header["finer"]) if group else ()
    if group and (not 1 <= len(finer) <= MAX_LEVELS or any(type(n) is not int or abs(n) >= RATES for n in finer)):
        raise ValueError(f"the levels are finer by {finer!r}")
    return Geometry(size, back, ahead, motion, group, margin if group else 0, finer)


def from_parts(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray], data: bytes, origin: str) -> PatchModel:
    """The model of an unpacked container; raises ModelError, which names `origin`, where its parts do not fit."""
    try:
        geometry = _geometry_of(header)
        middle = tensors["middle"]
        if middle.ndim != 1 or not fits(geometry, middle.size):
            raise ValueError("the patches are empty or too large")
        q, prefixes = geometry.points * middle.size, ("", *(f"{name}/" for name in LATER))
        shapes: dict[str, tuple[int, ...]] = {"middle": middle.shape}
        counts = []
        for planes, prefix in enumerate(prefixes[: 3 if geometry.group else 1]):
            around = (geometry.seen(planes) if planes else len(geometry.offsets)) * middle.size
            counts.append(sum(name.startswith(f"{prefix}basis/") for name in tensors))
            for k in range(counts[-1]):
                shapes |= {f"{prefix}predict/{k}": (around, q), f"{prefix}basis/{k}": (q, q)}
        types: dict[str, np.dtype[Any]] = dict.fromkeys(shapes, np.dtype(np.float32))
        primed = any(name.startswith(_START) for name in tensors)
        places = _starts(len(counts)) if primed else ()
        for place in places:
            shapes |= {f"{place}{name}": shape for name, shape in priming.SHAPES.items()}
            types |= {f"{place}{name}": dtype for name, dtype in priming.TYPES.items()}
        if any(not 1 <= n <= EXPERTS for n in counts) or {k: v.shape for k, v in tensors.items()} != shapes:
            raise ValueError("the experts do not have the shapes of the geometry")
        if any(v.dtype != types[k] or not np.isfinite(v).all() for k, v in tensors.items()):
            raise ValueError("the experts are not made of numbers")
        dims, feature = tuple(header["dims"]), header["feature_dim"]
        if not 1 <= len(dims) <= 3 or not all(isinstance(d, str) for d in dims) or not isinstance(feature, str | None):
            raise ValueError(f"the dimensions are {dims!r} and {feature!r}")
        normalisation = {str(k): (float(offset), float(scale)) for k, offset, scale in header["normalisation"]}
        if any(not math.isfinite(offset) or not 0 < scale < math.inf for offset, scale in normalisation.values()):
            raise ValueError("the normalisation is not made of numbers")
        first, *later = (
            Experts(*(np.stack([tensors[f"{prefix}{name}/{k}"] for k in range(n)]) for name in Experts._fields))
            for prefix, n in zip(prefixes, counts, strict=False)
        )
        model = PatchModel(
            geometry, dims, feature, normalisation, middle, *first, dict(header["provenance"]), tuple(later),
            tuple(Start(*(tensors[f"{place}{name}"] for name in Start._fields)) for place in places),
        )  # fmt: skip
        model.__dict__["data"] = data  # the name is a digest of these very bytes
    except container.MALFORMED as error:
        raise container.malformed(origin, error) from None
    return model
