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
    """Everything that fixes the network's shape."""

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

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able mapping; ``InrSpec(**mapping)`` is its inverse."""
        return asdict(self)


def namespace(x: Array) -> Any:
    """numpy for arrays, torch for tensors; torch is never imported from here."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]
