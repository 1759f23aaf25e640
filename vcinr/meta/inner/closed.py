"""Inner loops with a closed form: for a linear head alone, and for one behind gates."""

from __future__ import annotations

import torch

from vcinr.errors import ConfigError
from vcinr.inr.conditioning import conditioning
from vcinr.inr.ridge import ridge
from vcinr.inr.siren import basis
from vcinr.inr.spec import InrSpec, Params
from vcinr.meta.inner.base import Batch, InnerLoop


class ClosedForm(InnerLoop):
    """The ridge regression of a linear head, which is exact and differentiable; see `vcinr.inr.ridge`."""

    def __call__(self, spec: InrSpec, params: Params, batch: Batch, steps: int, *, create_graph: bool) -> torch.Tensor:
        """Solve once, however large `steps` is; phi_0 where `steps` is 0."""
        if not conditioning(spec.conditioning).linear:
            raise ConfigError(
                f"meta.inner: closed-form is for the conditioning linear, not {spec.conditioning}; use meta-sgd, "
                "or one of the methods"
            )
        phi = solve(spec, params, batch) if steps else params["phi_0"][batch.variable]
        return phi if create_graph else phi.detach()

    def outer_loss(self, spec: InrSpec, params: Params, batch: Batch, steps: int) -> torch.Tensor:
        """The same loss from the basis of the solve, so that the network is evaluated once instead of twice."""
        if not steps or not conditioning(spec.conditioning).linear:
            return super().outer_loss(spec, params, batch, steps)
        phi, base, psi = _fitted(spec, params, batch)
        error = (base + phi @ psi.T - batch.y.reshape(len(phi), -1)).square()
        weight = _spread(spec, batch)
        return (error if weight is None else error * weight).mean()


def solve(spec: InrSpec, params: Params, batch: Batch) -> torch.Tensor:
    """Latents phi ``[B, d]`` of a linear head, by ridge regression."""
    return _fitted(spec, params, batch)[0]


def _fitted(spec: InrSpec, params: Params, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """phi ``[B, d]`` of a linear head, and the basis it was fitted in: base ``[Q]`` and psi ``[Q, d]``.

    Q counts every feature of every point.
    """
    if batch.x.ndim != 2:
        raise ValueError("the closed form needs signals that share one set of points")
    base, psi = basis(spec, params, batch.x)
    base, psi = base.reshape(-1), psi.reshape(-1, spec.latent)
    y = batch.y.reshape(len(batch.y), -1)
    return ridge(base, psi, y, _spread(spec, batch), params["phi_0"][batch.variable]), base, psi


class Projected(InnerLoop):
    """Gradient steps on the latents that gate, with the head solved for at each step.

    Notes
    -----
    Variable projection, Golub & Pereyra 1973.
    """

    learns_rates = True

    def __call__(self, spec: InrSpec, params: Params, batch: Batch, steps: int, *, create_graph: bool) -> torch.Tensor:
        """Differentiate through the solves, to second order; phi_0 where `steps` is 0."""
        if not 0 < spec.gating < spec.latent:
            raise ConfigError(
                f"meta.inner: projected is for the conditioning gated-basis, not {spec.conditioning}; use meta-sgd, "
                "or one of the methods"
            )
        phi = params["phi_0"][batch.variable]
        if not steps:
            return phi if create_graph else phi.detach()
        gating = phi[:, : spec.gating]
        for _ in range(steps):
            if not create_graph:
                gating = gating.detach()
            if not gating.requires_grad:
                gating = gating.requires_grad_(True)
            loss = _solved(spec, params, batch, torch.cat([gating, phi[:, spec.gating :]], 1))[1].sum()
            (gradient,) = torch.autograd.grad(loss, gating, create_graph=create_graph)
            gating = gating - params["alpha"][: spec.gating] * gradient
        phi = torch.cat([gating, phi[:, spec.gating :]], 1)
        adapted = torch.cat([gating, _solved(spec, params, batch, phi)[0]], 1)
        return adapted if create_graph else adapted.detach()


def _solved(spec: InrSpec, params: Params, batch: Batch, phi: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The best latents of the head ``[B, c]``, given those that gate, and each signal's loss with them ``[B]``."""
    psi_0, psi = basis(spec, params, batch.x, conditioning(spec.conditioning).modulate(spec, params, phi))
    count, weight = len(phi), _spread(spec, batch)
    y, base = batch.y.reshape(count, -1), psi_0.reshape(count, -1)
    psi, start = psi.reshape(count, base.shape[1], -1), phi[:, spec.gating :]
    heads = [
        ridge(base[i], psi[i], y[i : i + 1], None if weight is None else weight[i : i + 1], start[i : i + 1])
        for i in range(count)
    ]
    head = torch.cat(heads)
    error = (base + (psi @ head[..., None])[..., 0] - y).square()
    return head, (error if weight is None else error * weight).mean(-1)


def _spread(spec: InrSpec, batch: Batch) -> torch.Tensor | None:
    """The weights of points, repeated for every feature of a point; None without weights."""
    return None if batch.weight is None else batch.weight.repeat_interleave(spec.d_out, dim=1)
