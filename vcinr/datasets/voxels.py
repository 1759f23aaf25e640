"""Triangle meshes (Wavefront OBJ) as solid occupancy grids.

A library of meshes is a zip file with a catalogue, as Sweet Home 3D's .sh3f files are, or a folder of .obj files.
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

from vcinr.errors import InputError
from vcinr.progress import Clock, Progress, Watch, silent

# Longest edge, in voxels, of the pieces into which triangles are cut. Every point of the surface is then within 0.6 *
# 0.5 voxels of a sample. Up to 0.5, no path from voxel to voxel through their faces leaks through the surface.
_SPACING = 0.5
_BATCH = 2**20  # samples in memory at a time
_CATALOGUE = "PluginFurnitureCatalog.properties"

Mesh = tuple[str, Callable[[], bytes]]


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


def triangles_of(data: bytes, name: str) -> np.ndarray:
    """Triangles of an OBJ file.

    Parameters
    ----------
    data : bytes
        The file's content.
    name : str
        What error messages begin with.

    Returns
    -------
    numpy.ndarray
        float64 ``[T, 3, 3]`` (triangle, corner, axis x y z); polygons are cut into fans.

    Raises
    ------
    InputError
        For a file without faces, or with numbers that make no sense.
    """
    vertices: list[bytes] = []
    polygons: dict[int, list[int]] = {}  # by number of corners: the corners of all such polygons, in a row
    try:
        for line in data.replace(b"\\\n", b" ").replace(b"\\\r\n", b" ").splitlines():
            kind = line[:2].replace(b"\t", b" ")
            if kind == b"v ":
                vertices.append(line[2:])
            elif kind == b"f ":
                corners = [int(c.partition(b"/")[0]) for c in line[2:].split()]
                if b"-" in line:  # negative numbers count back from the last vertex so far
                    corners = [c if c > 0 else len(vertices) + 1 + c for c in corners]
                polygons.setdefault(len(corners), []).extend(corners)
        points = np.loadtxt(vertices, usecols=(0, 1, 2), ndmin=2) if vertices else np.empty((0, 3))
    except ValueError as error:
        raise InputError(f"{name}: not a valid OBJ file ({' '.join(str(error).split())}); leave it out") from None
    fans = [np.empty((0, 3), np.int64)]
    for n, flat in polygons.items():
        if n < 3:
            continue
        corner = np.array(flat, np.int64).reshape(-1, n) - 1
        fans += [corner[:, [0, k, k + 1]] for k in range(1, n - 1)]
    index = np.concatenate(fans)
    if not len(index):
        raise InputError(f"{name}: it has no faces; leave it out")
    if index.min() < 0 or index.max() >= len(points) or not np.isfinite(points).all():
        raise InputError(
            f"{name}: its faces have vertices that do not exist, or its coordinates are not finite; leave it out"
        )
    return points[index]


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
