"""Volumes: values on a grid in space, such as scans of a brain. Each file is one signal."""

from __future__ import annotations

from vcinr.config import Positive
from vcinr.kinds.base import Kind, Options
from vcinr.kinds.per_file import file_kind


class TileOptions(Options):
    """Length of the tiles from which a model learns, along each dimension, and the largest number of them in a file."""

    tile: Positive = 32
    tiles: Positive = 500


KIND: Kind = file_kind(
    "volume", dims=("z", "y", "x"), endings=(".nii.gz", ".nii", ".nrrd", ".tif", ".tiff"),
    patches={"psnr": 38.0, "experts": 4}, options=TileOptions,
)  # fmt: skip
