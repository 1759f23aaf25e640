"""Learning from scenes: the step sizes of the inner loop, and the experts by which fields are coded.

Both are learned across scenes, from what the inner loop finds for each. In a first pass over the scenes fields descend
freely, and experts are learned from them in closed form. In a second pass the fields are refined under these experts,
which are then learned anew from what has become of the fields. In the first pass, step sizes follow their own
first-order gradient: a step that the gradient after it would have wanted longer is longer for the next scene. Those of
the refinement stay as they are: their gradient would see errors of views but not bits, and what it finds takes more of
these.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.config import Patches
from vcinr.errors import InputError
from vcinr.patches.learn import learn, stored
from vcinr.patches.model import PatchModel
from vcinr.patches.train import geometry_of
from vcinr.places import written_aside
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.scenes.field import DIMS, FEATURES, FINE
from vcinr.scenes.fit import Fitted, Pace, Views, fit, frame_of, refine, usual_pace

SCALING = (0.0, 2.0)  # of the field: levels span 2
_EAGER = 0.1  # how much a step size changes with a scene, at most, as a share of itself
_LIMITS = (0.25, 4.0)  # of learned step sizes, as multiples of the first ones
COARSE = 10
"""Coarse cells of a field along a side."""
REFINED_RATE = 50
"""The step of latents under which the fields that experts learn from are refined."""
RATE = 42
"""The step of latents for which scenes are compressed, where nothing else is asked for: of those that were tried, the
coarsest at which held-out furniture of the training libraries passed 24 dB (`benchmarks.scenes`, ``--choose``)."""


def train_scenes(
    scenes: Sequence[Views],
    settings: Patches,
    *,
    seed: int,
    out: str | Path,
    coarse: int = COARSE,
    rate: int = RATE,
    refined_rate: int = REFINED_RATE,
    pace: Pace | None = None,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Learn a model of scenes and write it.

    Parameters
    ----------
    scenes : sequence of Views
        The scenes to learn from.
    settings : Patches
        Of the experts; `size`, `back` and `ahead` are in coarse cells.
    seed : int
        Seed of the order of rays and of the draw of patches.
    out : str or Path
        The model file to write.
    coarse : int
        Coarse cells of a field along a side.
    rate : int
        The step of latents for which the model compresses scenes where nothing else is asked for.
    refined_rate : int
        The step under which the fields that experts learn from are refined; a finer one keeps more to learn.
    pace : Pace, optional
        Step sizes to begin with.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        JSON-able: ``experts``, ``model_bytes``, ``seconds``, ``history`` of the experts' learning, and ``pace``.

    Raises
    ------
    InputError
        For no scenes, and for cameras that do not look at one place.
    """
    if not scenes:
        raise InputError("no scenes are given; name one transforms.json at least")
    began = time.monotonic()
    pace = first = pace or usual_pace()
    clock = Clock(2 * len(scenes))
    found: list[Fitted] = []
    frames = [frame_of(views.poses, views.camera, views.name) for views in scenes]
    for i, (views, frame) in enumerate(zip(scenes, frames, strict=True)):
        fitted = fit(views, frame, coarse, pace, seed + i)
        found.append(fitted)
        descent = _learned(pace.descent, first.descent, fitted.agreement["descent"])
        pace = pace._replace(descent=descent)
        watch(Progress("fields", i + 1, len(scenes), {}, clock.left(i + 1)))
    model, _ = _model(found, settings, seed, {}, watch)
    for i, (views, frame) in enumerate(zip(scenes, frames, strict=True)):
        found[i] = refine(views, found[i], frame, pace, model, refined_rate, seed + i)
        watch(Progress("refined fields", i + 1, len(scenes), {}, clock.left(len(scenes) + i + 1)))
    mean = np.mean([fitted.cells.mean((0, 1, 2)) for fitted in found], 0)
    facts = {
        "method": "scenes", "seed": seed, "settings": settings.model_dump(), "scenes": len(scenes), "coarse": coarse,
        "rate": rate, "pace": {part: np.round(sizes, 5).tolist() for part, sizes in pace._asdict().items()},
        "mean": np.round(mean, 4).tolist(),
    }  # fmt: skip
    model, history = _model(found, settings, seed, facts, watch)
    with written_aside(out) as aside:
        aside.write_bytes(model.data)
    return {
        "experts": len(model.basis), "model_bytes": len(model.data), "seconds": time.monotonic() - began,
        "history": history, "pace": facts["pace"],
    }  # fmt: skip


def _learned(sizes: np.ndarray, first: np.ndarray, agreement: np.ndarray) -> np.ndarray:
    """Step sizes after a scene: an exponentiated gradient step, within limits."""
    low, high = _LIMITS
    return np.clip(sizes * np.exp(_EAGER * agreement), low * first, high * first)


def _model(
    found: Sequence[Fitted], settings: Patches, seed: int, facts: dict[str, Any], watch: Watch
) -> tuple[PatchModel, list[dict[str, float]]]:
    """Experts for fields, learned from these and their mirror images."""
    geometry = geometry_of(settings, 3, FEATURES)
    signals = [
        ((mirrored - SCALING[0]) / SCALING[1]).astype(np.float32)
        for fitted in found
        for mirrored in mirror_images(fitted.cells)
    ]
    middle, predict, basis, history = learn(
        signals, geometry, experts=settings.experts, rounds=settings.rounds, patches=settings.count,
        psnr=settings.psnr, seed=seed, watch=watch,
    )  # fmt: skip
    return stored(PatchModel(geometry, DIMS, "feature", {"field": SCALING}, middle, predict, basis, facts)), history


def mirror_images(cells: np.ndarray) -> list[np.ndarray]:
    """A field turned about the upright axis by quarters, and its mirror images: eight in all."""
    images = []
    for k in range(8):
        image = cells
        order = np.arange(FINE**3).reshape(FINE, FINE, FINE)  # of the levels in a coarse cell
        if k & 1:
            image, order = image[::-1], order[::-1]
        if k & 2:
            image, order = image[:, ::-1], order[:, ::-1]
        if k & 4:
            image, order = image.swapaxes(0, 1), order.swapaxes(0, 1)
        features = np.concatenate([order.ravel(), FINE**3 + np.arange(3)])
        images.append(np.ascontiguousarray(image[..., features]))
    return images
