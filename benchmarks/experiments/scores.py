"""How well a set of points shows a labelling, and how two rate-distortion curves compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

Curve = Sequence[tuple[float, float]]
"""Points (bits per value, PSNR in dB)."""


def principal_components(points: np.ndarray) -> np.ndarray:
    """Return points ``[N, D]``, centred, in their principal axes ``[N, N]``, largest variance first.

    Distances between points stay the same.
    """
    centred = points.reshape(len(points), -1).astype(np.float64)
    centred -= centred.mean(0)
    values, vectors = np.linalg.eigh(centred @ centred.T)  # N x N: a signal's gates may be a million
    return (vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1]


def silhouette(points: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean silhouette of a labelling of points ``[N, D]``, in [-1, 1] (Rousseeuw 1987).

    The only point of a label counts as 0.
    """
    distance, names = cdist(points, points), np.unique(labels)
    member = labels[:, None] == names[None]
    size = member.sum(0)
    to = distance @ member  # summed distances from each point to each label
    own = np.take_along_axis(to, member.argmax(1)[:, None], 1)[:, 0] / np.maximum(size[member.argmax(1)] - 1, 1)
    other = np.where(member, np.inf, to / size).min(1)
    score = (other - own) / np.maximum(np.maximum(own, other), 1e-300)
    return float(np.where(size[member.argmax(1)] > 1, score, 0.0).mean())


def mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Return the normalised mutual information of two labellings, 2 I / (H1 + H2), in [0, 1].

    It is 1 where both have one label only.
    """
    a, b = (np.unique(labels, return_inverse=True)[1] for labels in (first, second))
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1.0 / len(a))
    rows, columns = _entropy(joint.sum(1)), _entropy(joint.sum(0))
    return 1.0 if rows + columns == 0 else 2 * (rows + columns - _entropy(joint.ravel())) / (rows + columns)


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def clusters(points: np.ndarray, count: int, seed: int, tries: int = 20) -> np.ndarray:
    """Return labels of points ``[N, D]`` by k-means, the tightest of `tries` starts (k-means++)."""
    best, tightest = np.zeros(len(points), np.int64), np.inf
    rng = np.random.default_rng(seed)
    for _ in range(tries):
        centres, labels = kmeans2(points, count, minit="++", rng=rng)
        spread = float(np.square(points - centres[labels]).sum())
        if spread < tightest:
            best, tightest = labels, spread
    return best


def equal_psnr(curve: Curve, reference: Curve, psnr_db: float) -> float | None:
    """Return the bits of `curve` over those of `reference` at one PSNR, interpolated in dB.

    None where one of them does not reach the PSNR.
    """
    rates = [_rate_at(points, psnr_db) for points in (curve, reference)]
    return None if rates[0] is None or rates[1] is None else float(np.exp(rates[0] - rates[1]))


def relative_rate(curve: Curve, reference: Curve) -> float | None:
    """Return the geometric mean of `equal_psnr` over the PSNRs that both curves reach, or None without any."""
    reach = [[p[1] for p in front(points)] for points in (curve, reference)]
    low, high = max(min(r) for r in reach), min(max(r) for r in reach)
    if low >= high:
        return None
    ratios = [equal_psnr(curve, reference, q) for q in np.linspace(low, high, 101)]
    return float(np.exp(np.mean([np.log(r) for r in ratios if r is not None])))


def front(points: Curve) -> list[tuple[float, float]]:
    """Return the points that no other beats, the fewest bits first.

    Points of no bits are left out, because they have no logarithm.
    """
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(points, key=lambda p: (p[0], -p[1])):
        if rate > 0 and (not kept or quality > kept[-1][1]):
            kept.append((rate, quality))
    return kept


def _rate_at(points: Curve, psnr_db: float) -> float | None:
    """Return the logarithm of the rate at a PSNR, or None where it is not reached."""
    known = front(points)
    quality = [q for _, q in known]
    if not quality[0] - 1e-9 <= psnr_db <= quality[-1] + 1e-9:
        return None
    return float(np.interp(psnr_db, quality, [np.log(r) for r, _ in known]))
