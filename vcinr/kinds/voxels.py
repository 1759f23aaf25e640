"""Solid shapes: occupancy of a grid of voxels, made of triangle meshes.

A selection is a library of meshes: a zip file with a catalogue, as Sweet Home 3D's .sh3f files are, or a folder of .obj
files. All libraries of a source become one data set of the archive.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vcinr.config import Positive, Selection, Source
from vcinr.errors import InputError
from vcinr.formats.obj import triangles_of
from vcinr.kinds.base import Kind, Opened, Options, check_dims
from vcinr.progress import Clock, Progress, Watch, silent

# Longest edge, in voxels, of the pieces into which triangles are cut. Every point of the surface is then within 0.6 *
# 0.5 voxels of a sample. Up to 0.5, no path from voxel to voxel through their faces leaks through the surface.
_SPACING = 0.5
_BATCH = 2**20  # samples in memory at a time
_CATALOGUE = "PluginFurnitureCatalog.properties"

Mesh = tuple[str, Callable[[], bytes]]


class VoxelOptions(Options):
    """Voxels along each axis, and the largest number of meshes of a library."""

    resolution: Positive = 64
    limit: Positive | None = None


def open_selection(path: str, selection: Selection, options: VoxelOptions, watch: Watch = silent) -> xr.Dataset:
    """Voxelise a library; its `select` may cut the dimension ``item``."""
    check_dims(selection.select, ["item"], selection.path)
    items = slice(*selection.select.get("item", (None, None)))
    return read_library(path, options.resolution, options.limit, items, watch)


def variables(source: Source, dataset: xr.Dataset) -> tuple[str, ...]:
    """Name the one variable that there is."""
    return ("occupancy",)


def members(opened: Opened) -> Opened:
    """Join all libraries along the dimension ``item``."""
    datasets = [dataset for _, dataset in opened]
    whole = xr.concat(datasets, "item", data_vars="minimal", coords="minimal", compat="override")
    return [("occupancy", whole)]


def read_library(
    path: str | Path,
    resolution: int,
    limit: int | None = None,
    items: slice = slice(None),
    watch: Watch = silent,
) -> xr.Dataset:
    """Voxelise the meshes of a library.

    Parameters
    ----------
    path : str or Path
        The library.
    resolution : int
        R, the number of voxels along each axis.
    limit : int, optional
        Largest number of meshes.
    items : slice
        Which meshes, in the order of the catalogue.
    watch : callable
        Is told of progress.

    Returns
    -------
    xarray.Dataset
        ``occupancy(item, z, y, x)`` uint8, 1 inside the object. The coordinates z, y, x are centres of voxels in the
        unit cube; ``library`` and ``name`` (item) are strings.

    Raises
    ------
    InputError
        For a mesh that cannot be read (the message names library and mesh), and where SciPy is missing.
    """
    library = Path(path).expanduser()
    meshes = _meshes(library)[items][:limit]
    if not meshes:
        raise InputError(f"{path}: no .obj meshes selected; give a .sh3f file or a folder of .obj files")
    occupancy = np.empty((len(meshes), resolution, resolution, resolution), np.uint8)
    clock = Clock(len(meshes))
    for i, (name, read) in enumerate(meshes):
        occupancy[i] = voxelise(triangles_of(read(), f"{path}: mesh {name!r}"), resolution)
        if (i + 1) % 10 == 0 or i + 1 == len(meshes):
            share = {"occupied": float(occupancy[i].mean())}
            watch(Progress(f"voxelise {library.stem}", i + 1, len(meshes), share, clock.left(i + 1)))
    centres = (np.arange(resolution) + 0.5) / resolution
    # Strings have variable length, because Zarr 3 has no agreed form of those of fixed length.
    names = np.array([name for name, _ in meshes], dtype=object)
    return xr.Dataset(
        {"occupancy": (("item", "z", "y", "x"), occupancy, {"units": "1", "long_name": "inside the object"})},
        coords={
            "z": centres,
            "y": centres,
            "x": centres,
            "library": ("item", np.full(len(meshes), library.stem, dtype=object)),
            "name": ("item", names),
        },
    )


def voxelise(triangles: np.ndarray, resolution: int) -> np.ndarray:
    """Solid occupancy of a surface, scaled to fill the unit cube.

    The longest side of the bounding box spans the cube; the others keep their proportions and are centred. A voxel is 1
    where the surface passes through it or encloses it.

    Parameters
    ----------
    triangles : numpy.ndarray
        ``[T, 3, 3]`` (triangle, corner, axis x y z).
    resolution : int
        R, the number of voxels along each axis.

    Returns
    -------
    numpy.ndarray
        uint8 ``[R, R, R]`` (z, y, x).
    """
    ndimage = _ndimage()
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    extent = max(float((high - low).max()), np.finfo(float).tiny)
    scaled = ((triangles - (low + high) / 2) / extent + 0.5) * resolution
    surface = np.zeros((resolution,) * 3, bool)
    edges = np.linalg.norm(scaled - np.roll(scaled, 1, axis=1), axis=2).max(axis=1)
    pieces = np.maximum(1, np.ceil(edges / _SPACING)).astype(np.int64)
    for n in np.unique(pieces):
        weights = _barycentric(int(n))
        chosen = scaled[pieces == n]
        step = max(1, _BATCH // len(weights))
        for start in range(0, len(chosen), step):
            points = np.tensordot(chosen[start : start + step], weights, axes=([1], [1]))  # [t, axis, sample]
            # Rounding must not scatter a face between two layers of voxels over both of them.
            cells = np.minimum((points + 1e-6).astype(np.intp), resolution - 1)
            x, y, z = cells.transpose(1, 0, 2)
            surface[z, y, x] = True
    return ndimage.binary_fill_holes(surface).astype(np.uint8)


def _ndimage() -> Any:
    """SciPy's module, imported only where it is needed."""
    try:
        from scipy import ndimage
    except ImportError:
        raise InputError("voxelising meshes needs SciPy; pip install vcinr[voxels]") from None
    return ndimage


def _barycentric(n: int) -> np.ndarray:
    """Barycentric weights ``[K, 3]`` of the corners of n * n equal pieces of a triangle."""
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    keep = i + j <= n
    return np.stack([i[keep], j[keep], n - i[keep] - j[keep]], axis=1) / n


def _meshes(library: Path) -> list[Mesh]:
    """Names of a library's meshes, and a function to read each."""
    if library.is_dir():
        files = sorted(library.rglob("*.obj"))
        return [(f.relative_to(library).with_suffix("").as_posix(), f.read_bytes) for f in files]
    try:
        with zipfile.ZipFile(library) as archive:
            members = archive.namelist()
            catalogue = archive.read(_CATALOGUE) if _CATALOGUE in members else b""
    except FileNotFoundError:
        raise InputError(f"{library}: no such file; check the path") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{library}: not a readable library of meshes ({error}); copy it again") from None
    named = _catalogue(catalogue)
    have = set(members)
    listed = {path: name for name, path in named if path in have}
    if not listed:
        listed = {m: m.removesuffix(".obj") for m in sorted(members) if m.endswith(".obj")}
    return [(name, _member(library, path)) for path, name in listed.items()]


def _member(library: Path, path: str) -> Callable[[], bytes]:
    """A function that reads a file of a zip library."""

    def read() -> bytes:
        try:
            with zipfile.ZipFile(library) as archive:
                return archive.read(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{library}: cannot read {path} ({error}); copy it again") from None

    return read


def _catalogue(data: bytes) -> list[tuple[str, str]]:
    """(name, path in the zip) of every .obj model, in the order of the catalogue.

    It is a file of Java properties, whose encoding is Latin-1.
    """
    entries: dict[str, dict[str, str]] = {}
    for line in io.StringIO(data.decode("latin-1")):
        if match := re.match(r"(name|model)#(\d+)\s*=\s*(.*?)\s*$", line):
            key, number, value = match.groups()
            value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), value)
            entries.setdefault(number, {})[key] = value
    return [
        (e.get("name", e["model"]), e["model"].lstrip("/"))
        for e in entries.values()
        if e.get("model", "").lower().endswith(".obj")
    ]


KIND = Kind(
    open=open_selection, variables=variables, members=members, signal_dims=("z", "y", "x"), options=VoxelOptions
)
