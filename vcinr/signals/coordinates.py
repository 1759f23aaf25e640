"""Coordinate systems: how the positions of a signal's samples enter the network.

A *system* turns coordinates in the data's units into inputs of the network, ``[P, d_in]`` float32. It is described by
a small JSON-able mapping, which travels in the model, so the same place on Earth has the same input whatever grid an
archive uses. Domains (:mod:`vcinr.signals.domain`) hold the coordinates and say how samples combine them.

``box``     each axis scaled to [-1, 1] over the training axes' extent; d_in = number of axes.
``sphere``  (latitude, longitude) in degrees to unit vectors (cos lat cos lon, cos lat sin lon, sin lat), as in
            COIN++ (Dupont et al. 2022, section 4.3): no seam at the date line, no singular poles. Axes before these two
            (level, height) are scaled as those of a box, and their inputs come first; d_in = number of axes + 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vcinr.errors import InputError


def box(axes: Sequence[np.ndarray]) -> dict[str, Any]:
    """The box system spanning `axes`."""
    return {"system": "box", "bounds": _extents(axes)}


def sphere(further: Sequence[np.ndarray] = ()) -> dict[str, Any]:
    """The sphere system; axes are those `further` ones, then latitude and longitude in degrees."""
    return {"system": "sphere"} | ({"bounds": _extents(further)} if further else {})


def _extents(axes: Sequence[np.ndarray]) -> list[list[float]]:
    return [[float(np.min(a)), float(np.max(a))] for a in axes]


def check(system: dict[str, Any]) -> None:
    """Raise ValueError, or another error of malformed data, unless `inputs` knows the system."""
    if system["system"] not in ("box", "sphere"):
        raise ValueError(f"unknown coordinate system {system['system']!r}")
    bounds = system["bounds"] if system["system"] == "box" else system.get("bounds", [])
    if not all(len(b) == 2 and all(math.isfinite(v) for v in b) for b in bounds):
        raise ValueError("the coordinate system has no bounds")


def dimension(system: dict[str, Any]) -> int:
    """d_in of a system."""
    scaled = len(system.get("bounds", []))
    return scaled + 3 if system["system"] == "sphere" else scaled


def scaled(system: Mapping[str, Any], columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Bring coordinates, axis by axis, to the numbers that `embedded` combines.

    Parameters
    ----------
    system
        A coordinate system.
    columns
        Coordinates in the data's units, an array for each axis of the system.

    Returns
    -------
    list of numpy.ndarray
        float64, of the same lengths: positions in [-1, 1] within the system's bounds, angles in radians.

    Raises
    ------
    InputError
        Where the number of axes is not that of the system.
    """
    if system["system"] not in ("box", "sphere"):
        raise InputError(f"unknown coordinate system {system['system']!r}")
    bounds = system.get("bounds", [])
    count = len(bounds) + 2 * (system["system"] == "sphere")
    if len(columns) != count:
        raise InputError(f"the model has {count} coordinate axes, the data {len(columns)}")
    return [
        *(
            np.zeros(len(c)) if hi == lo else 2.0 * (np.asarray(c, np.float64) - lo) / (hi - lo) - 1.0
            for c, (lo, hi) in zip(columns, bounds, strict=False)
        ),
        *(np.deg2rad(np.asarray(c, np.float64)) for c in columns[len(bounds) :]),
    ]


def embedded(system: Mapping[str, Any], columns: Sequence[np.ndarray]) -> np.ndarray:
    """Combine coordinates of every sample to inputs of the network.

    Parameters
    ----------
    system
        A coordinate system.
    columns
        What `scaled` made, as arrays of one shape with a value for each sample.

    Returns
    -------
    numpy.ndarray
        ``[P, d_in]`` float32, samples in C order.
    """
    columns = list(columns)
    if system["system"] == "sphere":
        lat, lon = columns[-2:]
        columns[-2:] = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    out = np.stack(columns, axis=-1)
    return np.ascontiguousarray(out.reshape(-1, out.shape[-1]), dtype=np.float32)
