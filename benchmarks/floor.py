"""How far the Gaussian rate-distortion bound is: ``python -m benchmarks.floor``, a few seconds.

HadGEM A1B[140:] in the EOF basis of E1. With the coefficients' variances taken from the *test* maps themselves, which
no codec knows, the bound at a mean squared error D is sum_k max(0, log2(var_k / theta) / 2) bits a map, where theta
fills the variances up to D (reverse water-filling: Cover & Thomas, theorem 10.3.3). What the basis cannot reach counts
to D in full. It holds for Gaussian maps that are independent in time and for squared error; a codec that predicts maps
from those before, or a non-Gaussian field, may pass it. Written to benchmarks/results/floor.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.data.climate import DATASETS
from benchmarks.measure.machine import record

RESULT = Path("benchmarks/results/floor.json")
TARGETS = (40.0, 42.0, 44.0, 46.0, 47.0, 48.0, 49.0, 50.0)


def water_filling(variances: np.ndarray, distortion: float) -> float:
    """Return the bits of independent Gaussians of `variances` ``[K]`` at a total squared error of `distortion`."""
    if distortion <= 0:
        return float("inf")
    low, high = 0.0, float(variances.max())
    if variances.sum() <= distortion:
        return 0.0
    for _ in range(200):
        level = (low + high) / 2
        low, high = (low, level) if np.minimum(variances, level).sum() > distortion else (level, high)
    return float(0.5 * np.log2(np.maximum(variances / low, 1.0)).sum())


def floor(train: np.ndarray, test: np.ndarray, psnr_db: float) -> float:
    """Return the bound at one PSNR.

    Parameters
    ----------
    train, test : np.ndarray
        Maps ``[N, *grid]``; EOFs are those of `train`, variances those of `test`.
    psnr_db : float
        With the range of `test` as peak.

    Returns
    -------
    float
        Bits per value; infinite where the EOFs of `train` do not reach the PSNR.
    """
    train, test = (v.reshape(len(v), -1).astype(np.float64) for v in (train, test))
    mean = train.mean(0)
    _, _, modes = np.linalg.svd(train - mean, full_matrices=False)
    coefficients = (test - mean) @ modes.T
    variances = np.square(coefficients).mean(0)
    beyond = np.square(test - mean).sum(1).mean() - variances.sum()
    allowed = np.ptp(test) ** 2 * 10 ** (-psnr_db / 10) * test.shape[1]
    return water_filling(variances, float(allowed - beyond)) / test.shape[1]


def main() -> None:
    """Print and write the bound."""
    ((first, second),) = DATASETS["hadgem"]()
    rows = [{"psnr_db": target, "bits_per_value": floor(first.values, second.values, target)} for target in TARGETS]
    RESULT.write_text(json.dumps(record(rows=rows), indent=1) + "\n")
    for row in rows:
        print(f"{row['psnr_db']:g} dB: at least {row['bits_per_value']:.4f} bits per value")


if __name__ == "__main__":
    main()
