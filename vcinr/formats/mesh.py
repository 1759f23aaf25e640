"""Triangle meshes: STL, and PLY and GLB by the package trimesh, without colours and textures.

They are read as ``triangles(triangle, corner, axis)`` float64, as OBJ is (:mod:`vcinr.formats.obj`). Written are
triangles, or the surface of a solid shape ``occupancy(z, y, x)`` by the package scikit-image.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import Format, Groups, begins, flat_list, only, values_of

_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_VERTEX = re.compile(rb"^\s*vertex\s+(\S+)\s+(\S+)\s+(\S+)\s*$", re.MULTILINE)


def read(path: Path, name: str) -> Groups:
    """Read a local file: ``triangles(triangle, corner, axis)``."""
    return groups_of(triangles_of(path.read_bytes(), name))


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole."""
    return groups_of(triangles_of(stream.read(), name))


def groups_of(triangles: np.ndarray) -> Groups:
    """The groups of a mesh of triangles ``[T, 3, 3]``."""
    return {"": xr.Dataset({"triangles": (("triangle", "corner", "axis"), triangles)})}


def triangles_of(data: bytes, name: str) -> np.ndarray:
    """Triangles of an STL, PLY or GLB file.

    Parameters
    ----------
    data : bytes
        The file's content; its first bytes decide what it is.
    name : str
        What error messages begin with.

    Returns
    -------
    numpy.ndarray
        float64 ``[T, 3, 3]`` (triangle, corner, axis x y z), placed as the scene of a GLB file says.

    Raises
    ------
    InputError
        For a file that is damaged, has no faces, or has numbers that make no sense.
    """
    if data.startswith(b"glTF") or re.match(rb"ply\r?\n", data):
        triangles = _by_trimesh(data, "glb" if data.startswith(b"glTF") else "ply")
    else:
        triangles = _stl(data, name)
    if not len(triangles):
        raise InputError(f"{name}: it has no faces; leave it out")
    if not np.isfinite(triangles).all():
        raise InputError(f"{name}: its coordinates are not finite; leave it out")
    return triangles


def _by_trimesh(data: bytes, kind: str) -> np.ndarray:
    """Triangles of a PLY or GLB file, its vertices as they are."""
    import trimesh

    scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, process=False)
    if not any(isinstance(part, trimesh.Trimesh) for part in scene.geometry.values()):
        return np.empty((0, 3, 3))  # points alone
    return np.asarray(scene.to_mesh().triangles, np.float64)


def _stl(data: bytes, name: str) -> np.ndarray:
    """Triangles of an STL file, of text or of bytes."""
    count = int.from_bytes(data[80:84], "little")
    if data.lstrip().startswith(b"solid") and len(data) != 84 + count * _STL.itemsize:
        if not re.search(rb"endsolid[^\n]*\s*\Z", data):
            raise InputError(f"{name}: cut off, its last line is not 'endsolid'; copy it again")
        corners = np.array(_VERTEX.findall(data), dtype="S").astype(np.float64)
        if len(corners) % 3 or len(corners) != 3 * len(re.findall(rb"^\s*endfacet", data, re.MULTILINE)):
            raise InputError(f"{name}: facets without three vertices; is the file whole? copy it again")
        return corners.reshape(-1, 3, 3)
    if len(data) < 84 + count * _STL.itemsize:
        raise InputError(
            f"{name}: no STL file, or cut off: it has {len(data)} of {84 + count * _STL.itemsize} bytes; copy it again"
        )
    return np.frombuffer(data, _STL, count, offset=84)["corners"].astype(np.float64)


def surface(occupancy: np.ndarray) -> np.ndarray:
    """The surface of a solid shape, by marching cubes: closed, also where the shape touches the edge of its grid.

    Parameters
    ----------
    occupancy : numpy.ndarray
        ``[z, y, x]``; what is not 0 is inside.

    Returns
    -------
    numpy.ndarray
        float64 ``[T, 3, 3]`` (triangle, corner, axis x y z), in voxels: voxel i lies from i to i + 1. Corners are in
        the order that makes normals point outwards.
    """
    from skimage.measure import marching_cubes

    solid = np.pad((occupancy != 0).astype(np.float32), 1)
    points, faces, _, _ = marching_cubes(solid, 0.5)
    return (points[faces][..., ::-1] - 0.5).astype(np.float64)


def triangles_to_write(dataset: xr.Dataset, path: Path) -> np.ndarray:
    """The triangles of a data set, or the surface of the solid shape in it; raises InputError."""
    if "occupancy" not in dataset:
        only(dataset, path, "triangles")
        triangles = values_of(dataset, path, "triangles", ("triangle", "corner", "axis"))
        if triangles.shape[1:] != (3, 3):
            raise InputError(f"{path}: triangles have the shape {triangles.shape} and need 3 corners of 3 numbers")
        return triangles.astype(np.float64)
    only(dataset, path, "occupancy")
    solid = values_of(dataset, path, "occupancy", ("z", "y", "x"))
    if not solid.any():
        raise InputError(f"{path}: the shape is empty, so it has no surface; leave it out")
    attrs = dataset["occupancy"].attrs
    shift = np.array(flat_list(attrs.get("translate", [0.0, 0.0, 0.0])))
    return shift + surface(solid) * (flat_list(attrs["scale"])[0] / max(solid.shape) if "scale" in attrs else 1.0)


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write STL or GLB (float32), PLY (float64) or OBJ (decimal numbers)."""
    triangles = triangles_to_write(dataset, path)
    narrow = triangles.astype(np.float32)
    if path.suffix in (".stl", ".glb") and "triangles" in dataset and not np.array_equal(narrow, triangles):
        raise InputError(
            f"{path}: {path.suffix} files hold float32, and triangles have more digits; write .ply or .obj"
        )
    if path.suffix == ".stl":
        facets = np.zeros(len(narrow), _STL)
        facets["corners"] = narrow  # and no normals: readers compute them
        path.write_bytes(b"made by vcinr".ljust(80) + len(facets).to_bytes(4, "little") + facets.tobytes())
        return
    points, index = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    faces = index.reshape(-1, 3)
    if path.suffix == ".glb":
        import trimesh

        trimesh.Trimesh(points, faces, process=False).export(path, file_type="glb")
        return
    if path.suffix == ".obj":
        lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in points.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
        path.write_text("\n".join(lines) + "\n")
        return
    header = [
        "ply", "format binary_little_endian 1.0", f"element vertex {len(points)}",
        *(f"property double {axis}" for axis in "xyz"),
        f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header",
    ]  # fmt: skip
    table = np.zeros(len(faces), np.dtype([("n", "u1"), ("corners", "<i4", 3)]))
    table["n"], table["corners"] = 3, faces
    path.write_bytes("\n".join(header).encode() + b"\n" + points.astype("<f8").tobytes() + table.tobytes())


FORMAT = Format(
    name="STL, PLY and GLB",
    recognises=begins(b"glTF", b"ply\n", b"ply\r\n"),  # STL begins with anything
    read=read,
    read_stream=read_stream,
    suffixes=(".ply", ".stl", ".glb"),
    by_suffix=True,
    written=(".ply", ".stl", ".glb"),
    write=write,
)
