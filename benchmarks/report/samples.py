"""Small pictures of signals and of what codecs leave of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

COLOURS = 192
"""Of a picture's palette, which keeps files small."""


def images(path: Path, crops: Mapping[str, np.ndarray]) -> None:
    """Write images uint8 ``[y, x, 3]`` or grey ``[y, x]`` of one size beside each other, with titles, as a PNG."""
    from matplotlib.figure import Figure

    height, width = next(iter(crops.values())).shape[:2]
    figure = Figure(figsize=((width + 6) * len(crops) / 100, (height + 34) / 100), dpi=100)
    for place, (title, crop) in enumerate(crops.items()):
        axes = figure.add_axes((place / len(crops), 0, width / (width + 6) / len(crops), height / (height + 34)))
        axes.imshow(crop, interpolation="nearest", aspect="auto", cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=8, pad=3)
        axes.axis("off")
    _save(figure, path)


def spectrograms(path: Path, clips: Mapping[str, np.ndarray], rate: int) -> None:
    """Write the spectrograms of clips ``[time]``, on [-1, 1], beside each other, with their titles, as a PNG."""
    from matplotlib.figure import Figure
    from scipy.signal import spectrogram

    figure = Figure(figsize=(2.6 * len(clips), 2.4), dpi=90, layout="constrained")
    for place, (title, clip) in enumerate(clips.items(), 1):
        frequencies, times, power = spectrogram(clip, rate, nperseg=512, noverlap=384)
        axes = figure.add_subplot(1, len(clips), place)
        axes.imshow(
            10 * np.log10(power + 1e-12), origin="lower", aspect="auto", cmap="magma", vmin=-110, vmax=-40,
            extent=(times[0], times[-1], frequencies[0] / 1000, frequencies[-1] / 1000),
        )  # fmt: skip
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("s", fontsize=7)
        if place == 1:
            axes.set_ylabel("kHz", fontsize=7)
    _save(figure, path)


def solids(path: Path, versions: Mapping[str, np.ndarray]) -> None:
    """Write versions of shapes ``[shape, z, y, x]`` as a PNG: a row for each shape, with a column for each version."""
    from matplotlib.figure import Figure

    rows = len(next(iter(versions.values())))
    figure = Figure(figsize=(1.5 * len(versions), 1.5 * rows + 0.2), dpi=100, layout="constrained")
    for column, (title, shapes) in enumerate(versions.items()):
        for row, solid in enumerate(shapes):
            axes = figure.add_subplot(rows, len(versions), row * len(versions) + column + 1)
            axes.imshow(_relief(solid), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.axis("off")
            if row == 0:
                axes.set_title(title, fontsize=8)
    _save(figure, path)


def _relief(solid: np.ndarray, turn: float = 35.0, tilt: float = 25.0) -> np.ndarray:
    """A view of a solid shape ``[z, y, x]`` from the front, turned and tilted by degrees; brightness, 1 behind it."""
    from scipy.ndimage import gaussian_filter, rotate

    turned = rotate(solid.astype(np.float32).repeat(2, 0).repeat(2, 1).repeat(2, 2), turn, (0, 2), order=1)
    seen = rotate(turned, -tilt, (0, 1), order=1)[::-1, ::-1] > 0.5  # planes from the nearest on, rows from the top on
    depth = np.where(seen.any(0), seen.argmax(0), len(seen)).astype(float)
    down, right = np.gradient(gaussian_filter(depth, 0.7))
    light = (0.45 + 0.35 * right - 0.6 * down) / np.sqrt(1 + right**2 + down**2)
    return np.where(seen.any(0), np.clip(0.15 + 0.75 * light, 0, 0.92), 1.0)


def _save(figure: object, path: Path) -> None:
    from matplotlib.figure import Figure
    from PIL import Image

    assert isinstance(figure, Figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
