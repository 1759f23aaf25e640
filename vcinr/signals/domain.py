"""Domains: the positions of a signal's samples, on a grid or as single points.

A domain holds coordinates in the data's own units, which a coordinate system (:mod:`vcinr.signals.coordinates`) turns
into inputs of the network. To evaluate a model, nothing else needs to be known of a signal's geometry.
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
    """The positions of a signal's samples. Domains of one class with the same coordinates are equal.

    Parameters
    ----------
    columns : tuple of numpy.ndarray
        Coordinates, one float64 array for each axis of the coordinate system. They must not be changed.
    """

    columns: tuple[np.ndarray, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the array axes over which the samples are laid out."""
        raise NotImplementedError

    @property
    def points(self) -> int:
        """Number P of samples."""
        return math.prod(self.shape)

    def inputs(self, system: Mapping[str, Any]) -> np.ndarray:
        """Compute the network's inputs for all samples.

        Parameters
        ----------
        system : mapping
            The coordinate system of a model.

        Returns
        -------
        numpy.ndarray
            float32 ``[P, d_in]``, with the samples in C order.

        Raises
        ------
        InputError
            Where the system has another number of axes.
        """
        raise NotImplementedError

    @cached_property
    def _content(self) -> tuple[Any, ...]:
        """What equality and hash depend on."""
        return type(self), *(c.tobytes() for c in self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domain) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)


class Grid(Domain):
    """A grid, whose samples lie at all combinations of its axes' coordinates: `columns` has an array for each axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(len(axis) for axis in self.columns)

    def inputs(self, system: Mapping[str, Any]) -> np.ndarray:
        """See `Domain.inputs`."""
        scaled = coordinates.scaled(system, self.columns)
        return coordinates.embedded(system, np.meshgrid(*scaled, indexing="ij"))


EMPTY = Grid()
"""The grid without axes, for fields whose coordinates are not needed because there is no model."""


class Points(Domain):
    """Single points, such as stations or the nodes of a mesh: each array of `columns` has one value for each point."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of points, as a tuple."""
        return (len(self.columns[0]),)

    def inputs(self, system: Mapping[str, Any]) -> np.ndarray:
        """See `Domain.inputs`."""
        return coordinates.embedded(system, coordinates.scaled(system, self.columns))
