"""Quality of decoded maps beyond the largest error and PSNR: structural similarity and spectra."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def dssim(original: np.ndarray, decoded: np.ndarray) -> float:
    """Return the data SSIM, mean over maps.

    Parameters
    ----------
    original, decoded : np.ndarray
        Maps ``[..., H, W]``.

    Returns
    -------
    float
        1 for identical maps, less for others.

    Notes
    -----
    Baker et al. (2022), "DSSIM: a structural similarity index for floating-point data". Each map is scaled to [0, 1] by
    the range of the original and rounded to 256 levels; the Gaussian window has sigma 1.5, the constants are 1e-8.
    """
    shape = (-1, *original.shape[-2:])
    scores = []
    for a, b in zip(original.reshape(shape).astype(np.float64), decoded.reshape(shape).astype(np.float64), strict=True):
        low, spread = a.min(), np.ptp(a)
        if spread == 0:
            scores.append(1.0 if np.array_equal(a, b) else 0.0)
            continue
        a, b = (np.rint((v - low) / spread * 255) / 255 for v in (a, b))
        mean_a, mean_b = _smooth(a), _smooth(b)
        var_a, var_b = _smooth(a * a) - mean_a**2, _smooth(b * b) - mean_b**2
        both = _smooth(a * b) - mean_a * mean_b
        c = 1e-8
        similarity = (2 * mean_a * mean_b + c) * (2 * both + c) / ((mean_a**2 + mean_b**2 + c) * (var_a + var_b + c))
        scores.append(float(similarity.mean()))
    return float(np.mean(scores))


def _smooth(values: np.ndarray) -> np.ndarray:
    return gaussian_filter(values, 1.5, truncate=3.5)


def spectral_error(original: np.ndarray, decoded: np.ndarray) -> float:
    """Return how far the power spectrum along the last axis is off.

    Parameters
    ----------
    original, decoded : np.ndarray
        Maps of one shape.

    Returns
    -------
    float
        Mean over wavenumbers of |P' - P| / P, where P is the power averaged over all other axes; 0 is perfect.
    """
    power = [np.square(np.abs(np.fft.rfft(v.astype(np.float64), axis=-1))) for v in (original, decoded)]
    a, b = (p.reshape(-1, p.shape[-1]).mean(0) for p in power)
    positive = a > 0
    return float(np.mean(np.abs(b[positive] - a[positive]) / a[positive])) if positive.any() else 0.0
