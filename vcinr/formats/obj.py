"""Wavefront OBJ: a mesh as its triangles, without materials, textures and normals."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from vcinr.errors import InputError
from vcinr.formats import mesh
from vcinr.formats.base import Format, Groups


def read(path: Path, name: str) -> Groups:
    """Read a local file: ``triangles(triangle, corner, axis)``."""
    return mesh.groups_of(triangles_of(path.read_bytes(), name))


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL."""
    return mesh.groups_of(triangles_of(stream.read(), name))


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


FORMAT = Format(
    name="OBJ",
    recognises=lambda file: False,  # it is text, and begins with anything
    read=read,
    read_stream=read_stream,
    suffixes=(".obj",),
    by_suffix=True,
    written=(".obj",),
    write=mesh.write,
)
