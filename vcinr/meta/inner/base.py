"""What all inner loops share: batches of signals, and the loss of a signal."""

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
    """Signals as inner loops see them.

    Attributes
    ----------
    x : torch.Tensor
        ``[P, d_in]``: inputs of the points, which all signals share.
    y : torch.Tensor
        ``[B, P, d_out]``: normalised features.
    weight : torch.Tensor or None
        ``[B, P]``: 0 at masked points (whose y must be finite), with the mean 1 over each signal; None for 1
        everywhere.
    variable : torch.Tensor
        int64 ``[B]``: the row of phi_0 from which each signal starts.
    """

    x: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor | None
    variable: torch.Tensor


class InnerLoop:
    """Base class of inner loops; it has no state.

    The parameters that it works with contain ``phi_0`` ``[variables, d]``, the latents to start from, and ``alpha``
    ``[d]``, the step sizes.
    """

    learns_rates = False
    """Whether the outer loop learns the step sizes ``alpha``."""
    differentiable = True
    """Whether the outer loop can differentiate the latents found with respect to the parameters."""

    def __call__(self, spec: InrSpec, params: Params, batch: Batch, steps: int, *, create_graph: bool) -> torch.Tensor:
        """Find the latents of every signal.

        Parameters
        ----------
        spec, params
            Shape and parameters of the network.
        batch : Batch
            The signals.
        steps : int
            Number of steps.
        create_graph : bool
            Whether phi is to be differentiable in `params`, as far as the loop allows that.

        Returns
        -------
        torch.Tensor
            phi ``[B, d]``.

        Raises
        ------
        ConfigError
            Where the loop does not fit the conditioning.
        """
        raise NotImplementedError

    def outer_loss(self, spec: InrSpec, params: Params, batch: Batch, steps: int) -> torch.Tensor:
        """Mean over the batch of each signal's loss after the inner loop, differentiable in `params`."""
        return signal_loss(spec, params, self(spec, params, batch, steps, create_graph=True), batch).mean()


def batch_of(data: Signals, split: str, x: torch.Tensor, index: Any, points: np.ndarray | None = None) -> Batch:
    """Make a batch of signals of a split, on the device of `x`.

    Parameters
    ----------
    data : Signals
        Where the signals come from.
    split : str
        Name of the split.
    x : torch.Tensor
        Inputs of every point of the grid, ``[P, d_in]``.
    index : slice or array of int
        Which signals.
    points : numpy.ndarray, optional
        Which points, of those with a known value in the split. Default: all points of the grid.

    Returns
    -------
    Batch
        It has weights only where some value is masked.
    """
    y, weight = data.normalised(split, index) if points is None else data.sampled(split, index, points)
    variable = torch.from_numpy(data.variable_index(split)[index]).to(x.device)
    w = None if weight is None else torch.from_numpy(weight).to(x.device)
    return Batch(x if points is None else x[points], torch.from_numpy(y).to(x.device), w, variable)


def drawn(rng: np.random.Generator, known: np.ndarray, count: int | Literal["all"]) -> np.ndarray:
    """Draw `count` of the `known` points at random, without replacement; returns them in their order."""
    size = len(known) if count == "all" else min(count, len(known))
    return known[np.sort(rng.choice(len(known), size, replace=False))]


def signal_loss(spec: InrSpec, params: Params, phi: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean squared error of each signal ``[B]`` for latents phi ``[B, d]``."""
    error = (forward(spec, params, phi, batch.x) - batch.y).square().mean(-1)
    return (error if batch.weight is None else error * batch.weight).mean(-1)
