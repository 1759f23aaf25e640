"""Choices by name: the built-in ones, and those that other packages add through entry points.

A package adds a conditioning, an inner loop, a quantiser or a kind of signal by an entry point of the group
``vcinr.conditionings``, ``vcinr.inner_loops``, ``vcinr.quantisers`` or ``vcinr.kinds``. Its name is then a choice in
params.yaml like any other. File formats come from the group ``vcinr.formats``, and what runs the batches of bulk
compression from the group ``vcinr.engines``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vcinr.errors import ConfigError, one_line

_log = logging.getLogger("vcinr")


def lookup(group: str, builtin: Mapping[str, Any], name: str) -> Any:
    """Look up a choice by name.

    Parameters
    ----------
    group : str
        Kind of the choice: entry points of the group ``vcinr.<group>`` add to it.
    builtin : mapping
        The built-in choices by name, which go before entry points.
    name : str
        The name.

    Raises
    ------
    ConfigError
        For an unknown name, whose message lists the known ones, and for an entry point that cannot be loaded.
    """
    if name in builtin:
        return builtin[name]
    point = _others(group).get(name)
    if point is None:
        raise ConfigError(f"{group}: unknown {name!r}; known: {', '.join(known(group, builtin))}")
    return _loaded(point)


def known(group: str, builtin: Mapping[str, Any]) -> list[str]:
    """The names that `lookup` knows: the built-in ones, then those of entry points."""
    return list(dict.fromkeys([*builtin, *sorted(_others(group))]))


def every(group: str, builtin: Mapping[str, Any]) -> dict[str, Any]:
    """All choices by name: the built-in ones, then those of entry points.

    An entry point that cannot be loaded is left out, with a warning: it may have nothing to do with the data at hand.
    """
    return {**builtin, **{name: found for name, found in _loadable(group).items() if name not in builtin}}


@cache
def _loadable(group: str) -> dict[str, Any]:
    """What the entry points of a group refer to, as far as they can be loaded."""
    result = {}
    for name, point in sorted(_others(group).items()):
        try:
            result[name] = _loaded(point)
        except ConfigError as error:
            _log.warning("%s", error)
    return result


@cache
def _others(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name."""
    return {point.name: point for point in entry_points(group=f"vcinr.{group}")}


@cache
def _loaded(point: EntryPoint) -> Any:
    """What an entry point refers to; raises ConfigError where importing it fails."""
    try:
        return point.load()
    except Exception as error:
        raise ConfigError(
            f"{point.group}: {point.name!r} of {point.value} cannot be loaded ({one_line(error)}); mend or remove "
            "the package that adds it"
        ) from None
