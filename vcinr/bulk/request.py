"""What is asked of all inputs of a bulk run: bounds, variables, models; a record that can be written as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vcinr.codec.promise import Effort
from vcinr.errors import InputError, one_line

_BOUNDS = ("abs_error", "rel_error", "point_rel_error", "psnr", "rate", "iou")


@dataclass(frozen=True)
class Request:
    """What is asked of every input.

    Parameters
    ----------
    models
        Path of a model for all variables that it was trained on, which are then what is compressed by default; or paths
        by patterns of the variables' names, of which the first that fits counts, with all suitable variables compressed
        by default. None for no model.
    abs_error, rel_error, point_rel_error, psnr, rate, iou, variables, chunk, effort
        As in :func:`vcinr.archive.write.compress`.
    concat
        The dimension along which all inputs are joined to one archive; None where each becomes one of its own.
    kind, resolution
        As in :func:`vcinr.files.compress`.

    Raises
    ------
    InputError
        For a request that contradicts itself.
    """

    models: str | Mapping[str, str] | None = None
    abs_error: float | Mapping[str, float] | None = None
    rel_error: float | None = None
    point_rel_error: float | None = None
    psnr: float | None = None
    rate: float | None = None
    iou: float | None = None
    variables: tuple[str, ...] | None = None
    chunk: int | None = None
    effort: Effort = "best"
    concat: str | None = None
    kind: str | None = None
    resolution: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.variables, list):
            object.__setattr__(self, "variables", tuple(self.variables))
        asked = [name for name in _BOUNDS if getattr(self, name) is not None]
        if len(asked) > 1:
            raise InputError(f"give one kind of bound, not both {' and '.join(asked)}")
        for name in asked:
            value = getattr(self, name)
            for number in value.values() if isinstance(value, Mapping) else [value]:
                if not (math.isfinite(number) and number >= 0):
                    raise InputError(f"{name}: the bound must be a positive number, got {number}")

    @property
    def bounds(self) -> dict[str, float | None]:
        """The bounds besides `abs_error`, as :func:`vcinr.archive.plan.plan` takes them."""
        return {name: getattr(self, name) for name in _BOUNDS[1:]}

    def as_node(self) -> dict[str, Any]:
        """For JSON: what differs from a request of nothing."""
        plain: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                plain[field.name] = dict(value) if isinstance(value, Mapping) else value
        return plain

    @classmethod
    def from_node(cls, node: Mapping[str, Any]) -> Self:
        """Inverse of `as_node`."""
        return cls(**node)


def models_of(given: Sequence[str]) -> str | dict[str, str] | None:
    """Read what was given as models.

    Parameters
    ----------
    given
        One path of a model; or ``PATTERN=PATH`` once or several times; or one path of a YAML file, which ends in .yaml
        or .yml and holds a mapping of patterns to paths, relative to it.

    Returns
    -------
    str, dict or None
        As `Request` takes them.

    Raises
    ------
    InputError
        For anything else.

    Examples
    --------
    >>> models_of(["t2m=a.vcinr", "*=b.vcinr"])
    {'t2m': 'a.vcinr', '*': 'b.vcinr'}
    """
    if not given:
        return None
    if len(given) == 1 and given[0].endswith((".yaml", ".yml")):
        return _from_yaml(Path(given[0]))
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).exists()):
        return given[0]
    models: dict[str, str] = {}
    for text in given:
        pattern, equals, path = text.partition("=")
        if not (pattern and equals and path):
            raise InputError(f"--model {text}: of several models each is given as PATTERN=FILE, for example t2m={text}")
        if pattern in models:
            raise InputError(f"--model {text}: {pattern} has a model already, {models[pattern]}; give it one")
        models[pattern] = path
    return models


def _from_yaml(path: Path) -> dict[str, str]:
    try:
        import yaml
    except ImportError:
        raise InputError(f"{path}: reading it needs the package pyyaml; give PATTERN=FILE instead") from None
    try:
        node = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}); give a YAML file of lines PATTERN: FILE"
        ) from None
    if not isinstance(node, dict) or not node or not all(isinstance(v, str) for v in node.values()):
        raise InputError(f"{path}: holds no mapping of patterns to files; write lines such as t2m: t2m.vcinr")
    return {str(pattern): str(path.parent / file) for pattern, file in node.items()}
