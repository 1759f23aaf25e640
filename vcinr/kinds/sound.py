"""Sound: one channel or several, of any length. Each file is one signal."""

from __future__ import annotations

from vcinr.config import Positive
from vcinr.kinds.base import Kind, Options
from vcinr.kinds.per_file import file_kind


class TileOptions(Options):
    """Length of the tiles from which a model learns, along each dimension, and the largest number of them in a file."""

    tile: Positive = 4096
    tiles: Positive = 500


KIND: Kind = file_kind(
    "sound", dims=("time",), feature_dim="channel", endings=(".wav", ".flac", ".aiff"), ragged=True,
    patches={"psnr": 50.0}, options=TileOptions,
)  # fmt: skip
