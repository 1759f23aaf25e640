"""Images: grey, colours or many bands, of any size. Each file is one signal."""

from __future__ import annotations

from vcinr.kinds.base import Kind
from vcinr.kinds.per_file import file_kind

KIND: Kind = file_kind(
    "image",
    dims=("y", "x"),
    feature_dim="channel",
    endings=(".png", ".tif", ".tiff", ".webp"),
    tile=128,
    network_tile=32,
)
