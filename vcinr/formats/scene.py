"""Scenes: views of an object at known poses, as images beside a transforms.json in the convention of NeRF.

The variable is ``views(view, y, x, channel)`` uint8, in RGB on white. Its coordinates are ``pose(view, row, column)``
float64, each camera's axes (x right, y up, z backwards) and place in the world's coordinates as a 4 by 4 matrix, and
``file(view)``, the names of the images as the file has them. Its attributes are the focal lengths ``fl_x`` and ``fl_y``
and the optical centre ``cx`` and ``cy``, in pixels from the left and upper edge.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import File, Format, Groups, only, values_of

FILE = "transforms.json"
"""The usual name."""
CAMERA = ("fl_x", "fl_y", "cx", "cy")
"""Names of the attributes that say how a camera sees."""


def recognises(file: File) -> bool:
    """Whether a file is JSON that begins as that of a scene."""
    head = file.head.lstrip()
    return head.startswith(b"{") and any(k in head for k in (b'"camera_angle_x"', b'"fl_x"', b'"frames"'))


def read(path: Path, name: str) -> Groups:
    """Read a local file and the images that it names."""
    scene = _json(path, name)
    frames = scene.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{name}: it has no frames; give a transforms.json with images and poses")
    poses = poses_of(scene, name)
    files = [str(frame.get("file_path", "")) for frame in frames]
    views = [_image(path.parent, file, name) for file in files]
    if len({view.shape for view in views}) > 1:
        raise InputError(f"{name}: its images differ in size; scale them to one size")
    whole = np.stack(views)
    camera = camera_of(scene, whole.shape[1], whole.shape[2], name)
    variables: dict[str, Any] = {
        "views": (("view", "y", "x", "channel"), whole, camera),
        "pose": (("view", "row", "column"), poses),
        "file": (("view",), np.array(files, dtype=object)),
    }
    return {"": xr.Dataset(variables).set_coords(["pose", "file"])}


def read_folder(path: str, name: str) -> Groups:
    """Read the transforms.json of a folder."""
    return read(Path(path) / FILE, name)


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        scene = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{name}: not valid JSON ({' '.join(str(error).split())}); copy it again") from None
    if not isinstance(scene, dict):
        raise InputError(f"{name}: it is no description of a scene; give a transforms.json")
    return scene


def cameras(path: str | Path) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    """Read the poses of a transforms.json, whose images need not exist.

    Returns
    -------
    poses : numpy.ndarray
        float64 ``[V, 4, 4]``.
    files : list of str
        The names of the images; ``r_0``, ``r_1``, ... where it gives none.
    scene : dict
        All that the file says.

    Raises
    ------
    InputError
        For a file that cannot be read or has no poses.
    """
    name = str(path)
    try:
        scene = _json(Path(path), name)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check the path") from None
    poses = poses_of(scene, name)
    return poses, [str(frame.get("file_path", f"r_{i}")) for i, frame in enumerate(scene["frames"])], scene


def poses_of(scene: dict[str, Any], name: str) -> np.ndarray:
    """The poses of a scene's frames, float64 ``[V, 4, 4]``; raises InputError, which begins with `name`, if wrong."""
    try:
        poses = np.array([frame["transform_matrix"] for frame in scene["frames"]], np.float64)
    except (KeyError, TypeError, ValueError):
        poses = np.empty(0)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not np.isfinite(poses).all():
        raise InputError(f"{name}: every frame needs a transform_matrix of 4 by 4 numbers; add what is missing")
    turns = poses[:, :3, :3]
    if np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max() > 1e-3:
        raise InputError(f"{name}: a transform_matrix is no rotation with a translation; scale its axes to length 1")
    return poses


def camera_of(scene: dict[str, Any], height: int, width: int, name: str) -> dict[str, float]:
    """Focal lengths and optical centre in pixels; raises InputError, which begins with `name`, where none are given."""
    try:
        given = "fl_x" in scene
        across = float(scene["fl_x"]) if given else width / 2 / math.tan(float(scene["camera_angle_x"]) / 2)
        down = float(scene.get("fl_y", across))
        centre = float(scene.get("cx", width / 2)), float(scene.get("cy", height / 2))
        camera = dict(zip(CAMERA, (across, down, *centre), strict=True))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise InputError(f"{name}: no camera_angle_x and no fl_x; add the camera's angle, in radians") from None
    if not all(math.isfinite(v) for v in camera.values()) or min(across, down) <= 0:
        raise InputError(f"{name}: its camera sees nothing; camera_angle_x must lie between 0 and pi")
    return camera


def _image(folder: Path, file: str, name: str) -> np.ndarray:
    """An image as uint8 ``[y, x, 3]`` on white; its suffix may be left out, as NeRF's files do."""
    from PIL import Image, UnidentifiedImageError

    path = folder / file
    if not file or not path.is_file():
        path = folder / f"{file}.png"
    try:
        with Image.open(path) as opened:
            samples = np.asarray(opened.convert("RGBA")).astype(np.int64)
    except FileNotFoundError:
        raise InputError(f"{name}: its image {file!r} does not exist; put it beside the file") from None
    except (OSError, UnidentifiedImageError, ValueError):
        raise InputError(f"{name}: its image {file!r} cannot be read; copy it again") from None
    opacity = samples[..., 3:]
    return ((samples[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a transforms.json and, beside it, the images as PNG files."""
    from PIL import Image

    only(dataset, path, "views", "pose", "file")
    views = values_of(dataset, path, "views", ("view", "y", "x", "channel"))
    if views.dtype != np.uint8 or views.shape[-1] != 3:
        raise InputError(f"{path}: views must be uint8 with three channels; convert them")
    attrs = dataset["views"].attrs
    files = image_names([str(f) for f in dataset["file"].values])
    camera = {key: float(np.ravel(attrs[key])[0]) for key in CAMERA}
    scene = {
        "camera_angle_x": 2 * math.atan(views.shape[2] / 2 / camera["fl_x"]), **camera,
        "w": views.shape[2], "h": views.shape[1],
        "frames": [
            {"file_path": file, "transform_matrix": pose.tolist()}
            for file, pose in zip(files, dataset["pose"].values, strict=True)
        ],
    }  # fmt: skip
    for file, view in zip(files, views, strict=True):
        place = path.parent / file
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view).save(place)
    path.write_text(json.dumps(scene, indent=1))


def image_names(files: list[str]) -> list[str]:
    """Names of PNG files below a folder for images of any names, no two of them alike."""
    plain = [Path(*[part for part in Path(file).parts if part not in ("/", "..")]) for file in files]
    names = [str(p.with_suffix(".png") if p.suffix else p.with_name(p.name + ".png")) if p.name else "" for p in plain]
    if len(set(names)) < len(names) or not all(names):
        return [f"r_{i}.png" for i in range(len(files))]
    return names


FORMAT = Format(
    name="transforms.json",
    recognises=recognises,
    read=read,
    suffixes=(".json",),
    by_suffix=True,
    members=(FILE,),
    read_folder=read_folder,
    written=(".json",),
    write=write,
)
