"""The variational quantiser with a hyperprior (Ballé, Minnen, Singh, Hwang & Johnston 2018).

Each signal says the scales of its codes by a few numbers of side information, w = h_a(|y|), which are noisy in training
as y is. The logarithms of the standard deviations of all codes are a_k + B w at rate k. h_a is needed only in training:
what is frozen are integers (:class:`vcinr.coding.hyperprior.Hyperprior`), for which an encoder finds w by counting
bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from vcinr import config
from vcinr.coding.hyperprior import PER_OCTAVE, SCALES, SHIFT, SMALLEST, Hyperprior, scale_levels
from vcinr.coding.tables import levels_of, quantise_frequencies
from vcinr.progress import Watch
from vcinr.quantise.state import Quantiser
from vcinr.quantise.variational import History, Task, learn, supports

_HIDDEN = 32  # width of the analysis network h_a
_ROUNDS = 3  # rounds of fitting scales and searching w in turn


def train(task: Task, cfg: config.Quantiser, *, seed: int, watch: Watch) -> tuple[Quantiser, History]:
    """As `factorised.train`, with ``cfg.hyper`` integers of side information for each signal.

    The static tables, for coders that use no side information, are the mean of the tables that the training signals
    use.
    """
    spread = task.latents["train"].std(0) / np.sqrt(np.mean(task.latents["train"].var(0)))
    learned = learn(
        task, cfg, lambda gain, generator: ScalePrior(gain * spread, cfg.hyper, generator), seed=seed, watch=watch
    )
    z = learned.codes(cfg.depth, task.reached)
    hyper = fit_scales(learned.prior.frozen(), z)
    offset, level = marginals(hyper, z, *supports(learned, cfg.depth, task.reached))
    return Quantiser(learned.params, cfg.depth, learned.gain, offset, level, hyper=hyper), learned.history


class ScalePrior(nn.Module):
    """Gaussian densities whose scales depend on side information.

    The codes ``[d]`` of rate k have centres ``[K, d]`` and logarithmic scales a_k + B w. The side information w ``[r]``
    has the centre 0 and fixed scales.

    Parameters
    ----------
    scale : numpy.ndarray
        ``[K, d]``: initial standard deviations of the codes.
    side : int
        r, the number of integers of side information.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(self, scale: np.ndarray, side: int, generator: torch.Generator) -> None:
        super().__init__()
        rates, d = scale.shape
        first = torch.log(torch.hypot(torch.tensor(scale, dtype=torch.float32), torch.tensor(0.3)))
        self.log_scale = nn.Parameter(torch.cat([torch.zeros(rates, side), first], 1))
        self.centre = nn.Parameter(torch.zeros(rates, d))
        self.weight = nn.Parameter(0.1 * torch.randn(d, side, generator=generator))
        layers = nn.Linear(d, _HIDDEN), nn.Linear(_HIDDEN, side)
        self.analysis = nn.Sequential(layers[0], nn.SiLU(), layers[1])
        for layer in layers:
            nn.init.normal_(layer.weight, 0.0, layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, y: torch.Tensor, rate: int, relax: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Bits of each signal ``[n]``, side information included, for relaxed codes y ``[n, d]``."""
        side = self.weight.shape[1]
        w = relax(self.analysis(torch.log1p(y.abs())))
        bits = gaussian_bits(y - self.centre[rate], self.log_scale[rate, side:] + w @ self.weight.T).sum(-1)
        return bits + gaussian_bits(w, self.log_scale[rate, :side]).sum(-1)

    @torch.no_grad()
    def frozen(self) -> Hyperprior:
        """The densities as the integers of a decoder."""
        per_octave = PER_OCTAVE * (1 << SHIFT)  # units of a frozen scale for each doubling of the standard deviation
        scale = per_octave * (self.log_scale.double() / math.log(2) - math.log2(SMALLEST)) + (1 << SHIFT) / 2
        centre = torch.cat([torch.zeros_like(self.log_scale[:, : self.weight.shape[1]]), self.centre], 1)
        weight = (per_octave / math.log(2) * self.weight).round().clamp(1 - (1 << 15), (1 << 15) - 1)
        return Hyperprior(scale_levels(SCALES), *(v.round().int().numpy() for v in (centre, scale, weight)))


def gaussian_bits(y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """-log2 of the mass of N(0, exp(log_scale)^2) on [y - 1/2, y + 1/2], elementwise.

    Far out, where that mass is too small to compute, it is the density's, which keeps the gradient alive.
    """
    log_scale = log_scale.clamp(math.log(SMALLEST), 12.0)
    inverse = torch.exp(-log_scale)
    # Both edges are mirrored to the lower tail, where their difference does not cancel.
    upper, lower = (0.5 - y.abs()) * inverse, (-0.5 - y.abs()) * inverse
    p = torch.special.ndtr(upper) - torch.special.ndtr(lower)
    density_nats = 0.5 * (y * inverse).square() + log_scale + 0.5 * math.log(2 * math.pi)
    return torch.where(p > 1e-6, -torch.log(p.clamp_min(1e-9)), density_nats) / math.log(2)


def fit_scales(hyper: Hyperprior, z: np.ndarray) -> Hyperprior:
    """Fit centres and scales of a hyperprior to codes, with the same weights.

    Parameters
    ----------
    hyper : Hyperprior
        As training left it.
    z : numpy.ndarray
        Codes ``[K, N, d]``.

    Returns
    -------
    Hyperprior
        The one that needs the fewest bits, with no more tables than are used.

    Notes
    -----
    Rounding, the search for w and the coarse scales of the tables differ from what training assumed; here their bits
    are counted. The fit alternates with the search for w. Half an occurrence of the value 1 is added to those seen
    (after Krichevsky & Trofimov 1981), so that a code that never moved in training does not become expensive when it
    does.
    """
    centre, scale = hyper.centre.copy(), hyper.scale.copy()
    unseen = hyper.column(np.array(1))
    for _ in range(_ROUNDS):
        for k, codes in enumerate(z):
            w = hyper.search(codes, k)
            centre[k, : hyper.side] = np.rint(np.median(w, 0))
            values, moved = np.concatenate([w, codes], 1) - centre[k], np.zeros((len(w), len(centre[k])), np.int64)
            moved[:, hyper.side :] = w @ hyper.weight.T.astype(np.int64)
            best, least = scale[k].copy(), np.full(len(centre[k]), np.inf)
            for step in sorted(range(-32, 33), key=abs):
                trial = scale[k] + (step << SHIFT) // 2
                index = np.clip((trial + moved) >> SHIFT, 0, len(hyper.level) - 1)
                bits = hyper.cost[index, hyper.column(values)].sum(0) + hyper.cost[index, unseen].mean(0) / 2
                best, least = np.where(bits < least, trial, best), np.minimum(bits, least)
            scale[k] = np.clip(best, 0, (len(hyper.level) << SHIFT) - 1)
        hyper = Hyperprior(hyper.level, centre, scale, hyper.weight)
    largest = max(int(hyper.indices(hyper.search(codes, k), k).max()) for k, codes in enumerate(z))
    return Hyperprior(scale_levels(min(largest + PER_OCTAVE + 1, SCALES)), centre, scale, hyper.weight)


def marginals(hyper: Hyperprior, z: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Static tables that need no side information: the mean of the tables that codes use.

    Parameters
    ----------
    hyper : Hyperprior
        The fitted hyperprior.
    z : numpy.ndarray
        Codes ``[K, N, d]``.
    low, high : numpy.ndarray
        ``[K, d]``: first and last symbol of each table.

    Returns
    -------
    offset : numpy.ndarray
        int32 ``[K, d]``.
    level : numpy.ndarray
        uint8 ``[K, d, S]``.
    """
    level = np.zeros((*low.shape, int((high - low).max()) + 2), np.uint8)
    middle = hyper.level.shape[1] // 2 - 1
    density = np.zeros((len(hyper.level), 2 * middle + 1))  # columns are the values -middle, ..., middle
    for row, frequency, offset in zip(density, hyper.tables.frequency, hyper.tables.offset, strict=True):
        present = frequency[1:][frequency[1:] > 0]
        row[middle + offset : middle + offset + len(present)] = present
    for k, codes in enumerate(z):
        index = hyper.indices(hyper.search(codes, k), k)[:, hyper.side :]
        for i, centre in enumerate(hyper.centre[k, hyper.side :]):
            mean = density[index[:, i]].mean(0)
            position = np.arange(low[k, i], high[k, i] + 1) - centre + middle
            weights = np.where((position >= 0) & (position < len(mean)), mean[np.clip(position, 0, len(mean) - 1)], 0)
            scaled = np.rint(2**16 * np.concatenate([[1], weights])).astype(np.int64)
            level[k, i, : len(scaled)] = levels_of(quantise_frequencies(scaled))
    return low.astype(np.int32), level
