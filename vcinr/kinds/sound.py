"""Sound: one channel or several, of any length. Each file is one signal."""

from __future__ import annotations

from vcinr.kinds.base import Kind
from vcinr.kinds.per_file import file_kind

KIND: Kind = file_kind(
    "sound", dims=("time",), feature_dim="channel", endings=(".wav", ".flac", ".aiff"), ragged=True,
    patches={"psnr": 50.0}, tile=4096, network_tile=800,
)  # fmt: skip
