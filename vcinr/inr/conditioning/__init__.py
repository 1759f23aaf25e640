"""Conditionings: how a latent modulation phi enters the shared network, a file each.

`_BUILTIN` is the one line that a new one needs here; a package of its own adds one by an entry point of the group
``vcinr.conditionings`` (:mod:`vcinr.plugins`), which a decoder of its models then needs too.
"""

from __future__ import annotations

from vcinr import plugins
from vcinr.inr.conditioning.base import Conditioning
from vcinr.inr.conditioning.gated_basis import GatedBasis
from vcinr.inr.conditioning.gates import LowRankGates
from vcinr.inr.conditioning.linear import LinearHead
from vcinr.inr.conditioning.shifts import Shifts
from vcinr.inr.conditioning.sparse import SparseShifts
from vcinr.inr.conditioning.weights import AllWeights

_BUILTIN: dict[str, Conditioning] = {
    "gates": LowRankGates(),
    "linear": LinearHead(),
    "gated-basis": GatedBasis(),
    "shifts": Shifts(),
    "sparse": SparseShifts(),
    "weights": AllWeights(),
}


def conditioning(name: str) -> Conditioning:
    """The conditioning of that name; raises ConfigError naming the known ones."""
    return plugins.lookup("conditionings", _BUILTIN, name)


__all__ = ["Conditioning", "conditioning"]
