"""Inner loops: each finds the latent modulation phi of signals, many signals at once (inner part of Algorithm 1).

A new inner loop needs one line here, in `_BUILTIN`. A package of its own adds one by an entry point of the group
``vcinr.inner_loops`` (:mod:`vcinr.plugins`).
"""

from __future__ import annotations

import torch

from vcinr import plugins
from vcinr.inr.spec import InrSpec, Params
from vcinr.meta.inner.base import Batch, InnerLoop, batch_of, drawn, signal_loss
from vcinr.meta.inner.closed import ClosedForm, Projected, solve
from vcinr.meta.inner.gradient import Adam, FirstOrder, Maml, MetaSgd, Refine

_BUILTIN: dict[str, InnerLoop] = {
    "maml": Maml(),
    "meta-sgd": MetaSgd(),
    "first-order": FirstOrder(),
    "closed-form": ClosedForm(),
    "projected": Projected(),
    "refine": Refine(),
    "adam": Adam(),
}


def inner_loop(name: str) -> InnerLoop:
    """The inner loop of that name; raises ConfigError, which lists the known names."""
    return plugins.lookup("inner_loops", _BUILTIN, name)


def adapt(
    spec: InrSpec, params: Params, batch: Batch, steps: int, *, loop: str, create_graph: bool
) -> torch.Tensor:  # fmt: skip
    """Find the latents phi ``[B, d]`` of every signal with the inner loop called `loop`.

    The other arguments are those of `InnerLoop.__call__`.
    """
    return inner_loop(loop)(spec, params, batch, steps, create_graph=create_graph)


__all__ = ["Batch", "InnerLoop", "adapt", "batch_of", "drawn", "inner_loop", "signal_loss", "solve"]
