"""The variational quantiser with a factorised entropy model: a learned density for every latent dimension and rate.

The densities are the non-parametric ones of Ballé et al. 2018 (appendix 6.1). The logits of the cumulative c(x) are a
small monotone network, and p(z) = c(z + 1/2) - c(z - 1/2). After training the densities are frozen to integer tables,
so a decoder never evaluates the network.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from vcinr import config
from vcinr.coding.tables import levels_of, quantise_frequencies
from vcinr.progress import Watch
from vcinr.quantise.state import Quantiser
from vcinr.quantise.variational import History, Task, learn, supports

FILTERS = (1, 3, 3, 1)
"""Widths of the layers of a density's network."""


def train(task: Task, cfg: config.Quantiser, *, seed: int, watch: Watch) -> tuple[Quantiser, History]:
    """Train the quantiser: Algorithm 2 of Schwarz et al. 2023.

    Parameters
    ----------
    task : Task
        Network, signals and latents.
    cfg : config.Quantiser
        How it is trained. Each of ``cfg.lambdas`` gets a vector of gains and a set of tables.
    seed : int
        Seed of initialisation, noise and draws.
    watch : callable
        Is told of progress.

    Returns
    -------
    quantiser : Quantiser
        The trained quantiser.
    history : History
        Its learning curve.
    """
    rates, d = len(cfg.lambdas), task.model.spec.latent
    learned = learn(task, cfg, lambda _, generator: FactorisedPrior(rates, d, 4.0, generator), seed=seed, watch=watch)
    offset, frequency = learned.prior.tables(*supports(learned, cfg.depth, task.reached))
    return Quantiser(learned.params, cfg.depth, learned.gain, offset, levels_of(frequency)), learned.history


class FactorisedPrior(nn.Module):
    """Learned densities of ``rates * d`` independent variables.

    Parameters
    ----------
    rates, d : int
        Number of rates and of latent dimensions.
    scale : float
        Initial width of the densities.
    generator : torch.Generator
        Source of the initial biases.

    Notes
    -----
    Ballé et al. 2018, appendix 6.1.
    """

    def __init__(self, rates: int, d: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        layers = len(FILTERS) - 1
        for k in range(layers):
            fan_in, fan_out = FILTERS[k], FILTERS[k + 1]
            initial = np.log(np.expm1(1.0 / (scale ** (1.0 / layers)) / fan_out))
            self.matrices.append(nn.Parameter(torch.full((rates, d, fan_out, fan_in), float(initial))))
            self.biases.append(nn.Parameter(torch.rand((rates, d, fan_out, 1), generator=generator) - 0.5))
            if k < layers - 1:
                self.factors.append(nn.Parameter(torch.zeros((rates, d, fan_out, 1))))

    def logits(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        """Logits of the cumulative at x ``[n, d]``, of the same shape."""
        h = x.T[:, None, :]  # [d, 1, n]
        for k, matrix in enumerate(self.matrices):
            h = torch.nn.functional.softplus(matrix[rate]) @ h + self.biases[k][rate]
            if k < len(self.factors):
                h = h + torch.tanh(self.factors[k][rate]) * torch.tanh(h)
        return h[:, 0, :].T

    def bits(self, z: torch.Tensor, rate: int) -> torch.Tensor:
        """-log2 p(z) of each number of z ``[n, d]``; in training z is noisy instead of rounded."""
        lower, upper = self.logits(z - 0.5, rate), self.logits(z + 0.5, rate)
        # Evaluate both sigmoids on the side where they are small, so that their difference does not cancel.
        sign = -torch.sign(lower + upper).detach()
        p = torch.abs(torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower))
        return -torch.log2(p.clamp_min(1e-9))

    def forward(self, y: torch.Tensor, rate: int, relax: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Bits of each signal ``[n]`` for relaxed codes y ``[n, d]``; `relax` is not needed here."""
        return self.bits(y, rate).sum(-1)

    @torch.no_grad()
    def tables(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Freeze the densities to integer tables.

        Parameters
        ----------
        low, high : numpy.ndarray
            ``[K, d]``: first and last symbol of each table.

        Returns
        -------
        offset : numpy.ndarray
            int32 ``[K, d]``: the first symbols.
        frequency : numpy.ndarray
            int32 ``[K, d, S]``: the escape, then the symbols, then zeros; see `Quantiser`.
        """
        rates, d = low.shape
        width = int((high - low).max() + 1)
        frequency = np.zeros((rates, d, width + 1), np.int32)
        for k in range(rates):
            grid = torch.arange(width)[:, None] + torch.from_numpy(low[k].astype(np.int64))[None, :]
            p = torch.exp2(-self.bits(grid.float(), k)).double().numpy()
            for i in range(d):
                n = int(high[k, i] - low[k, i] + 1)
                weights = np.rint(p[:n, i] * 2**24).astype(np.int64)  # probabilities as integers of 24 bits
                escape = max(1, 2**24 - int(weights.sum()))
                frequency[k, i, : n + 1] = quantise_frequencies(np.concatenate([[escape], weights]))
        return low.astype(np.int32), frequency
