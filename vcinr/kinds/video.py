"""Video: frames of colours. Each file is one signal."""

from __future__ import annotations

from vcinr.kinds.base import Kind
from vcinr.kinds.per_file import file_kind

KIND: Kind = file_kind(
    "video", dims=("frame", "y", "x"), feature_dim="channel", endings=(".mkv", ".mp4"), tile=64, frames=24,
    network_tile=16,
    patches={
        "size": (1, 8, 8), "back": (0, 2, 2), "ahead": (0, 0, 8), "motion": 24, "group": 8, "experts": 8, "primed": 12,
    },
)  # fmt: skip
