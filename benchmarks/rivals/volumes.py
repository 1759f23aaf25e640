"""Codecs of volumes by quality: HEVC, which takes the slices as a grey film, and those of `benchmarks.rivals`.

All take and give float32 ``[z, y, x]`` on [0, 1].
"""

from __future__ import annotations

import numpy as np

from benchmarks.rivals import images
from benchmarks.rivals.images import Lossy


def _hevc(volume: np.ndarray, qp: float) -> bytes:
    slices = np.clip(np.rint(255 * volume), 0, 255).astype(np.uint8)
    return images.hevc(slices[:, None], int(qp), "slow")


def _slices(data: bytes) -> np.ndarray:
    return images.hevc_pictures(data)[:, 0].astype(np.float32) / np.float32(255)


HEVC = Lossy("HEVC on slices", _hevc, _slices, (16, 20, 24, 28, 32, 36, 40))
