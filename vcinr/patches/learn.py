"""Learning experts from signals, in closed form: a clustering in which each cluster has its own predictor and basis.

Each round gives every patch to the expert that codes it in the fewest bits, as far as these can be estimated, and then
fits every expert to its patches: its prediction by least squares, its basis as the principal axes of what the
prediction leaves. This is the Lloyd algorithm with adapted transforms (Dony and Haykin 1995, "Optimally adaptive
transform coding"), with the prediction as a part of the expert.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vcinr import container
from vcinr.errors import InputError
from vcinr.patches.geometry import Geometry, extended, parts, shifts, windows
from vcinr.patches.model import PatchModel, bits_of, from_parts
from vcinr.progress import Clock, Progress, Watch, silent

_RIDGE = 1e-3  # of least squares, as a fraction of the mean diagonal
_FEWEST = 4  # patches for each number of a prediction that an expert needs, at least
_SWITCH = 0.7  # share of the bits that name an expert which clustering counts: the contexts predict the rest


def learn(
    signals: Sequence[np.ndarray], geometry: Geometry, *, experts: int, rounds: int, patches: int, psnr: float,
    seed: int = 0, watch: Watch = silent,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, float]]]:  # fmt: skip
    """Learn experts.

    Parameters
    ----------
    signals : sequence of numpy.ndarray
        Training signals ``[Z, Y, X, F]`` in the model's units, where the range of the data is 1.
    geometry : Geometry
        Size of the patches.
    experts : int
        Largest number K of experts; there are fewer where there are too few patches for them.
    rounds : int
        Rounds of clustering.
    patches : int
        Number of patches to learn from, drawn at random.
    psnr : float
        The quality, in dB, at which the experts are to need few bits.
    seed : int
        Seed of the draw.
    watch : callable
        Is told of progress.

    Returns
    -------
    middle, predict, basis : numpy.ndarray
        As in `PatchModel`.
    history : list of dict
        The mean of the estimated bits per value after each round.

    Raises
    ------
    InputError
        Where there are too few patches for one expert.
    """
    rng = np.random.default_rng(seed)
    around, target, middle = _drawn(signals, geometry, patches, rng)
    count, q = target.shape
    most = count // (_FEWEST * max(1, around.shape[1]))
    if count < 4 * q:
        raise InputError(f"{count} patches are too few to learn {q} values each; give more or larger signals")
    experts = max(1, min(experts, most))
    step = step_at(psnr)
    noisy = around + rng.normal(0, step / math.sqrt(12) / 2, around.shape).astype(np.float32)
    label = _first_labels(target, geometry, experts)
    history, clock = [], Clock(rounds)
    for round_number in range(1, rounds + 1):
        fitted = [_fit(noisy[label == k], target[label == k]) for k in range(experts)]
        shares = np.bincount(label, minlength=experts) / count
        label, bits = _assigned(noisy, target, fitted, shares, step)
        history.append({"round": round_number, "bits_per_value": bits / q})
        watch(Progress("experts", round_number, rounds, {"bits per value": bits / q}, clock.left(round_number)))
    sizes = np.bincount(label, minlength=experts)
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    return middle, np.stack([fitted[k][0] for k in order]), np.stack([fitted[k][1] for k in order]), history


def step_at(psnr: float) -> float:
    """The step of latents at which the error of rounding alone has a PSNR, in dB of the range of normalised values."""
    return math.sqrt(12) * 10 ** (-psnr / 20)


def stored(model: PatchModel) -> PatchModel:
    """The model as a reader will see it, with its numbers rounded to their stored precision."""
    return from_parts(*container.unpack(model.data, "model"), model.data, "model")


def _drawn(
    signals: Sequence[np.ndarray], geometry: Geometry, patches: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values around random patches ``[N, C F]`` and in them ``[N, Q]``, less the mean around; and the mean of all."""
    whole = [extended(np.asarray(s, np.float32), geometry) for s in signals]
    counts = [tuple(n // s for n, s in zip(w.shape[:3], geometry.size, strict=True)) for w in whole]
    totals = np.array([math.prod(c) for c in counts])
    drawn = np.sort(rng.permutation(int(totals.sum()))[:patches])
    ends = np.cumsum(totals)
    middle = np.mean([w.mean((0, 1, 2)) for w in whole], 0).astype(np.float32)
    around, target = [], []
    for signal, shape, end, total in zip(whole, counts, ends, totals, strict=True):
        chosen = drawn[(drawn >= end - total) & (drawn < end)] - (end - total)
        moved = shifts(signal, geometry) if len(chosen) else None
        for part in parts(len(chosen)):
            a, t = windows(signal, geometry, np.stack(np.unravel_index(chosen[part], shape), 1), middle, moved)
            around.append(a)
            target.append(t)
    return np.concatenate(around), np.concatenate(target), middle


def _first_labels(target: np.ndarray, geometry: Geometry, experts: int) -> np.ndarray:
    """Clusters to begin with: patches without a direction, and the others by the direction in which they change most.

    Along one axis, where there are no directions, it is the energy that counts.
    """
    count = len(target)
    if experts == 1:
        return np.zeros(count, np.int64)
    values = target.reshape(count, *geometry.size, -1).mean(-1)
    axes = [a for a, n in enumerate(geometry.size, 1) if n > 1][-2:]
    if len(axes) < 2:
        energy = np.square(target).sum(1)
        return np.argsort(np.argsort(energy, kind="stable"), kind="stable") * experts // count
    inner = tuple(slice(None) if a not in axes else slice(None, -1) for a in range(1, 4))
    rise = [np.diff(values, axis=a)[(slice(None), *(inner[b - 1] if b != a else slice(None) for b in range(1, 4)))]
            for a in axes]  # fmt: skip
    yy, xx, xy = ((p * r).sum((1, 2, 3)) for p, r in ((rise[0],) * 2, (rise[1],) * 2, rise))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) / np.pi + 0.5
    directed = np.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + 1e-12)
    label = 1 + np.minimum((angle * (experts - 1)).astype(np.int64), experts - 2)
    label[directed < np.quantile(directed, 0.3)] = 0
    return label


def _fit(around: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The prediction ``[C F, Q]`` and the basis ``[Q, Q]``, function by value, of an expert for its patches."""
    normal = (around.T @ around).astype(np.float64)
    size = len(normal)
    if size and len(around):
        normal[np.diag_indices(size)] += _RIDGE * np.trace(normal) / size + 1e-12 * len(around) + 1e-30
        predict = np.linalg.solve(normal, (around.T @ target).astype(np.float64)).astype(np.float32)
    else:
        predict = np.zeros((size, target.shape[1]), np.float32)
    remaining = target - around @ predict
    axes = np.linalg.eigh((remaining.T @ remaining).astype(np.float64))[1]
    return predict, np.ascontiguousarray(axes[:, ::-1].T, np.float32)


def _assigned(
    around: np.ndarray, target: np.ndarray, fitted: list[tuple[np.ndarray, np.ndarray]], shares: np.ndarray, step: float
) -> tuple[np.ndarray, float]:
    """The expert of each patch that codes it in the fewest bits, and the mean of these bits."""
    label, total = np.empty(len(target), np.int64), 0.0
    rarity = -_SWITCH * np.log2(np.maximum(shares, 1 / (len(target) + 1)))
    for part in parts(len(target)):
        costs = bits_of(around[part], target[part], fitted, step) + rarity[:, None]
        label[part] = costs.argmin(0)
        total += float(costs.min(0).sum())
    return label, total / len(target)
