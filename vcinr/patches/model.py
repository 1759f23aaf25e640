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
from typing import Any

import numpy as np

from vcinr import container
from vcinr.container import Named
from vcinr.errors import CorruptError
from vcinr.patches.geometry import Geometry
from vcinr.patches.kernels import EXPERTS, Patching

KIND = "patches"
MAX_MOTION = 64
"""Largest displacement of a patch."""
RATES = 192
"""Number of steps by which latents may be quantised, from coarse to fine, 16 in each octave."""
PER_HALVING = 8.0
"""Number of rates by which the squared error of quantisation halves."""
MAX_VALUES = 4096
"""Largest number of values of a patch, and of values around it."""


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
    """

    geometry: Geometry
    dims: tuple[str, ...]
    feature_dim: str | None
    normalisation: Mapping[str, tuple[float, float]]
    middle: np.ndarray
    predict: np.ndarray
    basis: np.ndarray
    provenance: Mapping[str, Any] = field(default_factory=dict)

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
            "dims": list(self.dims), "feature_dim": self.feature_dim,
            "normalisation": [[k, *v] for k, v in self.normalisation.items()],
            "provenance": dict(self.provenance),
        }  # fmt: skip
        tensors = {"middle": self.middle}
        for name, stack in (("predict", self.predict), ("basis", self.basis)):
            tensors |= {f"{name}/{k}": matrix for k, matrix in enumerate(stack)}
        return container.pack(header, tensors, lambda name, _: name != "middle", version=2)

    @cached_property
    def reading(self) -> Patching:
        """What a decoder needs."""
        g = self.geometry
        return Patching(
            np.array(g.size, np.int64), g.offsets, g.near, self.middle.astype(np.float64),
            np.ascontiguousarray(self.predict, np.float64), np.ascontiguousarray(self.basis, np.float64),
            np.zeros((0, 0, 0)), np.array([g.motion], np.int64),
        )  # fmt: skip

    @cached_property
    def writing(self) -> Patching:
        """What an encoder needs. The stored bases are only nearly orthonormal, so that their inverse analyses."""
        return self.reading._replace(analysis=np.ascontiguousarray(np.linalg.inv(self.reading.basis)))


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
    return math.prod(lengths) * features <= 4 * MAX_VALUES and len(geometry.offsets) * features <= MAX_VALUES


def from_parts(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray], data: bytes, origin: str) -> PatchModel:
    """The model of an unpacked container; raises ModelError, which names `origin`, where its parts do not fit."""
    try:
        lengths = [tuple(header[name]) for name in ("size", "back", "ahead")]
        if any(len(n) != 3 or any(type(v) is not int or not 0 <= v < 1 << 12 for v in n) for n in lengths):
            raise ValueError("the geometry is no lengths of three axes")
        motion = header.get("motion", 0)
        if type(motion) is not int or not 0 <= motion <= MAX_MOTION or (motion and lengths[0][0] != 1):
            raise ValueError(f"the motion is {motion!r}")
        size, back, ahead = lengths
        geometry = Geometry(size, back, ahead, motion)
        middle = tensors["middle"]
        if middle.ndim != 1 or not fits(geometry, middle.size):
            raise ValueError("the patches are empty or too large")
        experts = sum(name.startswith("basis/") for name in tensors)
        q, around = geometry.points * middle.size, len(geometry.offsets) * middle.size
        shapes = {"middle": middle.shape}
        for k in range(experts):
            shapes |= {f"predict/{k}": (around, q), f"basis/{k}": (q, q)}
        if not 1 <= experts <= EXPERTS or {k: v.shape for k, v in tensors.items()} != shapes:
            raise ValueError("the experts do not have the shapes of the geometry")
        if any(v.dtype != np.float32 or not np.isfinite(v).all() for v in tensors.values()):
            raise ValueError("the experts are not made of numbers")
        dims, feature = tuple(header["dims"]), header["feature_dim"]
        if not 1 <= len(dims) <= 3 or not all(isinstance(d, str) for d in dims) or not isinstance(feature, str | None):
            raise ValueError(f"the dimensions are {dims!r} and {feature!r}")
        normalisation = {str(k): (float(offset), float(scale)) for k, offset, scale in header["normalisation"]}
        if any(not math.isfinite(offset) or not 0 < scale < math.inf for offset, scale in normalisation.values()):
            raise ValueError("the normalisation is not made of numbers")
        model = PatchModel(
            geometry, dims, feature, normalisation, middle,
            np.stack([tensors[f"predict/{k}"] for k in range(experts)]),
            np.stack([tensors[f"basis/{k}"] for k in range(experts)]),
            dict(header["provenance"]),
        )  # fmt: skip
        model.__dict__["data"] = data  # the name is a digest of these very bytes
    except container.MALFORMED as error:
        raise container.malformed(origin, error) from None
    return model
