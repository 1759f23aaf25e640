"""Choices by name: those of this package, and those that other packages add through entry points.

A package adds a conditioning, an inner loop, a quantiser or a kind of signal by an entry point of the group
``vcinr.conditionings``, ``vcinr.inner_loops``, ``vcinr.quantisers`` or ``vcinr.kinds``; its name is then a choice in
params.yaml like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vcinr.errors import ConfigError, one_line


def lookup(group: str, builtin: Mapping[str, Any], name: str) -> Any:
    """What `builtin` or an entry point of the group ``vcinr.<group>`` calls `name`.

    Raises ConfigError naming the known ones, or why an entry point could not be loaded.
    """
    if name in builtin:
        return builtin[name]
    found = _others(group).get(name)
    if found is None:
        raise ConfigError(f"{group}: unknown {name!r}; known: {', '.join(known(group, builtin))}")
    return _loaded(found)


def known(group: str, builtin: Mapping[str, Any]) -> list[str]:
    """Names that `lookup` takes: the package's own, then those of entry points."""
    return list(dict.fromkeys([*builtin, *sorted(_others(group))]))


@cache
def _others(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"vcinr.{group}")}


@cache
def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise ConfigError(
            f"{point.group}: {point.name!r} of {point.value} cannot be loaded ({one_line(error)}); mend or remove "
            "the package that adds it"
        ) from None
