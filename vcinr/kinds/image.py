"""Images: grey, colours or many bands, of any size. Each file is one signal."""

from __future__ import annotations

from vcinr.config import Positive
from vcinr.kinds.base import Kind, Options
from vcinr.kinds.per_file import file_kind


class TileOptions(Options):
    """Length of the tiles from which a model learns, along each dimension, and the largest number of them in a file."""

    tile: Positive = 64
    tiles: Positive = 500


KIND: Kind = file_kind(
    "image", dims=("y", "x"), feature_dim="channel", endings=(".png", ".tif", ".tiff", ".webp"), options=TileOptions
)
