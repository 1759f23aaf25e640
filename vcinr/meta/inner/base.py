"""What every inner loop works on: a batch of signals, and their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from vcinr.inr.siren import forward
from vcinr.inr.spec import InrSpec, Params
from vcinr.signals import Signals


@dataclass(frozen=True)
class Batch:
    """Signals as the loops see them.

    x ``[P, d_in]`` shared coordinates; y ``[B, P, d_out]`` normalised features; weight ``[B, P]``, 0 at masked
    points (whose y must be finite) and averaging to 1 over each signal, or None; variable ``[B]`` int64, the
    row of phi_0 each signal starts from.
    """

    x: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor | None
    variable: torch.Tensor


class InnerLoop:
    """Finds phi of every signal, from phi_0; stateless.

    ``params`` holds ``phi_0`` ``[variables, d]`` and the step sizes ``alpha`` ``[d]``.
    """

    learns_rates = False
    """Whether the outer loop learns the step sizes."""
    differentiable = True
    """Whether what is found can be a function of the parameters to the outer loop."""

    def __call__(self, spec: InrSpec, params: Params, batch: Batch, steps: int, *, create_graph: bool) -> torch.Tensor:
        """phi ``[B, d]`` after `steps`; with `create_graph` differentiable in `params`, as far as the loop allows.

        Raises ConfigError where the loop does not fit the conditioning.
        """
        raise NotImplementedError

    def outer_loss(self, spec: InrSpec, params: Params, batch: Batch, steps: int) -> torch.Tensor:
        """Mean over the batch of each signal's loss at the phi that is found, differentiable in `params`."""
        return signal_loss(spec, params, self(spec, params, batch, steps, create_graph=True), batch).mean()


def batch_of(data: Signals, split: str, x: torch.Tensor, index: Any, points: np.ndarray | None = None) -> Batch:
    """Signals of a split as a batch, on the device that `x` is on.

    Parameters
    ----------
    data : Signals
        Where they come from.
    split : str
        Name of the split.
    x : torch.Tensor
        Inputs of every point of the grid, ``[P, d_in]``.
    index : slice or array of int
        Which signals.
    points : numpy.ndarray, optional
        At which of the split's known points; default: at all points of the grid.

    Returns
    -------
    Batch
        Without weights where none are needed: where nothing is masked, or where at `points` nothing is.
    """
    y, weight = data.normalised(split, index) if points is None else data.sampled(split, index, points)
    variable = torch.from_numpy(data.variable_index(split)[index]).to(x.device)
    w = None if weight is None else torch.from_numpy(weight).to(x.device)
    return Batch(x if points is None else x[points], torch.from_numpy(y).to(x.device), w, variable)


def drawn(rng: np.random.Generator, known: np.ndarray, count: int | Literal["all"]) -> np.ndarray:
    """Sorted part of the `known` points, `count` of them, drawn without replacement."""
    size = len(known) if count == "all" else min(count, len(known))
    return known[np.sort(rng.choice(len(known), size, replace=False))]


def signal_loss(spec: InrSpec, params: Params, phi: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean squared error of each signal at its phi ``[B, d]``, ``[B]``."""
    error = (forward(spec, params, phi, batch.x) - batch.y).square().mean(-1)
    return (error if batch.weight is None else error * batch.weight).mean(-1)
