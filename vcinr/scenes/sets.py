"""Scenes as data sets: from the views of many scenes to the fields that an archive holds, and back to views.

An archive of fields has the variable ``field(item, x, y, z, feature)`` float32 and the coordinates uint8
``box(item, corner)``, ``pose``, ``file(view)`` and ``name(item)``. The attributes of ``field`` say what all scenes
share: the camera (``height``, ``width``, ``fl_x``, ``fl_y``, ``cx``, ``cy``) and the frame (``corner``, ``side``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vcinr.errors import CorruptError, InputError
from vcinr.formats.base import KIND_OF_SIGNAL
from vcinr.formats.scene import CAMERA
from vcinr.patches.model import PatchModel
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.quality import psnr_of
from vcinr.scenes import field
from vcinr.scenes.field import DIMS, FEATURES, Camera, Frame
from vcinr.scenes.fit import Fitted, Views, coded, fit, frame_of, pace_of, refine

ITEM = "item"
_RATES = range(8, 128, 8)  # that are tried for a PSNR of views
_JUDGED = 6  # views of a scene that are rendered for that


def views_of(dataset: xr.Dataset, name: str) -> list[Views]:
    """The scenes of a data set as `vcinr.kinds.scenes.join` makes it; messages begin with `name`."""
    views = dataset["views"]
    camera = Camera(views.sizes["y"], views.sizes["x"], *(float(np.ravel(views.attrs[key])[0]) for key in CAMERA))
    values, poses = views.values, dataset["pose"].values
    if values.dtype != np.uint8 or values.shape[-1] != 3:
        raise InputError(f"{name}: views must be uint8 with three channels; convert them")
    return [
        Views(values[i], poses[i] if poses.ndim == 4 else poses, camera, f"{name}: {scene}")
        for i, scene in enumerate(dataset["name"].values)
    ]


def fields_of(
    dataset: xr.Dataset, model: PatchModel, *, psnr: float | None = None, origin: str = "model", name: str = "scenes",
    seed: int = 0, watch: Watch = silent,
) -> tuple[xr.Dataset, float]:  # fmt: skip
    """Find the fields of scenes by the inner loop of a model.

    Parameters
    ----------
    dataset : xarray.Dataset
        The scenes, as `vcinr.kinds.scenes.join` makes it.
    model : PatchModel
        A model of scenes.
    psnr : float, optional
        PSNR in dB that given views are to have on the average, rendered from the archive. Default: the rate at which
        the model was trained.
    origin, name : str
        What messages about the model and about the scenes begin with.
    seed : int
        Of the order of rays.
    watch : callable
        Is told of progress.

    Returns
    -------
    fields : xarray.Dataset
        What the archive is to hold.
    field_psnr_db : float
        The PSNR of ``field`` itself, relative to its range, that the archive must reach to hold what was found.

    Raises
    ------
    InputError
        For a model that is not of scenes, cameras that do not look at one place, and a PSNR that cannot be reached.
    """
    pace, coarse, rate = pace_of(model, origin)
    scenes = views_of(dataset, name)
    poses = np.concatenate([views.poses for views in scenes])
    frame = frame_of(poses, scenes[0].camera, name)
    clock, free = Clock(len(scenes)), []
    for i, views in enumerate(scenes):
        free.append(fit(views, frame, coarse, pace, seed + i))
        watch(Progress("fields", i + 1, len(scenes), {}, clock.left(i + 1)))

    def refined(rate: int) -> list[Fitted]:
        clock, result = Clock(len(scenes)), []
        for i, (views, fitted) in enumerate(zip(scenes, free, strict=True)):
            result.append(refine(views, fitted, frame, pace, model, rate, seed + i))
            watch(Progress("refined fields", i + 1, len(scenes), {}, clock.left(i + 1)))
        return result

    if psnr is None:
        found = refined(rate)
    else:
        rate, found = _reached(scenes, frame, model, psnr, refined, name)
    values = np.stack([fitted.cells for fitted in found]).astype(np.float32)
    decoded = coded(model, values.astype(np.float64), rate)[1].astype(np.float32)
    error = float(np.square(decoded.astype(np.float64) - values).mean())
    attrs: dict[str, Any] = {**scenes[0].camera._asdict(), "corner": list(frame.corner), "side": frame.side}
    fields = xr.Dataset(
        {"field": ((ITEM, *DIMS, "feature"), values, attrs)},
        coords={"box": ((ITEM, "corner"), np.stack([fitted.box for fitted in found]))}
        | {key: dataset[key] for key in ("pose", "file", "name")},
        attrs={KIND_OF_SIGNAL: "scenes"},
    )
    spread = float(values.max()) - float(values.min())
    return fields, float(psnr_of(error / spread**2)) if error > 0 and spread > 0 else 200.0


def _reached(
    scenes: list[Views], frame: Frame, model: PatchModel, psnr: float, refined: Any, name: str
) -> tuple[int, list[Fitted]]:
    """The coarsest rate at which given views have a PSNR, and the fields for it."""
    first, last, best = 0, len(_RATES), None
    highest = 0.0
    while first < last:
        middle = (first + last) // 2
        found = refined(_RATES[middle])
        decoded = coded(model, np.stack([fitted.cells for fitted in found]), _RATES[middle])[1]
        reached = float(np.mean([
            mean_psnr(v.images[:: -(-len(v.images) // _JUDGED)], field.views(
                cells, fitted.box, frame, v.camera, v.poses[:: -(-len(v.images) // _JUDGED)]))
            for v, fitted, cells in zip(scenes, found, decoded, strict=True)
        ]))  # fmt: skip
        highest = max(highest, reached)
        if reached >= psnr:
            best, last = (_RATES[middle], found), middle
        else:
            first = middle + 1
    if best is None:
        raise InputError(f"{name}: views reach {highest:.1f} dB with this model, not {psnr:g}; ask for less")
    return best


def mean_psnr(views: np.ndarray, others: np.ndarray) -> float:
    """The mean over views ``[V, y, x, 3]`` uint8 of their PSNR in dB beside others."""
    errors = np.square(views.astype(np.float64) - others).mean((1, 2, 3)) / 255**2
    return float(np.mean([float(psnr_of(max(error, 1e-10))) for error in errors]))


def rendered(dataset: xr.Dataset, name: str, at: tuple[Camera, np.ndarray, list[str]] | None = None) -> xr.Dataset:
    """Views of the scenes whose fields an archive holds.

    Parameters
    ----------
    dataset : xarray.Dataset
        The archive's content.
    name : str
        What messages begin with.
    at : (Camera, numpy.ndarray, list of str), optional
        Camera, poses ``[V, 4, 4]`` and names of images to render. Default: those of the given views.

    Returns
    -------
    xarray.Dataset
        As `vcinr.kinds.scenes.join` makes it.

    Raises
    ------
    CorruptError
        For a content that no encoder makes.
    """
    values = dataset["field"]
    try:
        if values.dims != (ITEM, *DIMS, "feature") or values.sizes["feature"] != FEATURES:
            raise ValueError
        camera = Camera(*(int(np.ravel(values.attrs[k])[0]) for k in ("height", "width")),
                        *(float(np.ravel(values.attrs[k])[0]) for k in CAMERA))  # fmt: skip
        corner = [float(v) for v in np.ravel(values.attrs["corner"])]
        frame = Frame((corner[0], corner[1], corner[2]), float(np.ravel(values.attrs["side"])[0]))
        boxes, cells = dataset["box"].values, values.values.astype(np.float64)
        poses, files = dataset["pose"].values, list(dataset["file"].values)
        if boxes.shape != (len(cells), 6) or not (boxes[:, 3:] > boxes[:, :3]).all() or not np.isfinite(cells).all():
            raise ValueError
    except (KeyError, ValueError, IndexError, TypeError):
        raise CorruptError(f"{name}: it holds no fields of scenes that can be rendered; copy it again") from None
    if at is not None:
        camera, poses, files = at
    shown = [
        field.views(one, box, frame, camera, poses[i] if poses.ndim == 4 else poses)
        for i, (one, box) in enumerate(zip(cells, boxes, strict=True))
    ]
    seen = {key: getattr(camera, key) for key in CAMERA}
    dims = ("view", "row", "column") if poses.ndim == 3 else (ITEM, "view", "row", "column")
    return xr.Dataset(
        {"views": ((ITEM, "view", "y", "x", "channel"), np.stack(shown), seen)},
        coords={"pose": (dims, poses), "file": ("view", np.array(files, object)), "name": dataset["name"]},
        attrs={KIND_OF_SIGNAL: "scenes"},
    )
