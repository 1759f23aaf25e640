"""Inner loops: find the latent modulation phi of one signal (Algorithm 1, inner part), many signals at once."""

from __future__ import annotations

import torch

from vcinr.inr.siren import forward
from vcinr.inr.spec import InrSpec, Params


def signal_loss(
    spec: InrSpec,
    params: Params,
    phi: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
) -> torch.Tensor:
    """Mean squared error of each signal, ``[B]``.

    phi ``[B, d]``, x ``[P, d_in]`` or ``[B, P, d_in]``, y ``[B, P, d_out]``; weight ``[B, P]`` is 0 at masked
    points (whose y must be finite) and averages to 1 over each signal, or None.
    """
    error = (forward(spec, params, phi, x) - y).square().mean(-1)
    return (error if weight is None else error * weight).mean(-1)


def adapt(
    spec: InrSpec,
    params: Params,
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    steps: int,
    *,
    create_graph: bool,
) -> torch.Tensor:
    """Gradient inner loop with Meta-SGD step sizes: phi <- phi - alpha * dL/dphi, from phi_0; returns ``[B, d]``.

    ``params`` holds ``phi_0`` ``[d]`` and ``alpha`` ``[d]``. With ``create_graph`` the steps stay
    differentiable (second-order MAML). The gradient of the *sum* of the signals' mean losses keeps every
    signal's step independent of the batch size.
    """
    phi = params["phi_0"].expand(y.shape[0], -1)
    if not create_graph:
        phi = phi.detach().requires_grad_(True)
    for _ in range(steps):
        loss = signal_loss(spec, params, phi, x, y, weight).sum()
        (gradient,) = torch.autograd.grad(loss, phi, create_graph=create_graph)
        phi = phi - params["alpha"] * gradient
        if not create_graph:
            phi = phi.detach().requires_grad_(True)
    return phi if create_graph else phi.detach()
