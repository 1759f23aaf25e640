"""Conditionings: the ways in which a latent phi can enter the shared network, each in a file of its own.

A new one is registered in `_BUILTIN`. Another package can add one by an entry point of the group
``vcinr.conditionings`` (:mod:`vcinr.plugins`); whoever decodes with its models then needs that package too.
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
    """Look up a conditioning by name; raises ConfigError, which lists the known names, for any other."""
    return plugins.lookup("conditionings", _BUILTIN, name)


__all__ = ["Conditioning", "conditioning"]
