"""The shape of an INR and the array types its maths is written for."""

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
    """Everything that fixes the network's shape.

    latent: numbers of phi. rank, mapping_width, mapping_blocks: of gates, and of the network that maps phi to
    modulations; a mapping_width of 0 makes it one linear map. gating: numbers of phi that gate, of a gated basis.
    kept: how many modulations sparse ones are to be left with after training, 0 for all that there are.
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
    """numpy for arrays, torch for tensors; torch is never imported from here."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]
