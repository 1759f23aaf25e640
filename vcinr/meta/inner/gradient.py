"""Inner loops that take gradient steps: MAML, Meta-SGD, first-order; and, for encoding, refinement and Adam."""

from __future__ import annotations

import torch

from vcinr.inr.spec import InrSpec, Params
from vcinr.meta.inner.base import Batch, InnerLoop, signal_loss


class Maml(InnerLoop):
    """phi <- phi - alpha dL/dphi with fixed step sizes; the outer gradient is of second order (Finn et al. 2017)."""

    second_order = True

    def __call__(self, spec: InrSpec, params: Params, batch: Batch, steps: int, *, create_graph: bool) -> torch.Tensor:
        """Each step descends the gradient of the *sum* of the signals' mean losses.

        With a sum, the step of a signal does not depend on how many others are in the batch.
        """
        phi = params["phi_0"][batch.variable]
        if not create_graph:
            phi = phi.detach().requires_grad_(True)
        elif not phi.requires_grad:
            phi = phi.requires_grad_(True)
        for _ in range(steps):
            loss = signal_loss(spec, params, phi, batch).sum()
            (gradient,) = torch.autograd.grad(loss, phi, create_graph=create_graph and self.second_order)
            phi = phi - params["alpha"] * gradient
            if not create_graph:
                phi = phi.detach().requires_grad_(True)
        return phi if create_graph else phi.detach()


class MetaSgd(Maml):
    """MAML with learned step sizes, one for each number of phi (Li et al. 2017)."""

    learns_rates = True


class FirstOrder(MetaSgd):
    """Meta-SGD whose outer gradient treats the inner gradients as constants (Finn et al. 2017, section 5.2)."""

    second_order = False


class Refine(InnerLoop):
    """Gradient steps for encoding that never make a signal worse.

    A step that goes too far is undone, and the next one is half as long. To the outer loop the result is a constant.
    """

    differentiable = False

    def __call__(self, spec: InrSpec, params: Params, batch: Batch, steps: int, *, create_graph: bool) -> torch.Tensor:
        """The best phi of each signal among all steps."""
        best = params["phi_0"][batch.variable].detach()
        size = torch.ones_like(best[:, :1])
        phi, least, direction = best, torch.full_like(best[:, 0], torch.inf), torch.zeros_like(best)
        for step in range(steps + 1):
            phi = phi.detach().requires_grad_(True)
            loss = signal_loss(spec, params, phi, batch)
            (gradient,) = torch.autograd.grad(loss.sum(), phi)
            with torch.no_grad():
                better = loss < least
                best, least = torch.where(better[:, None], phi, best), torch.where(better, loss, least)
                direction = torch.where(better[:, None], params["alpha"] * gradient, direction)
                if step:
                    size = torch.where(better[:, None], 1.2 * size, 0.5 * size)
                phi = best - size * direction
        return best.detach()


class Adam(InnerLoop):
    """Adam (Kingma & Ba 2015) with the rates alpha, which decay to zero; it fits a whole network to a signal.

    To the outer loop the result is a constant.
    """

    differentiable = False

    def __call__(self, spec: InrSpec, params: Params, batch: Batch, steps: int, *, create_graph: bool) -> torch.Tensor:
        """Every number of phi has moments of its own, so that signals do not influence each other."""
        phi = params["phi_0"][batch.variable].detach()
        first, second = torch.zeros_like(phi), torch.zeros_like(phi)
        for step in range(steps):
            phi = phi.requires_grad_(True)
            (gradient,) = torch.autograd.grad(signal_loss(spec, params, phi, batch).sum(), phi)
            with torch.no_grad():
                first = 0.9 * first + 0.1 * gradient
                second = 0.999 * second + 0.001 * gradient.square()
                moved = first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
                phi = phi - (1 - step / steps) * params["alpha"] * moved
        return phi.detach()
