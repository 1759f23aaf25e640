"""Domains: where the samples of a signal lie, as a grid or as single points.

A domain holds coordinates in the data's own units. A coordinate system (:mod:`vcinr.signals.coordinates`) turns them
into inputs of the network. Whoever evaluates a model needs nothing else of the signal's geometry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vcinr.signals import coordinates


@dataclass(frozen=True, eq=False)
class Domain:
    """Places at which a signal has samples; two domains with the same coordinates are equal.

    Parameters
    ----------
    columns
        float64 arrays of coordinates, one for each axis of the coordinate system. They must not be changed.
    """

    columns: tuple[np.ndarray, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the array axes over which the samples are laid out."""
        raise NotImplementedError

    @property
    def points(self) -> int:
        """Number of samples, P."""
        return math.prod(self.shape)

    def inputs(self, system: Mapping[str, Any]) -> np.ndarray:
        """Inputs of the network at every sample.

        Parameters
        ----------
        system
            The coordinate system, as a model holds it.

        Returns
        -------
        numpy.ndarray
            ``[P, d_in]`` float32, samples in C order.

        Raises
        ------
        InputError
            Where the system has another number of axes.
        """
        raise NotImplementedError

    @cached_property
    def _content(self) -> tuple[Any, ...]:
        return type(self), *(c.tobytes() for c in self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domain) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)


class Grid(Domain):
    """All combinations of the values of its axes: `columns` has one array for each axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(len(axis) for axis in self.columns)

    def inputs(self, system: Mapping[str, Any]) -> np.ndarray:
        """As in `Domain`."""
        scaled = coordinates.scaled(system, self.columns)
        return coordinates.embedded(system, np.meshgrid(*scaled, indexing="ij"))


EMPTY = Grid()
"""The grid without axes, where nobody needs to know where samples lie."""


class Points(Domain):
    """Single points in any order, as of a mesh or a table of stations: `columns` has one value for each point."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of points."""
        return (len(self.columns[0]),)

    def inputs(self, system: Mapping[str, Any]) -> np.ndarray:
        """As in `Domain`."""
        return coordinates.embedded(system, coordinates.scaled(system, self.columns))
