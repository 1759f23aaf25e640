"""Coordinate systems: how the positions of a signal's samples enter the network.

A *system* turns coordinates in the data's units into inputs of the network, float32 ``[P, d_in]``. It is a small
mapping that JSON can hold and that is part of the model, so a place on Earth has the same inputs whatever the grid of
an archive. Domains (:mod:`vcinr.signals.domain`) hold the coordinates and say how samples combine them.

``box``     scales each axis to [-1, 1] over its extent in the training data; d_in is the number of axes.
``sphere``  turns latitude and longitude in degrees into unit vectors (cos lat cos lon, cos lat sin lon, sin lat), as in
            COIN++ (Dupont et al. 2022, section 4.3), so that there is no seam at the date line and no singular pole.
            Axes before these two, such as levels, are scaled as in a box, and their inputs come first; d_in is the
            number of axes plus 1.
``spectral``  takes the spectral coordinates of a graph's nodes as they are (:mod:`vcinr.signals.graph`): its axes are
            these coordinates, and d_in is their number. It names the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vcinr.errors import InputError


def box(axes: Sequence[np.ndarray]) -> dict[str, Any]:
    """Make a box system whose bounds are the extents of `axes`, one array of coordinates for each axis."""
    return {"system": "box", "bounds": _extents(axes)}


def sphere(further: Sequence[np.ndarray] = ()) -> dict[str, Any]:
    """Make a sphere system.

    Parameters
    ----------
    further : sequence of numpy.ndarray
        Coordinates of the axes before latitude and longitude; the bounds are their extents.
    """
    return {"system": "sphere"} | ({"bounds": _extents(further)} if further else {})


def _extents(axes: Sequence[np.ndarray]) -> list[list[float]]:
    """The smallest and the largest coordinate of each axis."""
    return [[float(np.min(a)), float(np.max(a))] for a in axes]


def check(system: dict[str, Any]) -> None:
    """Raise ValueError, or another error of malformed data, unless `scaled` and `embedded` can apply the system."""
    if system["system"] not in ("box", "sphere", "spectral"):
        raise ValueError(f"unknown coordinate system {system['system']!r}")
    if system["system"] == "spectral":
        count, graph = system["dimensions"], system["graph"]
        if type(count) is not int or count < 1 or not isinstance(graph, str):
            raise ValueError("the coordinate system names no graph")
        return
    bounds = system["bounds"] if system["system"] == "box" else system.get("bounds", [])
    if not all(len(b) == 2 and all(math.isfinite(v) for v in b) for b in bounds):
        raise ValueError("the coordinate system has no bounds")


def dimension(system: dict[str, Any]) -> int:
    """The number of inputs d_in that a system gives the network."""
    if system["system"] == "spectral":
        return int(system["dimensions"])
    scaled_axes = len(system.get("bounds", []))
    return scaled_axes + 3 if system["system"] == "sphere" else scaled_axes


def scaled(system: Mapping[str, Any], columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Scale the coordinates of each axis to the numbers that `embedded` combines.

    Parameters
    ----------
    system : mapping
        A coordinate system.
    columns : sequence of numpy.ndarray
        Coordinates in the data's units, one array for each axis of the system.

    Returns
    -------
    list of numpy.ndarray
        float64, of the same lengths: positions, in [-1, 1] where they are within the bounds, and angles in radians.

    Raises
    ------
    InputError
        Where the system has another number of axes.
    """
    if system["system"] not in ("box", "sphere", "spectral"):
        raise InputError(f"unknown coordinate system {system['system']!r}")
    if system["system"] == "spectral":
        if len(columns) != system["dimensions"]:
            raise InputError(f"the model has {system['dimensions']} spectral coordinates, the data {len(columns)}")
        return [np.asarray(c, np.float64) for c in columns]
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
    """Combine the scaled coordinates of samples into inputs of the network.

    Parameters
    ----------
    system : mapping
        A coordinate system.
    columns : sequence of numpy.ndarray
        Coordinates from `scaled`, one array for each axis; all arrays have the same shape, with an element for each
        sample.

    Returns
    -------
    numpy.ndarray
        float32 ``[P, d_in]``, with the samples in C order.
    """
    columns = list(columns)
    if system["system"] == "sphere":
        lat, lon = columns[-2:]
        columns[-2:] = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    out = np.stack(columns, axis=-1)
    return np.ascontiguousarray(out.reshape(-1, out.shape[-1]), dtype=np.float32)
