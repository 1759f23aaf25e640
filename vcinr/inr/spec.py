"""The shape of an implicit neural representation, and the array types that its code works on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor
Params = Mapping[str, Array]


@dataclass(frozen=True)
class InrSpec:
    """Everything that determines the shape of the network.

    Parameters
    ----------
    d_in, d_out : int
        Number of inputs, and of features.
    width, depth : int
        Width of the hidden layers, and number of all layers.
    omega_0 : float
        Factor in the sine activations (Sitzmann et al. 2020).
    latent : int
        Length d of the latent phi.
    conditioning : str
        Name of the conditioning (:mod:`vcinr.inr.conditioning`).
    rank : int
        Rank of the gates.
    mapping_width, mapping_blocks : int
        Width and number of residual blocks of the network that maps phi to modulations. A width of 0 makes it a single
        linear map.
    gating : int
        How many numbers of phi belong to the gates of a gated basis.
    kept : int
        How many modulations a sparse conditioning keeps after training; 0 once they have been chosen.
    """

    d_in: int
    d_out: int
    width: int
    depth: int
    omega_0: float
    latent: int
    conditioning: str
    rank: int
    mapping_width: int
    mapping_blocks: int
    gating: int = 0
    kept: int = 0

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able mapping; ``InrSpec(**mapping)`` is its inverse."""
        return asdict(self)


def namespace(x: Array) -> Any:
    """The library of an array: numpy or torch. A decoder has no torch, so torch is not imported here."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]
