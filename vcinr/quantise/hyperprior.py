"""The variational quantiser with a hyperprior (Ballé, Minnen, Singh, Hwang & Johnston 2018): scales that a signal says.

Side information w = h_a(|y|) of a few numbers a signal, as noisy as y in training, gives the logarithms of the standard
deviations of all its codes, a_k + B w. h_a is of use in training only: what is frozen is integers
(:class:`vcinr.coding.hyperprior.Hyperprior`), for which an encoder finds w by counting bits.
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

_HIDDEN = 32
_ROUNDS = 3


def train(task: Task, cfg: config.Quantiser, *, seed: int, watch: Watch) -> tuple[Quantiser, History]:
    """As `factorised.train`, and ``cfg.hyper`` integers of side information a signal.

    The tables without side information are the mean of those that the training signals take.
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
    """Gaussians of ``[K, d]`` centres, and of logarithmic scales a_k + B w; w ``[r]`` has a centre of 0 and fixed ones.

    scale ``[K, d]``: the first standard deviations.
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
        """Rate of each signal ``[n]`` in bits, w's included, for relaxed codes y ``[n, d]``."""
        side = self.weight.shape[1]
        w = relax(self.analysis(torch.log1p(y.abs())))
        bits = gaussian_bits(y - self.centre[rate], self.log_scale[rate, side:] + w @ self.weight.T).sum(-1)
        return bits + gaussian_bits(w, self.log_scale[rate, :side]).sum(-1)

    @torch.no_grad()
    def frozen(self) -> Hyperprior:
        """The integers."""
        unit = PER_OCTAVE * (1 << SHIFT)  # of a scale's index, to each doubling
        scale = unit * (self.log_scale.double() / math.log(2) - math.log2(SMALLEST)) + (1 << SHIFT) / 2
        centre = torch.cat([torch.zeros_like(self.log_scale[:, : self.weight.shape[1]]), self.centre], 1)
        weight = (unit / math.log(2) * self.weight).round().clamp(1 - (1 << 15), (1 << 15) - 1)
        return Hyperprior(scale_levels(SCALES), *(v.round().int().numpy() for v in (centre, scale, weight)))


def gaussian_bits(y: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """-log2 of the mass of N(0, exp(log_scale)^2) on [y - 1/2, y + 1/2], elementwise; that of its density far out."""
    log_scale = log_scale.clamp(math.log(SMALLEST), 12.0)
    inverse = torch.exp(-log_scale)
    # Both edges on the lower tail, where their difference does not cancel.
    upper, lower = (0.5 - y.abs()) * inverse, (-0.5 - y.abs()) * inverse
    p = torch.special.ndtr(upper) - torch.special.ndtr(lower)
    far = 0.5 * (y * inverse).square() + log_scale + 0.5 * math.log(2 * math.pi)
    return torch.where(p > 1e-6, -torch.log(p.clamp_min(1e-9)), far) / math.log(2)


def fit_scales(hyper: Hyperprior, z: np.ndarray) -> Hyperprior:
    """The same weights with centres and scales of fewest bits for codes z ``[K, N, d]``, in turn with the search for w.

    Rounding, the search and the tables' scales are not those of training; here they are counted. Half a code of 1 is
    counted in with those seen (Krichevsky & Trofimov 1981), lest what never moved in training be dear when it does.
    """
    centre, scale = hyper.centre.copy(), hyper.scale.copy()
    unseen = hyper.column(np.array(1))
    for _ in range(_ROUNDS):
        for k, codes in enumerate(z):
            w = hyper.search(codes, k)
            centre[k, : hyper.side] = np.rint(np.median(w, 0))
            values, moved = np.concatenate([w, codes], 1) - centre[k], np.zeros((len(w), len(centre[k])), np.int64)
            moved[:, hyper.side :] = w @ hyper.weight.T.astype(np.int64)
            found, least = scale[k].copy(), np.full(len(centre[k]), np.inf)
            for step in sorted(range(-32, 33), key=abs):
                tried = scale[k] + (step << SHIFT) // 2
                index = np.clip((tried + moved) >> SHIFT, 0, len(hyper.level) - 1)
                bits = hyper.cost[index, hyper.column(values)].sum(0) + hyper.cost[index, unseen].mean(0) / 2
                found, least = np.where(bits < least, tried, found), np.minimum(bits, least)
            scale[k] = np.clip(found, 0, (len(hyper.level) << SHIFT) - 1)
        hyper = Hyperprior(hyper.level, centre, scale, hyper.weight)
    used = max(int(hyper.indices(hyper.search(codes, k), k).max()) for k, codes in enumerate(z))
    return Hyperprior(scale_levels(min(used + PER_OCTAVE + 1, SCALES)), centre, scale, hyper.weight)


def marginals(hyper: Hyperprior, z: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """offset int32 ``[K, d]`` and level uint8 ``[K, d, S]`` of the mean tables of codes z ``[K, N, d]``.

    low, high ``[K, d]``: their first and last symbols.
    """
    level = np.zeros((*low.shape, int((high - low).max()) + 2), np.uint8)
    middle = hyper.level.shape[1] // 2 - 1
    p = np.zeros((len(hyper.level), 2 * middle + 1))  # of -middle, ..., middle
    for row, frequency, offset in zip(p, hyper.tables.frequency, hyper.tables.offset, strict=True):
        found = frequency[1:][frequency[1:] > 0]
        row[middle + offset : middle + offset + len(found)] = found
    for k, codes in enumerate(z):
        index = hyper.indices(hyper.search(codes, k), k)[:, hyper.side :]
        for i, centre in enumerate(hyper.centre[k, hyper.side :]):
            mean = p[index[:, i]].mean(0)
            at = np.arange(low[k, i], high[k, i] + 1) - centre + middle
            weights = np.where((at >= 0) & (at < len(mean)), mean[np.clip(at, 0, len(mean) - 1)], 0)
            scaled = np.rint(2**16 * np.concatenate([[1], weights])).astype(np.int64)
            level[k, i, : len(scaled)] = levels_of(quantise_frequencies(scaled))
    return low.astype(np.int32), level
