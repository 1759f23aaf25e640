"""Volumes: values on a grid in space, such as scans of a brain. Each file is one signal."""

from __future__ import annotations

from vcinr.kinds.base import Kind
from vcinr.kinds.per_file import file_kind

KIND: Kind = file_kind(
    "volume", dims=("z", "y", "x"), endings=(".nii.gz", ".nii", ".nrrd", ".tif", ".tiff"),
    patches={"psnr": 38.0, "experts": 4}, tile=60, network_tile=16,
)  # fmt: skip
