"""Views of furniture, rendered by Embree from the meshes of a Debian package: the data of `benchmarks.scenes`.

A surface has the flat colour of its material in the .mtl file (textures and transparency are left out) and Lambert's
shading by one fixed light, so what is seen of a point does not depend on the view. The ground is white. Objects are
centred and scaled to fill the sphere of radius 0.5 around the origin, z up.
"""

from __future__ import annotations

import math
import posixpath
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIZE = 128  # pixels along a side of a view
ANGLE = math.radians(36)  # horizontal field of view
DISTANCE = 1.75  # of cameras from the origin
FITTED, UNSEEN = 24, 8
"""Numbers of views of an object that are given, and of others by which it is judged."""
_SUPERSAMPLED = 2
_LIGHT = np.array([0.5, -0.6, 0.8]) / np.linalg.norm([0.5, -0.6, 0.8])
_AMBIENT = 0.4
_MISSING = (0.7, 0.7, 0.7)  # colour of faces without a material
_CATALOGUE = "PluginFurnitureCatalog.properties"


class Mesh(NamedTuple):
    """A coloured mesh.

    Attributes
    ----------
    name : str
        Its path in the library, without the suffix.
    triangles : numpy.ndarray
        float64 ``[T, 3, 3]`` (triangle, corner, axis x y z), within the sphere of radius 0.5 around the origin.
    colours : numpy.ndarray
        float64 ``[T, 3]``, red, green and blue in [0, 1].
    """

    name: str
    triangles: np.ndarray
    colours: np.ndarray


def poses(count: int, turn: float = 0.0) -> np.ndarray:
    """Cameras that look at the origin from a spiral over the upper half of a sphere.

    Parameters
    ----------
    count : int
        Number of cameras.
    turn : float
        Angle by which the spiral is turned, in radians.

    Returns
    -------
    numpy.ndarray
        float64 ``[count, 4, 4]``: from a camera's axes (x right, y up, z backwards) to the world's (z up), as in the
        transforms.json of NeRF.
    """
    result = np.zeros((count, 4, 4))
    for i in range(count):
        height = 0.05 + 0.87 * (i + 0.5) / count  # sine of the elevation
        angle = turn + i * math.pi * (3 - math.sqrt(5))
        flat = math.sqrt(1 - height * height)
        back = np.array([flat * math.cos(angle), flat * math.sin(angle), height])
        right = np.array([-math.sin(angle), math.cos(angle), 0.0])
        result[i, :3] = np.stack([right, np.cross(back, right), back, DISTANCE * back], 1)
        result[i, 3, 3] = 1
    return result


def meshes(library: str | Path, limit: int | None = None, share: float = 0.0) -> list[Mesh]:
    """Read the meshes of a Sweet Home 3D library, every n-th where there are more than `limit`.

    With a `share` below 1 it is not the first of n that is taken, but the one after this share of them.
    """
    with zipfile.ZipFile(library) as archive:
        members = archive.namelist()
        wanted = {
            line.partition("=")[2].strip().lstrip("/")
            for line in archive.read(_CATALOGUE).decode("latin-1").splitlines()
            if line.startswith("model#")
        }
        paths = [m for m in sorted(members) if m.endswith(".obj") and m in wanted]
        if limit is not None and len(paths) > limit:
            paths = [paths[int((i + share) * len(paths) / limit)] for i in range(limit)]
        read = (_mesh(archive, members, path) for path in paths)
        return [mesh for mesh in read if mesh is not None]


def _mesh(archive: zipfile.ZipFile, members: list[str], path: str) -> Mesh | None:
    """A mesh with the colours of its materials; None where it has no faces."""
    vertices: list[list[str]] = []
    faces: list[tuple[int, int, int]] = []
    owners: list[int] = []
    palette: list[tuple[float, ...]] = [_MISSING]
    materials: dict[str, int] = {}
    current = 0
    for line in archive.read(path).decode("latin-1").replace("\\\n", " ").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            vertices.append(words[1:4])
        elif words[0] == "f":
            corners = [int(w.partition("/")[0]) for w in words[1:]]
            corners = [c - 1 if c > 0 else len(vertices) + c for c in corners]
            for k in range(1, len(corners) - 1):
                faces.append((corners[0], corners[k], corners[k + 1]))
                owners.append(current)
        elif words[0] == "usemtl":
            current = materials.get(line.partition("usemtl")[2].strip(), 0)
        elif words[0] == "mtllib":
            for name, colour in _materials(archive, members, path, line.partition("mtllib")[2].strip()).items():
                materials[name] = len(palette)
                palette.append(colour)
    if not faces:
        return None
    points = np.array(vertices, np.float64)
    points = np.stack([points[:, 0], -points[:, 2], points[:, 1]], 1)  # the files have y up
    triangles = points[np.array(faces)]
    triangles -= (triangles.min((0, 1)) + triangles.max((0, 1))) / 2
    triangles *= 0.5 / np.sqrt(np.square(triangles).sum(-1).max())
    return Mesh(path.removesuffix(".obj"), triangles, np.array(palette)[owners])


def _materials(archive: zipfile.ZipFile, members: list[str], path: str, name: str) -> dict[str, tuple[float, ...]]:
    """Diffuse colours by the name of their material."""
    file = posixpath.join(posixpath.dirname(path), name)
    if file not in members:
        return {}
    colours: dict[str, tuple[float, ...]] = {}
    material = ""
    for line in archive.read(file).decode("latin-1").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "newmtl":
            material = line.partition("newmtl")[2].strip()
            colours[material] = _MISSING
        elif len(words) > 3 and words[0] == "Kd":
            colours[material] = tuple(min(1.0, max(0.0, float(w))) for w in words[1:4])
    return colours


def render(mesh: Mesh, cameras: np.ndarray) -> np.ndarray:
    """Render views of a mesh.

    Parameters
    ----------
    mesh : Mesh
        The object.
    cameras : numpy.ndarray
        ``[V, 4, 4]``, from `poses`.

    Returns
    -------
    numpy.ndarray
        uint8 ``[V, SIZE, SIZE, 3]`` (view, row from above, column, colour).
    """
    from embreex import rtcore_scene
    from embreex.mesh_construction import TriangleMesh

    scene = rtcore_scene.EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(mesh.triangles, np.float32))
    normals = np.cross(mesh.triangles[:, 1] - mesh.triangles[:, 0], mesh.triangles[:, 2] - mesh.triangles[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    side = SIZE * _SUPERSAMPLED
    focal = side / 2 / math.tan(ANGLE / 2)
    column, row = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    local = np.stack([(column - side / 2) / focal, (side / 2 - row) / focal, -np.ones_like(row)], -1).reshape(-1, 3)
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    views = np.empty((len(cameras), SIZE, SIZE, 3), np.uint8)
    for v, camera in enumerate(cameras):
        rays = local @ camera[:3, :3].T
        origins = np.broadcast_to(camera[:3, 3], rays.shape)
        hit = scene.run(np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(rays, np.float32))
        image = np.ones((side * side, 3))
        seen = hit >= 0
        normal, ray = normals[hit[seen]], rays[seen]
        normal = np.where((normal * ray).sum(1, keepdims=True) > 0, -normal, normal)  # towards the camera
        shade = _AMBIENT + (1 - _AMBIENT) * np.maximum(0, normal @ _LIGHT)
        image[seen] = mesh.colours[hit[seen]] * shade[:, None]
        image = image.reshape(SIZE, _SUPERSAMPLED, SIZE, _SUPERSAMPLED, 3).mean((1, 3))
        views[v] = np.rint(255 * image)
    return views
