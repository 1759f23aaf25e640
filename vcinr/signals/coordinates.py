"""Coordinate systems: how the positions of a signal's samples enter the network.

A *system* turns the axes of a grid (one 1-D float64 array an axis) into network inputs ``[P, d_in]``
float32, P = product of the axis lengths in C order. A system is described by a small JSON-able mapping, which
travels in the model, so the same place on Earth has the same input whatever grid an archive uses.

``box``     each axis scaled to [-1, 1] over the training axes' extent; d_in = number of axes.
``sphere``  (latitude, longitude) in degrees to unit vectors (cos lat cos lon, cos lat sin lon, sin lat), as in
            COIN++ (Dupont et al. 2022, section 4.3): no seam at the date line, no singular poles; d_in = 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vcinr.errors import InputError


def box(axes: Sequence[np.ndarray]) -> dict[str, Any]:
    """The box system spanning `axes`."""
    return {"system": "box", "bounds": [[float(np.min(a)), float(np.max(a))] for a in axes]}


def sphere() -> dict[str, Any]:
    """The sphere system; axes are latitude and longitude in degrees, in this order."""
    return {"system": "sphere"}


def dimension(system: dict[str, Any]) -> int:
    """d_in of a system."""
    return 3 if system["system"] == "sphere" else len(system["bounds"])


def inputs(system: dict[str, Any], axes: Sequence[np.ndarray]) -> np.ndarray:
    """Network inputs ``[P, d_in]`` float32 of the grid spanned by `axes`.

    Raises InputError when the number of axes does not fit the system.
    """
    if system["system"] == "sphere":
        if len(axes) != 2:
            raise InputError(f"the sphere has the axes latitude and longitude, got {len(axes)} axes")
        lat, lon = np.meshgrid(*(np.deg2rad(np.asarray(a, np.float64)) for a in axes), indexing="ij")
        out = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    elif system["system"] == "box":
        bounds = system["bounds"]
        if len(axes) != len(bounds):
            raise InputError(f"the model has {len(bounds)} coordinate axes, the data {len(axes)}")
        scaled = [
            np.zeros(len(a)) if hi == lo else 2.0 * (np.asarray(a, np.float64) - lo) / (hi - lo) - 1.0
            for a, (lo, hi) in zip(axes, bounds, strict=True)
        ]
        out = np.stack(np.meshgrid(*scaled, indexing="ij"), axis=-1)
    else:
        raise InputError(f"unknown coordinate system {system['system']!r}")
    return np.ascontiguousarray(out.reshape(-1, out.shape[-1]), dtype=np.float32)
