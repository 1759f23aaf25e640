"""Video: frames of colours. Each file is one signal."""

from __future__ import annotations

from vcinr.config import Positive
from vcinr.kinds.base import Kind, Options
from vcinr.kinds.per_file import file_kind


class TileOptions(Options):
    """Length of the tiles from which a model learns, along each dimension, and the largest number of them in a file."""

    tile: Positive = 16
    tiles: Positive = 500


KIND: Kind = file_kind(
    "video", dims=("frame", "y", "x"), feature_dim="channel", endings=(".mkv", ".mp4"),
    patches={"size": (1, 8, 8), "back": (1, 2, 2), "ahead": (0, 2, 8), "experts": 4}, options=TileOptions,
)  # fmt: skip
