"""Binvox: solid shapes as voxels, ``occupancy(z, y, x)`` uint8, 1 inside.

The attributes `translate` and `scale` place the shape: voxel i of N along the longest axis lies from
translate + scale * i / N to translate + scale * (i + 1) / N.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import Format, Groups, begins, flat_list, only, values_of


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    return {"": _dataset(path.read_bytes(), name)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole."""
    return {"": _dataset(stream.read(), name)}


def _dataset(data: bytes, name: str) -> xr.Dataset:
    header, found, body = data.partition(b"data\n")
    fields = {
        line.split()[0]: line.split()[1:] for line in header.decode("ascii", "replace").splitlines() if line.split()
    }
    try:
        x, z, y = (int(n) for n in fields["dim"])
        translate = [float(v) for v in fields.get("translate", ["0", "0", "0"])]
        (scale,) = (float(v) for v in fields.get("scale", ["1"]))
    except (KeyError, ValueError):
        raise InputError(f"{name}: its header is damaged; copy it again") from None
    if not found or min(x, y, z) < 1 or len(translate) != 3:
        raise InputError(f"{name}: its header is damaged; copy it again")
    runs = np.frombuffer(body[: len(body) // 2 * 2], np.uint8).reshape(-1, 2)
    count = int(runs[:, 1].sum(dtype=np.int64))
    if count != math.prod((x, y, z)):
        raise InputError(f"{name}: it has {count} of {math.prod((x, y, z))} voxels; copy it again")
    if runs.size and runs[:, 0].max() > 1:
        raise InputError(f"{name}: it has voxels that are neither 0 nor 1; copy it again")
    voxels = np.repeat(runs[:, 0], runs[:, 1]).reshape(x, z, y).transpose(1, 2, 0)
    attrs = {"translate": translate, "scale": scale}
    return xr.Dataset({"occupancy": (("z", "y", "x"), np.ascontiguousarray(voxels), attrs)})


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write runs of equal voxels."""
    only(dataset, path, "occupancy")
    voxels = values_of(dataset, path, "occupancy", ("z", "y", "x"))
    if not voxels.size or not ((voxels == 0) | (voxels == 1)).all():
        raise InputError(f"{path}: occupancy must be 0 or 1 everywhere; round it, or write .nrrd")
    attrs = dataset["occupancy"].attrs
    translate = [float(v) for v in flat_list(attrs.get("translate", [0.0, 0.0, 0.0]))]
    scale = float(flat_list(attrs.get("scale", 1.0))[0])
    z, y, x = voxels.shape
    header = f"#binvox 1\ndim {x} {z} {y}\ntranslate {' '.join(map(repr, translate))}\nscale {scale!r}\ndata\n".encode()
    flat = voxels.astype(np.uint8).transpose(2, 0, 1).ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] ^ 1))  # of runs
    lengths = np.diff(starts, append=flat.size)
    pieces = -(-lengths // 255)
    counts = np.full(int(pieces.sum()), 255, np.uint8)
    counts[np.cumsum(pieces) - 1] = lengths - 255 * (pieces - 1)
    path.write_bytes(header + np.stack([np.repeat(flat[starts], pieces), counts], axis=1).tobytes())


FORMAT = Format(
    name="binvox",
    recognises=begins(b"#binvox"),
    read=read,
    read_stream=read_stream,
    suffixes=(".binvox",),
    written=(".binvox",),
    write=write,
)
