"""What kinds of signals share: the contract they keep, and how data sets are cut and named."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr
from pydantic import BaseModel, ConfigDict

from vcinr.config import Selection, Source
from vcinr.errors import InputError
from vcinr.formats.base import Groups
from vcinr.places import stem
from vcinr.progress import Watch
from vcinr.signals import Signals

PATCHES_IN_A_TILE = 32
"""Of those of which a kind says how long they are."""
Ranges = Mapping[str, tuple[int | None, int | None]]
"""Half-open index ranges by dimension name."""

Opened = list[tuple[str, xr.Dataset]]
"""Data sets by their paths, as the user gave them, or by their names in an archive."""


class Options(BaseModel):
    """A kind's own parameters, which stand in params.yaml beside the common ones of a source: here none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def by_stem(opened: Opened) -> Opened:
    """Name data sets by the stems of their files; a stem that comes again gets a number."""
    result: Opened = []
    seen: dict[str, int] = {}
    for path, dataset in opened:
        name = stem(path)
        seen[name] = seen.get(name, 0) + 1
        result.append((name if seen[name] == 1 else f"{name}-{seen[name]}", dataset))
    return result


@dataclass(frozen=True)
class Kind:
    """The contract of a kind of signal, which its file in this folder states as `KIND`.

    Attributes
    ----------
    open : callable
        From the place of a file, its selection, the kind's own parameters and a watcher of progress to a data set that
        is cut to the selection, with values and attributes as they are in the file. `selection.path` is the file as the
        user calls it, for messages.
    variables : callable
        From a source and a data set to the names of the variables that are learned and archived.
    members : callable
        From all that a source archives, opened, by path to what it archives, by name: one archive each.
    signal_dims : tuple of str, optional
        Dimensions of a signal. Default: as the source's tiling says.
    options : type
        The kind's own parameters.
    signals : callable, optional
        From a source and the kind's own parameters to all its signals in their splits. Default: they are cut from the
        source's files.
    training : callable, optional
        From a data set, the kind's own parameters and the file's path to the data set whose signals are learned from,
        which must be of one size. Where these have no coordinates they are tiles, and a network of them applies to
        whole signals tile by tile. Default: the data set itself.
    variable : str, optional
        For a kind of which each file holds one signal: the name that formats give it. The kind is seen by it.
    dims : tuple of str
        The dimensions of such a signal.
    feature_dim : str, optional
        The dimension of the features of its points; a signal may lack it.
    ragged : bool
        Whether such signals are joined end to end, not stacked.
    method : str
        The usual method (vcinr/methods.yaml) for such signals.
    network_tile : int, optional
        Of a kind of files: usual length of the tiles from which a network learns. One latent describes a whole tile, so
        that they are shorter than those for experts.
    takes : tuple of str
        Variables that other formats give, and that `adapted` makes such a signal of: those of several files, or where
        the kind is named.
    own : tuple of str
        Variables without any of `dims` of which each signal has its own.
    adapted : callable, optional
        From a data set as formats read it, and the number of voxels along each axis, to one of the kind.
    restored : callable, optional
        From a data set of the kind to one that formats write.
    patches : mapping
        Parameters of the method ``experts`` that suit such signals, where none are given.
    patch_length : callable, optional
        For signals of one dimension: from the attributes and the number of points of each training signal to the length
        of patches that suits them, where none is given; None for the usual one. Tiles are then 32 patches long.
    join, separate : callable, optional
        For such a kind whose signals are not simply stacked: from paths and data sets of files to the groups that hold
        them all, and back to names of files and data sets.
    endings : tuple of str
        How files may end into which they are written without loss; the first is the usual one.
    """

    open: Callable[[str, Selection, Any, Watch], xr.Dataset]
    variables: Callable[[Source, xr.Dataset], tuple[str, ...]]
    members: Callable[[Opened], Opened] = by_stem
    signal_dims: tuple[str, ...] | None = None
    options: type[Options] = Options
    signals: Callable[[Source, Any], Signals] | None = None
    training: Callable[[xr.Dataset, Any, str], xr.Dataset] | None = None
    variable: str | None = None
    dims: tuple[str, ...] = ()
    feature_dim: str | None = None
    ragged: bool = False
    endings: tuple[str, ...] = ()
    method: str = "basis"
    network_tile: int | None = None
    takes: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    adapted: Callable[[xr.Dataset, int], xr.Dataset] | None = None
    restored: Callable[[xr.Dataset], xr.Dataset] | None = None
    join: Callable[[Opened], Groups] | None = None
    separate: Callable[[Groups], Opened] | None = None
    patches: Mapping[str, Any] = field(default_factory=dict)
    patch_length: Callable[[Sequence[tuple[Mapping[Any, Any], int]]], int | None] | None = None


def cut(dataset: xr.Dataset, ranges: Ranges, path: str) -> xr.Dataset:
    """Cut a data set to index ranges; raises InputError where nothing remains of a dimension."""
    check_dims(ranges, [str(d) for d in dataset.sizes], path)
    result = dataset.isel({dim: slice(*limits) for dim, limits in ranges.items()})
    for dim, limits in ranges.items():
        if result.sizes[dim] == 0:
            raise InputError(
                f"{path}: selection {dim} {list(limits)} is empty; "
                f"choose indices below the length of the dimension, {dataset.sizes[dim]}"
            )
    return result


def check_dims(ranges: Ranges, have: list[str], path: str) -> None:
    """Raise InputError for a range of a dimension that the file does not have."""
    for dim in ranges:
        if dim not in have:
            close = difflib.get_close_matches(dim, have, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(f"{path}: selection of unknown dimension {dim!r}; {hint}it has {', '.join(have)}")
