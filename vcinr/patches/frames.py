"""Signals of frames: in which order they are coded, at which steps, and which earlier ones each looks at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vcinr.coding.kernels import Coder, reserve
from vcinr.patches import kernels, motion
from vcinr.patches.geometry import Geometry, extended
from vcinr.patches.kernels import Patching

NOISE = 0.5 / math.sqrt(12)
"""Noise that experts are learned with, in steps of the latents: half of what rounding makes."""


class Frame(NamedTuple):
    """A frame `z` to code, and the frames before and after it that it looks at, -1 for none.

    `level` is 0 for the first frame, 1 for the last ones of groups, and one more for each halving of a group.
    """

    z: int
    before: int
    after: int
    level: int


def ordered(count: int, group: int) -> Iterator[Frame]:
    """Yield frames in the order in which they are coded.

    The first is coded alone, the last of each group of `group` frames looks at the last of the group before, and every
    other one, the middle of an interval, at both ends.
    """
    if count:
        yield Frame(0, -1, -1, 0)
    for before in range(0, count - 1, group):
        after = min(before + group, count - 1)
        yield Frame(after, before, -1, 1)
        yield from _between(before, after, 2)


def _between(before: int, after: int, level: int) -> Iterator[Frame]:
    middle = (before + after) // 2
    if middle > before:
        yield Frame(middle, before, after, level)
        yield from _between(before, middle, level + 1)
        yield from _between(middle, after, level + 1)


Coders = tuple[Coder, Coder, Coder]


def code(
    coders: tuple[Coders, ...], data: np.ndarray, sets: tuple[Patching, ...], geometry: Geometry,
    target: np.ndarray, likely: np.ndarray, out: np.ndarray, steps: tuple[float, ...], writing: bool,
) -> np.ndarray:  # fmt: skip
    """Code a signal frame by frame.

    Parameters
    ----------
    coders : tuple of Coders
        Three coders for each set of experts; they share one range coder.
    data : numpy.ndarray
        uint8 buffer to write to, or the stream to read.
    sets : tuple of Patching
        How patches of frames are coded that look at no frame, at one and at two.
    geometry : Geometry
        Size of the patches, their motion and the groups of frames.
    target : numpy.ndarray
        float64 ``[Z, Y, X, F]``, whole patches: what to write; empty when reading.
    likely : numpy.ndarray
        int64 ``[1, ny, nx, L]``: the experts to try for each patch of the first frame; empty when reading.
    out : numpy.ndarray
        float64, of the signal's shape: is filled with the reconstruction.
    steps : tuple of float
        The step of each level; levels beyond have the last.
    writing : bool
        Whether to write or to read.

    Returns
    -------
    numpy.ndarray
        The buffer, which may be a larger one.
    """
    ny, nx = (int(n) // int(s) for n, s in zip(out.shape[1:3], sets[0].size[1:], strict=True))
    v = motion.moving(sets[0].size, geometry.motion, geometry.margin, out.shape, target)
    memories = [kernels.patch_memory(p, 1 if not k else len(out), ny, nx) for k, p in enumerate(sets)]
    for frame in ordered(len(out), geometry.group):
        number = _looking(frame)
        p, m, step = sets[number], memories[number], steps[min(frame.level, len(steps) - 1)]
        v.frames[:] = frame[:3]
        v.looked[frame.z] = frame.before, frame.after
        v.usual[:] = 0
        m.kept[1] = m.kept[0]
        m.kept[0] = 0
        m.above[:] = 0
        for r in range(number if writing else 0):
            motion.look(v, out, r)
        for y in range(ny):
            if writing:
                data = reserve(coders[0][0].state, data, nx * (p.basis.shape[1] + 24))
            if number:
                motion.moving_row(*coders[number], data, p, m, v, target, out, y, step, writing)
            else:
                kernels.patch_row(*coders[0], data, p, m, target, likely, out, frame.z, y, step, writing)
    return data


def seen(
    signals: Sequence[np.ndarray], geometry: Geometry, planes: int, most: int, step: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What a decoder knows around patches that look at `planes` other frames, and what they hold.

    A decoder is taken to have the signals with white noise (`NOISE`).

    Parameters
    ----------
    signals : sequence of numpy.ndarray
        Signals ``[Z, Y, X, F]``.
    geometry : Geometry
        With groups.
    planes : int
        1 or 2.
    most : int
        Largest number of patches, which are drawn evenly.
    step : float
        Of latents, about.
    rng : numpy.random.Generator
        Draws the noise.

    Returns
    -------
    around, target : numpy.ndarray
        float32 ``[N, D]`` and ``[N, Q]``, less the mean around.
    """
    features, size = signals[0].shape[-1], np.array(geometry.size, np.int64)
    q, none = geometry.points * features, np.zeros((1, 0, 0))
    sets = [
        Patching(
            size, geometry.offsets, geometry.near, np.zeros(features), np.zeros((1, geometry.seen(n) * features, q)),
            np.zeros((1, q, q)), none, np.zeros(1, np.int64),
        )
        for n in (0, 1, 2)
    ]  # fmt: skip
    shapes = [geometry.padded(s.shape[:3]) for s in signals]
    rows = [(z, y // int(size[1]), x // int(size[2])) for z, y, x in shapes]
    total = sum(
        ny * nx * sum(_looking(frame) == planes for frame in ordered(nz, geometry.group)) for nz, ny, nx in rows
    )
    every = max(1, -(-total // most))
    around = np.zeros((-(-total // every), geometry.seen(planes) * features), np.float32)
    target = np.zeros((len(around), q), np.float32)
    passed = 0
    for signal, (nz, ny, nx) in zip(signals, rows, strict=True):
        whole = np.ascontiguousarray(extended(signal, geometry), np.float64)
        out = whole + rng.normal(0, NOISE * step, whole.shape)
        v = motion.moving(size, geometry.motion, geometry.margin, whole.shape, whole)
        memories = [kernels.patch_memory(p, 1, ny, nx) for p in sets]
        for frame in ordered(nz, geometry.group):
            number = _looking(frame)
            if not 1 <= number <= planes:
                continue
            v.frames[:] = frame[:3]
            v.looked[frame.z] = frame.before, frame.after
            for r in range(number):
                motion.look(v, out, r)
            for y in range(ny):
                place = passed + np.arange(nx)
                chosen = np.where((place % every == 0) & (number == planes), place // every, -1)
                motion.follow_row(sets[number], memories[number], v, whole, out, y, step, chosen, around, target)
                passed += nx * (number == planes)
    return around, target


def _looking(frame: Frame) -> int:
    """At how many other frames a frame looks."""
    return (frame.before >= 0) + (frame.after >= 0)
