"""Scenes: posed views of an object. Each transforms.json, with its images, is one signal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vcinr.config import Selection, Source
from vcinr.errors import ConfigError, InputError
from vcinr.formats.base import KIND_OF_SIGNAL, Groups
from vcinr.formats.open import open_dataset
from vcinr.formats.scene import FILE, image_names
from vcinr.kinds.base import Kind, Opened, Options, cut
from vcinr.progress import Watch, silent
from vcinr.signals import Signals

NAME = "scenes"
ITEM = "item"


def _open(path: str, selection: Selection, options: Any, watch: Watch = silent) -> xr.Dataset:
    return cut(open_dataset(path), selection.select, selection.path)


def _variables(source: Source, dataset: xr.Dataset) -> tuple[str, ...]:
    return ("views",)


def name_of(path: str) -> str:
    """The name of a scene: that of its folder, or of its file where it is not the usual one."""
    place = Path(path)
    if place.name == FILE:
        place = place.resolve().parent
    return place.name.removesuffix(".json")


def _no_signals(source: Source, options: Options) -> Signals:
    raise ConfigError(
        f"{source.train[0].path if source.train else 'source'}: kind scenes has no stages, since its fields are found "
        "through a renderer; train with `vcinr train --kind scenes`"
    )


def join(opened: Opened) -> Groups:
    """Join scenes, all of which need views of one size and number by one camera.

    Parameters
    ----------
    opened : list of (str, xarray.Dataset)
        Paths and data sets, as `vcinr.formats.scene` reads them.

    Returns
    -------
    dict
        The root group alone: ``views(item, view, y, x, channel)``, ``name(item)``, ``file(view)`` and ``pose``, which
        has the dimension ``item`` only where poses differ between scenes.

    Raises
    ------
    InputError
        For a file that is no scene, scenes that differ, and two of one name; the message names the file.
    """
    opened = sorted(opened, key=lambda o: name_of(o[0]))
    first_path, first = opened[0]
    names: list[str] = []
    for path, dataset in opened:
        if "views" not in dataset.data_vars:
            have = ", ".join(map(str, dataset.data_vars)) or "nothing"
            raise InputError(f"{path}: no views, it holds {have}; compress it on its own")
        if dataset["views"].shape != first["views"].shape:
            raise InputError(
                f"{path}: its views differ in number or size from those of {first_path}; compress it apart"
            )
        if dataset["views"].attrs != first["views"].attrs:
            raise InputError(f"{path}: its camera is not that of {first_path}; compress it apart")
        if name_of(path) in names:
            raise InputError(f"{path}: two scenes are called {name_of(path)}; rename a folder")
        names.append(name_of(path))
    poses = np.stack([dataset["pose"].values for _, dataset in opened])
    if (poses == poses[0]).all():
        pose: tuple[tuple[str, ...], np.ndarray] = (("view", "row", "column"), poses[0])
    else:
        pose = ((ITEM, "view", "row", "column"), poses)
    files = [tuple(dataset["file"].values) for _, dataset in opened]
    file = image_names(list(files[0])) if len(set(files)) == 1 else image_names([""] * len(files[0]))
    views = np.stack([dataset["views"].values for _, dataset in opened])
    joined = xr.Dataset(
        {"views": ((ITEM, "view", "y", "x", "channel"), views, first["views"].attrs)},
        coords={"pose": pose, "file": ("view", np.array(file, object)), "name": (ITEM, np.array(names, object))},
        attrs={KIND_OF_SIGNAL: NAME},
    )
    return {"": joined}


def separate(groups: Groups) -> Opened:
    """Take joined scenes apart: inverse of `join`; paths are NAME/transforms.json."""
    whole = groups[""].load()
    result: Opened = []
    for i, name in enumerate(whole["name"].values):
        scene = whole.isel({ITEM: i}).drop_vars("name")
        scene.attrs = {}
        result.append((f"{name}/{FILE}", scene))
    return result


KIND = Kind(
    open=_open, variables=_variables, signal_dims=("y", "x"), variable="views", dims=("view", "y", "x"),
    feature_dim="channel", endings=(".json",), join=join, separate=separate, method="experts",
    signals=_no_signals,
    patches={"size": (2, 2, 2), "back": (1, 1, 1), "ahead": (0, 1, 1), "experts": 12, "count": 60_000, "psnr": 27.0},
)  # fmt: skip
