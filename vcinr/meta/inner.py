"""Inner loops: find the latent modulation phi of one signal (Algorithm 1, inner part), many signals at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vcinr.inr.conditioning import conditioning
from vcinr.inr.ridge import ridge
from vcinr.inr.siren import basis, forward
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


def batch_of(data: Signals, split: str, x: torch.Tensor, index: Any, points: np.ndarray | None = None) -> Batch:
    """Signals `index` of a split, at the coordinates `points` (default: all of x)."""
    y, weight = data.normalised(split, index)
    variable = torch.from_numpy(data.variable_index(split)[index])
    where = slice(None) if points is None else points
    w = None if weight is None else torch.from_numpy(weight[:, where])
    return Batch(x[where], torch.from_numpy(y[:, where]), w, variable)


def signal_loss(spec: InrSpec, params: Params, phi: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean squared error of each signal at its phi ``[B, d]``, ``[B]``."""
    error = (forward(spec, params, phi, batch.x) - batch.y).square().mean(-1)
    return (error if batch.weight is None else error * batch.weight).mean(-1)


def adapt(spec: InrSpec, params: Params, batch: Batch, steps: int, *, create_graph: bool) -> torch.Tensor:
    """Gradient inner loop with Meta-SGD step sizes: phi <- phi - alpha * dL/dphi, from phi_0; returns ``[B, d]``.

    ``params`` holds ``phi_0`` ``[variables, d]`` and ``alpha`` ``[d]``. With ``create_graph`` the steps stay
    differentiable (second-order MAML). The gradient of the *sum* of the signals' mean losses keeps every
    signal's step independent of the batch size.
    """
    if steps and conditioning(spec.conditioning).linear:
        phi = solve(spec, params, batch)
        return phi if create_graph else phi.detach()
    phi = params["phi_0"][batch.variable]
    if not create_graph:
        phi = phi.detach().requires_grad_(True)
    for _ in range(steps):
        loss = signal_loss(spec, params, phi, batch).sum()
        (gradient,) = torch.autograd.grad(loss, phi, create_graph=create_graph)
        phi = phi - params["alpha"] * gradient
        if not create_graph:
            phi = phi.detach().requires_grad_(True)
    return phi if create_graph else phi.detach()


def solve(spec: InrSpec, params: Params, batch: Batch) -> torch.Tensor:
    """Closed-form inner loop of a linear head, ``[B, d]``; see `vcinr.inr.ridge`."""
    if batch.x.ndim != 2:
        raise ValueError("the closed form takes signals on one set of points")
    base, psi = basis(spec, params, batch.x)
    weight = None if batch.weight is None else batch.weight.repeat_interleave(spec.d_out, dim=1)
    y = batch.y.reshape(len(batch.y), -1)
    return ridge(base.reshape(-1), psi.reshape(-1, spec.latent), y, weight, params["phi_0"][batch.variable])
