"""Choices by name: the package's own, and those that other packages declare as entry points.

A group of choices is a mapping of the package's own by name; a package adds to it, without any change here, by an
entry point of the group ``vcinr.GROUP`` in its ``pyproject.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from vcinr.errors import ConfigError


def lookup(group: str, builtin: Mapping[str, Any], name: str) -> Any:
    """``builtin[name]``, else the entry point `name` of ``vcinr.GROUP``, loaded.

    Raises ConfigError naming the known ones, or the entry point that cannot be loaded.
    """
    if name in builtin:
        return builtin[name]
    found = entry_points(group=f"vcinr.{group}", name=name)
    if not found:
        raise ConfigError(f"{group}: unknown {name!r}; known: {', '.join(known(group, builtin))}")
    try:
        return next(iter(found)).load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{group}: {name!r} cannot be loaded ({error})") from None


def known(group: str, builtin: Mapping[str, Any]) -> list[str]:
    """Names that `lookup` finds: the package's own, then those of entry points."""
    return list(dict.fromkeys([*builtin, *sorted(entry_points(group=f"vcinr.{group}").names)]))
