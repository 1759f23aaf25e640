"""Kinds of signals, a file each: what a source's files are made into before they are learned and archived.

Each kind is a file of this folder that keeps the contract :class:`vcinr.kinds.base.Kind`, and a line of `KINDS`. A
package of its own adds one by an entry point of the group ``vcinr.kinds`` (:mod:`vcinr.plugins`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcinr import config, plugins
from vcinr.config import Params, Source
from vcinr.errors import ConfigError
from vcinr.kinds import grid, image, python, scenes, shape, sound, video, volume, voxels
from vcinr.kinds.base import Kind, Options

KINDS: dict[str, Kind] = {
    "grid": grid.KIND,
    "image": image.KIND,
    "sound": sound.KIND,
    "video": video.KIND,
    "volume": volume.KIND,
    "shape": shape.KIND,
    "scenes": scenes.KIND,
    "voxels": voxels.KIND,
    "python": python.KIND,
}
"""By what `kind` of a source in params.yaml says."""


def every() -> dict[str, Kind]:
    """All kinds by name: those of this folder, then those that packages add."""
    return plugins.every("kinds", KINDS)


def kind_of(source: Source) -> Kind:
    """Return the kind of a source; raises ConfigError naming the known ones."""
    return plugins.lookup("kinds", KINDS, source.kind)


def options_of(source: Source, origin: str = "source", where: Sequence[str] = ()) -> Options:
    """Validate the parameters that belong to a source's kind alone.

    Parameters
    ----------
    source : Source
        The source.
    origin, where : str, sequence of str
        For messages: the file that it comes from, and the keys that lead to it there.

    Returns
    -------
    Options
        An instance of the kind's `options`.

    Raises
    ------
    ConfigError
        For an unknown kind, and for a parameter that is unknown, missing or wrong. The message names the parameter and,
        for a typo, the likely name.
    """
    try:
        kind = kind_of(source)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {'.'.join((*where, 'kind'))}: {error}") from None
    return config.fill(kind.options, source.own, origin, where, beside=Source.model_fields)


def with_usual(data: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Fill in the kind's usual method and its parameters of patches, where `data` leaves them out or has null."""
    given = data.get("patches") or {}
    patches = {**kind.patches, **{key: value for key, value in given.items() if value is not None}}
    return {**data, "method": data.get("method") or kind.method, "patches": patches}


def load(path: str | Path = "params.yaml") -> Params:
    """Read and validate a params file as `vcinr.config.load` does, and every source in it as its kind does.

    Where the file gives no method, the active source has the usual one of its kind.
    """
    data = config.read(path)
    params = config.parse(data, str(path))
    if params.source is not None and params.active.kind in every():
        params = config.parse(with_usual(data, every()[params.active.kind]), str(path))
    for name, source in params.sources.items():
        options_of(source, str(path), ("sources", name))
    return params


__all__ = ["KINDS", "Kind", "Options", "every", "kind_of", "load", "options_of", "with_usual"]
