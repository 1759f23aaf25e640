"""Compress files, arrays and data sets, and write archives back as files: what the command line and Python share.

The packages for files of signals such as images are imported where they are needed, so that reading an archive of
gridded data needs the base install alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vcinr.archive import read
from vcinr.archive import verify as verification
from vcinr.archive.contents import open_contents
from vcinr.archive.metadata import Data
from vcinr.codec.promise import Effort
from vcinr.errors import InputError
from vcinr.formats.base import KIND_OF_SIGNAL, VOXELS
from vcinr.formats.open import open_groups
from vcinr.models import AnyModel, load_model
from vcinr.patches.model import PatchModel
from vcinr.progress import Watch, silent

Input = Data | xr.DataArray | np.ndarray | str | Path | Sequence[str | Path]
"""What can be compressed: a data set, an array, or the path or URL of a file, or several of them."""
ARRAY = "array"
"""The name of an array that has none."""
_MARGIN = 1e-4  # dB by which rounding may change a PSNR


def compress(
    data: Input,
    target: str | Path,
    *,
    model: AnyModel | str | Path | Mapping[str, str | Path] | None = None,
    abs_error: float | Mapping[str, float] | None = None,
    rel_error: float | None = None,
    point_rel_error: float | None = None,
    psnr: float | None = None,
    rate: float | None = None,
    iou: float | None = None,
    variables: Sequence[str] | None = None,
    chunk: int | None = None,
    kind: str | None = None,
    resolution: int | None = None,
    overwrite: bool = False,
    effort: Effort = "best",
    watch: Watch = silent,
) -> dict[str, Any]:
    """Compress data into a Zarr archive within a bound, and keep all else as it is.

    Parameters
    ----------
    data : Dataset, DataTree, DataArray, numpy.ndarray, path, or sequence of paths
        What to compress. A data set is taken undecoded, as `vcinr.open_groups` opens it. Several files, or folders of
        files, share an archive where each is one signal, such as an image (:mod:`vcinr.kinds.files`).
    model : Model, PatchModel, path or mapping of str to path, optional
        The trained model to predict with; or several by patterns of the variables' names, of which the first that fits
        counts.
    target, abs_error, rel_error, point_rel_error, psnr, rate, iou, variables, chunk, overwrite, effort, watch
        As in :func:`vcinr.archive.write.compress`. `variables` are by default those that hold the signals of the files
        and, of other data, all suitable ones.
    kind : str, optional
        The kind of signal (:mod:`vcinr.kinds`) of files of which each is one. Default: it is seen from the files.
    resolution : int, optional
        Voxels along each axis that meshes become (:mod:`vcinr.kinds.shape`). A single mesh stays one unless this or
        the kind "shape" is given.

    Returns
    -------
    dict
        As :func:`vcinr.archive.write.compress`.

    Raises
    ------
    InputError, ModelError, BoundError
        As :func:`vcinr.archive.write.compress`, and for files that cannot be read or do not go together.

    Examples
    --------
    >>> vcinr.compress(["a.png", "b.png"], "photos.zip", model="photos.vcinr", psnr=34)  # doctest: +SKIP
    >>> vcinr.compress(np.random.rand(8, 64, 64), "noise.zarr", abs_error=0.01)  # doctest: +SKIP
    """
    from vcinr.archive import write  # only here: readers import no search
    from vcinr.archive.jobs import Models

    loaded: Models
    if isinstance(model, Mapping):
        loaded = {pattern: load_model(path) for pattern, path in model.items()}
    else:
        loaded = load_model(model) if isinstance(model, str | Path) else model
    opened, signals = _opened(data, kind, resolution)
    if isinstance(loaded, PatchModel) and loaded.provenance.get("method") == "scenes":
        others = {
            "abs_error": abs_error, "rel_error": rel_error, "point_rel_error": point_rel_error, "rate": rate, "iou": iou
        }  # fmt: skip
        opened, psnr = _fields(opened, loaded, psnr, [k for k, v in others.items() if v is not None], watch)
        signals, variables = ["field"], None
        chunk = chunk or opened[""].sizes["item"]
    return write.compress(
        opened, target, model=loaded, abs_error=abs_error, rel_error=rel_error, point_rel_error=point_rel_error,
        psnr=psnr, rate=rate, iou=iou, variables=variables or signals, chunk=chunk, overwrite=overwrite, effort=effort,
        watch=watch,
    )  # fmt: skip


def decompress(archive: str | Path, target: str | Path) -> list[Path]:
    """Write the contents of an archive to files.

    Parameters
    ----------
    archive : str or Path
        The archive: a folder, a zip file or an fsspec URL.
    target : str or Path
        A name that ends in .nc or .nc4 for a netCDF file. For an archive of signals such as images also a folder, which
        gets their files, or the file for a single signal.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    InputError
        When there is no archive, a file exists or cannot be written, or its format has no form for something.
    CorruptError
        When anything in the archive is not as it was written.
    """
    target = Path(target)
    groups = {} if target.suffix in (".nc", ".nc4") else read.raw_groups(archive)
    if not groups or KIND_OF_SIGNAL not in groups[""].attrs:
        read.decompress(archive, target)
        return [target]
    files = _kinds_files()
    if _is_fields(groups[""].attrs, groups[""]):
        from vcinr.scenes import sets

        groups = {"": sets.rendered(groups[""].load(), str(archive))}
    kind = files.kind_of_archive(groups[""])
    if kind is None:
        raise InputError(f"{archive}: it holds signals of a kind that this vcinr does not know; upgrade it")
    written: list[Path] = files.write_files(files.separated(groups), kind, target)
    return written


def render(archive: str | Path, target: str | Path, poses: str | Path) -> list[Path]:
    """Render the scenes of an archive at any poses.

    Parameters
    ----------
    archive : str or Path
        An archive of scenes: a folder, a zip file or an fsspec URL.
    target : str or Path
        The folder to write. Each scene has a folder in it, of a transforms.json and PNG files.
    poses : str or Path
        A transforms.json with the poses; its images need not exist. Its camera is taken where it has one with the size
        of views (``w``, ``h``), and otherwise that of the archive.

    Returns
    -------
    list of Path
        The transforms.json files that were written.

    Raises
    ------
    InputError
        When there is no archive, or one without fields of scenes, and for poses that cannot be read or a target that
        exists.
    CorruptError
        When anything in the archive is not as it was written.

    Examples
    --------
    >>> vcinr.render("chairs.zip", "views/", "poses/transforms.json")  # doctest: +SKIP
    """
    from vcinr.formats.scene import camera_of, cameras, image_names
    from vcinr.scenes import sets
    from vcinr.scenes.field import Camera

    groups = read.raw_groups(archive)
    if not _is_fields(groups[""].attrs, groups[""]):
        raise InputError(f"{archive}: it holds no scenes that can be rendered; compress some with a model of scenes")
    matrices, files, scene = cameras(poses)
    dataset = groups[""].load()
    attrs = dict(dataset["field"].attrs)
    if {"w", "h"} <= set(scene):
        try:
            height, width = int(scene["h"]), int(scene["w"])
        except (TypeError, ValueError):
            height = width = 0
        if not (0 < height <= 1 << 14 and 0 < width <= 1 << 14):
            raise InputError(f"{poses}: w and h must be sizes in pixels; correct them")
        attrs |= {"height": height, "width": width, **camera_of(scene, height, width, str(poses))}
    camera = Camera(*(attrs[key] for key in Camera._fields))
    shown = sets.rendered(dataset, str(archive), (camera, matrices, image_names(files)))
    kinds_files = _kinds_files()
    kind = kinds_files.kind_of_archive(shown)
    target = Path(target)
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: exists already and is no folder; choose another place or remove it")
    written: list[Path] = kinds_files.write_files(kinds_files.separated({"": shown}), kind, target)
    return written


def verify(
    archive: str | Path, against: Input | None = None, *, watch: Watch = silent
) -> tuple[list[str], dict[str, Any]]:
    """Decode every chunk of an archive and, beside the original, check every bound.

    Parameters
    ----------
    archive : str or Path
        The archive.
    against : as `data` of `compress`, optional
        The original.
    watch : callable
        Is told of each chunk.

    Returns
    -------
    problems, facts : list of str, dict
        As :func:`vcinr.archive.verify.verify`; :func:`vcinr.archive.verify.whole` sums the facts up.

    Raises
    ------
    InputError, CorruptError
        As :func:`vcinr.archive.verify.verify`, and for files that cannot be read.
    """
    root = open_contents(archive).root  # no array is decoded here: those that are damaged are named below
    attrs: Mapping[str, Any] = root.attrs
    if against is not None and _is_fields(attrs, root):
        raise InputError(
            f"{archive}: it holds fields of scenes, whose views have no bound; verify it without the originals"
        )
    original = None if against is None else _opened(against, attrs.get(KIND_OF_SIGNAL), attrs.get(VOXELS))[0]
    return verification.verify(archive, original, watch=watch)


def _is_fields(attrs: Mapping[Any, Any], members: Iterable[Any]) -> bool:
    """Whether an archive, by the attributes and the members of its root, holds the fields of scenes."""
    return attrs.get(KIND_OF_SIGNAL) == "scenes" and "field" in set(members)


def _fields(
    opened: Data, model: PatchModel, psnr: float | None, bounds: Sequence[str], watch: Watch
) -> tuple[dict[str, xr.Dataset], float]:
    """The fields of scenes, and the PSNR that the archive must reach to hold them as they were found."""
    from vcinr.scenes import sets

    groups = {"": opened} if isinstance(opened, xr.Dataset) else opened
    root = groups.get("") if isinstance(groups, dict) else None
    if root is None or "views" not in root or "name" not in root.coords:
        raise InputError("the model is of scenes, and the data are none; give transforms.json files")
    if bounds:
        raise InputError(
            f"{bounds[0]}: views that a model renders keep no such bound; ask for psnr, the mean over views, or "
            "leave out the model"
        )
    fields, reached = sets.fields_of(root, model, psnr=psnr, watch=watch)
    return {"": fields}, reached - _MARGIN


def _opened(
    data: Input, kind: str | None = None, resolution: int | None = None
) -> tuple[Data, list[str] | None]:  # fmt: skip
    """A data set or data sets by group, and the variables that hold the signals of files of which each is one."""
    if isinstance(data, np.ndarray):
        data = xr.DataArray(data, name=ARRAY)
    if isinstance(data, xr.DataArray):
        name = ARRAY if data.name is None else str(data.name)
        return data.to_dataset(name=name), [name]
    if not isinstance(data, str | Path | list | tuple):
        return data, None  # type: ignore[return-value]
    paths = [str(data)] if isinstance(data, str | Path) else [str(path) for path in data]
    if not paths:
        raise InputError("no files are given; name one at least")
    try:
        files = _kinds_files()
    except InputError:
        if len(paths) > 1:
            raise
        return open_groups(paths[0]), None
    groups, variables = files.open_files(paths, kind, resolution)
    return groups, variables


def _kinds_files() -> Any:
    """The module that joins and separates files; raises InputError where the packages for it are missing."""
    try:
        from vcinr.kinds import files
    except ImportError as error:
        raise InputError(
            f"files of signals such as images need the package {error.name}: pip install 'vcinr[formats]'"
        ) from None
    return files
