"""Clips made from photographs: parts of them that shift, turn and grow, before others that do so in their own way.

Films are few, and show a scene each. Such clips teach a model of video many more textures, still and moving ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

Affine = tuple[float, float, float, float, float, float]
"""From the column and row of a point to those in a picture, as Pillow takes it: (a, b, c, d, e, f)."""
_BEYOND = 200  # pixels that a photograph is mirrored beyond its edges
_STILL, _FRONT = 0.4, 0.6  # shares of clips whose background does not move, and of those with something before it


def clips(pictures: Sequence[Image.Image], count: int, frames: int, side: int, seed: int = 0) -> np.ndarray:
    """Make clips.

    Parameters
    ----------
    pictures : sequence of PIL.Image.Image
        Photographs in RGB, some hundred pixels wide.
    count : int
        Clips of each; what is before it in a clip is drawn from all.
    frames, side : int
        Of a clip.
    seed : int
        Of all that is drawn.

    Returns
    -------
    numpy.ndarray
        uint8 ``[count * pictures, frame, y, x, 3]``.
    """
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        for picture in pictures:
            front = pictures[int(rng.integers(len(pictures)))]
            made.append(_clip(picture, front, frames, side, rng))
    return np.stack(made)


def _clip(back: Image.Image, front: Image.Image, frames: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """A clip of a picture, before which, perhaps, an ellipse of another one moves."""
    still = rng.random() < _STILL
    clip = _drawn(back, _path(back, frames, side, rng, 0.0 if still else rng.uniform(0.1, 1.0)), side)
    if rng.random() >= _FRONT:
        return clip
    path = _path(front, frames, side, rng, rng.uniform(0.3, 1.0))
    centre, radius = rng.uniform(0.25 * side, 0.75 * side, 2), rng.uniform(0.15 * side, 0.35 * side, 2)
    half = (side - 1) / 2
    middle = np.array([[c + (a + b) * half, f + (d + e) * half] for a, b, c, d, e, f in path])
    moved = middle[frames // 2] - middle
    y, x = np.mgrid[:side, :side].astype(np.float64)
    shares = []
    for right, down in moved:
        away = np.sqrt(((x - centre[0] - right) / radius[0]) ** 2 + ((y - centre[1] - down) / radius[1]) ** 2)
        shares.append(np.clip((1 - away) * radius.min() + 0.5, 0, 1))
    share = np.stack(shares)[..., None]
    return np.rint(clip * (1 - share) + _drawn(front, path, side) * share).astype(np.uint8)


def _path(picture: Image.Image, frames: int, side: int, rng: np.random.Generator, speed: float) -> list[Affine]:
    """Where a square lies in a picture, frame by frame: it shifts and turns and grows, evenly but for the shift."""
    start, turn, growth = rng.uniform(0, 1, 2), rng.uniform(-0.02, 0.02), rng.uniform(-0.008, 0.008)
    shift, bend, scale = rng.uniform(-3, 3, 2), rng.uniform(-0.12, 0.12, 2), rng.uniform(0.7, 1.3)
    path, half = [], (side - 1) / 2
    for t in range(frames):
        time = speed * (t - (frames - 1) / 2)
        centre = (np.array(picture.size) - 1) * (0.3 + 0.4 * start) + shift * time + bend * time * abs(time) / 2
        size, angle = scale * math.exp(growth * time), turn * time
        c, s = size * math.cos(angle), size * math.sin(angle)
        path.append((c, -s, float(centre[0]) - (c - s) * half, s, c, float(centre[1]) - (s + c) * half))
    return path


def _drawn(picture: Image.Image, path: Sequence[Affine], side: int) -> np.ndarray:
    """The squares of a picture, uint8 ``[frame, side, side, 3]``."""
    edges = ((_BEYOND, _BEYOND), (_BEYOND, _BEYOND), (0, 0))
    wide = Image.fromarray(np.pad(np.asarray(picture), edges, "reflect"))
    places = [(a, b, c + _BEYOND, d, e, f + _BEYOND) for a, b, c, d, e, f in path]
    drawn = [
        wide.transform((side, side), Image.Transform.AFFINE, place, Image.Resampling.BICUBIC) for place in places
    ]  # fmt: skip
    return np.stack([np.asarray(frame) for frame in drawn])
