"""Thousands of files as one data set along a dimension, read lazily: a region opens only the files that it needs.

Every file is opened once to see what it holds (`facts_of`, which may run anywhere), and what the files hold is compared
and put in order (`merge`, which opens nothing). The result describes the whole; a process that has it reads any region
(`opened`) without looking at the other files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from vcinr.errors import NOT_DAMAGE, InputError, VcinrError, one_line
from vcinr.formats.base import Groups
from vcinr.formats.open import open_groups
from vcinr.formats.times import MICROSECONDS, counted_anew, exact, instant, parsed, unit_of

_PACKING = ("scale_factor", "add_offset", "_Unsigned")
_MEANING = (
    "units", "calendar", "_FillValue", "missing_value", "valid_min", "valid_max", "valid_range", "standard_name",
    "cell_methods", "positive", "axis", "coordinates", "grid_mapping", "bounds", "climatology", "flag_values",
    "flag_masks", "flag_meanings",
)  # fmt: skip
_ENCODED = ("coordinates", "grid_mapping", "bounds", "cell_measures", "formula_terms", "ancillary_variables")
_OPEN = 4  # files at a time: a library holds buffers for each
_PIECE_VALUES = 1 << 22


@dataclass(frozen=True)
class VariableFacts:
    """What a file says of a variable; all of it is JSON-able.

    Attributes
    ----------
    dims, shape, dtype
        As in the file; numbers in the machine's byte order.
    attrs, encoding
        Attributes, and what xarray keeps of them elsewhere, as `_node` makes them.
    coordinate
        Whether it is a coordinate.
    values
        The values of a coordinate of a dimension, as `_node` makes them; None of other variables.
    digest
        Digest of the values of a variable that must be the same in every file; None where files differ.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: dict[str, Any]
    encoding: dict[str, Any]
    coordinate: bool
    values: Any = None
    digest: str | None = None


@dataclass(frozen=True)
class GroupFacts:
    """What a file says of a group: its variables by name, its attributes and its unlimited dimensions."""

    variables: dict[str, VariableFacts]
    attrs: dict[str, Any]
    unlimited: tuple[str, ...]


@dataclass(frozen=True)
class FileFacts:
    """What a file holds: its groups by path, and whether none of them has the dimension along which it is joined."""

    place: str
    groups: dict[str, GroupFacts]
    new: bool


@dataclass(frozen=True)
class Concat:
    """Files that are one data set; `opened` opens it, `as_node` and `concat_of` bring it into JSON and back.

    Attributes
    ----------
    dim
        The dimension along which they are joined.
    new
        Whether no file has it: each is then one step along it.
    places
        The files in their order.
    lengths
        By group, how many steps each file has; 0 in groups that are the same in every file.
    groups
        What the data set holds. Coordinates along the dimension have the values of all files.
    units
        By the variable's full name, the units of time of each file, where they differ from the data set's.
    """

    dim: str
    new: bool
    places: tuple[str, ...]
    lengths: dict[str, tuple[int, ...]]
    groups: dict[str, GroupFacts]
    units: dict[str, tuple[str, ...]]

    def as_node(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        return asdict(self)


def concat_of(node: dict[str, Any]) -> Concat:
    """Make a `Concat` of what its `as_node` returned, also after a way through JSON."""

    def variable(v: dict[str, Any]) -> VariableFacts:
        return VariableFacts(**{**v, "dims": tuple(v["dims"]), "shape": tuple(v["shape"])})

    groups = {
        path: GroupFacts({n: variable(v) for n, v in g["variables"].items()}, g["attrs"], tuple(g["unlimited"]))
        for path, g in node["groups"].items()
    }
    lengths = {path: tuple(n) for path, n in node["lengths"].items()}
    units = {name: tuple(u) for name, u in node["units"].items()}
    return Concat(node["dim"], node["new"], tuple(node["places"]), lengths, groups, units)


def open_concat(places: Sequence[str], dim: str) -> Groups:
    """Open files as one data set along a dimension; values are read when they are used.

    Parameters
    ----------
    places
        Paths or fsspec URLs, in any order where they have a coordinate along `dim`: they are put in its order. Without
        one, their order is that of the data set.
    dim
        The dimension. Where no file has it, each file is one step along it: its variables but the coordinates get it as
        their first dimension, and a single value of that name becomes its coordinate.

    Returns
    -------
    dict
        Like those of :func:`vcinr.formats.open.open_groups`, for the whole. The data sets can be pickled: what is
        pickled is the list of files and what they hold, and not their values.

    Raises
    ------
    InputError
        Where a file cannot be read, or files do not go together. They must have the same variables of the same types,
        grids, units, fill values and packing; variables without `dim` must have the same values. Coordinates along
        `dim` must rise or fall all the way. The message names both files and the variable.

    Notes
    -----
    Times that count from different dates (``days since 2000-01-01``, ``days since 2000-02-01``) are counted from the
    first file's date, in the finest unit of all, where that is exact to the last bit; else they are refused. Attributes
    that say nothing of the values, such as a history, are kept where all files agree on them.

    Every file is opened once here. Later at most four are open at a time.
    """
    return opened(merge((facts_of(place, dim) for place in places), places, dim))


def facts_of(place: str, dim: str) -> FileFacts:
    """Say what a file holds, as far as files that are joined along a dimension must agree on it.

    Parameters
    ----------
    place
        A path or an fsspec URL.
    dim
        The dimension.

    Returns
    -------
    FileFacts
        It can be pickled. Of values there are those of coordinates of dimensions, and digests of those without `dim`,
        which are read piece by piece.

    Raises
    ------
    InputError
        Where the file cannot be read.
    """
    groups = open_groups(place)
    try:
        new = not any(dim in group.dims for group in groups.values())
        return FileFacts(place, {path: _group(place, group, dim, new) for path, group in groups.items()}, new)
    except (VcinrError, *NOT_DAMAGE):
        raise
    except Exception as error:  # every format's library has its own for a damaged file
        raise InputError(f"{place}: cannot be read ({one_line(error)}); is the file whole? copy it again") from None
    finally:
        _close(groups)


def _group(place: str, group: xr.Dataset, dim: str, new: bool) -> GroupFacts:
    variables = {}
    for name, variable in group.variables.items():
        name = str(name)
        if dim in variable.dims[1:] and variable.dims.count(dim) > 1:
            raise InputError(f"{place}: variable {name!r} has the dimension {dim!r} twice; rename one of them")
        varies = dim in variable.dims or (new and (name == dim or name not in group.coords))
        index = variable.dims == (name,) or (new and name == dim and variable.ndim == 0)
        numbers = variable.dtype.kind in "fiubc"
        variables[name] = VariableFacts(
            dims=tuple(map(str, variable.dims)),
            shape=variable.shape,
            dtype=(variable.dtype.newbyteorder("=") if numbers else variable.dtype).str,
            attrs=_nodes(variable.attrs, f"{place}: variable {name!r}"),
            encoding=_nodes({k: v for k, v in variable.encoding.items() if k in _ENCODED}, place),
            coordinate=name in group.coords,
            values=_node(_native(variable.values)) if index else None,
            digest=None if varies else _digest(variable),
        )
    unlimited = tuple(sorted(str(d) for d in group.encoding.get("unlimited_dims", ()) if d in group.sizes))
    return GroupFacts(variables, _nodes(group.attrs, f"{place}: a group"), unlimited)


def _digest(variable: xr.Variable) -> str:
    """Digest the values of a variable, read in pieces along its first axis."""
    digest = hashlib.blake2b(digest_size=16)
    rows = max(1, _PIECE_VALUES // max(1, math.prod(variable.shape[1:])))
    for start in range(0, variable.shape[0], rows) if variable.ndim else [None]:
        part = variable if start is None else variable[start : start + rows]
        values = _native(np.asarray(part.values))
        digest.update(repr(values.tolist()).encode() if values.dtype.kind == "O" else np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False) if values.dtype.kind in "fiubc" else values


def _node(value: Any) -> Any:
    """An array or a value of an attribute, as what JSON can hold."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiubcSU":
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"dtype": value.dtype.str, "shape": list(value.shape), "data": data}
    plain = value.tolist() if isinstance(value, np.ndarray) else value
    json.dumps(plain)
    return plain


def _nodes(attrs: Any, where: str) -> dict[str, Any]:
    result = {}
    for key, value in attrs.items():
        try:
            result[str(key)] = _node(value)
        except TypeError:
            raise InputError(
                f"{where} has the attribute {key!r} of type {type(value).__name__}; make it text"
            ) from None
    return result


def _value(node: Any) -> Any:
    """What `_node` was made of."""
    if isinstance(node, dict) and "data" in node:
        values = np.frombuffer(base64.b64decode(node["data"]), node["dtype"]).reshape(node["shape"])
        return values.copy() if node["shape"] else values[()]
    return node


def merge(facts: Iterable[FileFacts], places: Sequence[str], dim: str) -> Concat:
    """Compare what files hold, and put them in order; nothing is opened.

    Parameters
    ----------
    facts
        What `facts_of` returned for each file, in any order; each is held only for a moment.
    places
        The files. Without a coordinate along `dim` this is their order.
    dim
        The dimension.

    Returns
    -------
    Concat
        The same, whatever the order of `facts` and, where there is a coordinate, of `places`.

    Raises
    ------
    InputError
        As in `open_concat`.
    """
    if len(set(places)) < len(places):
        twice = next(p for i, p in enumerate(places) if p in places[:i])
        raise InputError(f"{twice}: is given twice; give each file once")
    if not places:
        raise InputError(f"no files to join along {dim!r}; give some")
    number = {place: i for i, place in enumerate(places)}
    reference: FileFacts | None = None
    first: tuple[tuple[int, Fraction, int], FileFacts] | None = None
    common: dict[tuple[str, str | None], dict[str, Any]] = {}
    steps: list[tuple[tuple[int, Fraction, int], _Steps]] = []
    for file in facts:
        reference = reference or file
        _compare(reference, file, dim)
        for path, group in file.groups.items():
            for name, attrs in [(None, group.attrs), *((n, v.attrs) for n, v in group.variables.items())]:
                kept = common.setdefault((path, name), attrs)
                if kept != attrs:
                    common[path, name] = {k: v for k, v in kept.items() if k in attrs and _same(v, attrs[k])}
        own = _steps(file, dim)
        # Files without a coordinate come in the order in which they are given, and those without a step last.
        key = (int(own.begin is None), own.begin or Fraction(0), number[file.place])
        steps.append((key, own))
        first = (key, file) if first is None or key < first[0] else first
    if first is None or len(steps) < len(places):
        known = {own.place for _, own in steps}
        raise InputError(f"{next(p for p in places if p not in known)}: nothing is known of it; look at it first")
    falls = any(own.falls for _, own in steps)
    ordered = [own for _, own in sorted(steps, key=lambda s: (s[0][0], -s[0][1] if falls else s[0][1], s[0][2]))]
    return _joined(first[1], ordered, common, dim)


@dataclass(frozen=True)
class _Steps:
    """What is held of every file.

    begin: the first coordinate, or its instant in microseconds; None without one. falls: whether coordinates fall
    within the file. lengths, coordinates: by group; units: of each variable of times, by its full name.
    """

    place: str
    begin: Fraction | None
    falls: bool
    lengths: dict[str, int]
    coordinates: dict[str, np.ndarray]
    units: dict[str, str]


def _steps(file: FileFacts, dim: str) -> _Steps:
    begin, falls = None, False
    lengths: dict[str, int] = {}
    coordinates: dict[str, np.ndarray] = {}
    units: dict[str, str] = {}
    for path, group in file.groups.items():
        along = [v for v in group.variables.values() if v.digest is None]
        lengths[path] = 0 if not along else 1 if file.new else along[0].shape[along[0].dims.index(dim)]
        for name in group.variables:
            if group.variables[name].digest is None and (text := _clock(group, name)):
                units[_full(path, name)] = text
        own = group.variables.get(dim)
        if own is None or own.values is None:
            continue
        values = np.atleast_1d(_value(own.values))
        coordinates[path] = values
        if values.dtype.kind not in "fiu" or not values.size:
            continue
        if not np.isfinite(values).all():
            raise InputError(f"{file.place}: coordinate {dim!r} has missing values; give all of them")
        falls = falls or bool((values[1:] < values[:-1]).any())
        if begin is None:
            begin = exact(values[0])
            if text := _clock(group, dim):
                unit, date = parsed(file.place, text)
                begin = begin * unit + instant(date, _calendar(group, dim))
    return _Steps(file.place, begin, falls, lengths, coordinates, units)


def _full(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _of_clock(group: GroupFacts, name: str) -> VariableFacts | None:
    """The variable whose units and calendar are those of a variable of times: that itself, or the one it bounds."""
    own = group.variables[name]
    if "units" in own.attrs:
        return own
    for other in group.variables.values():
        if name in (other.attrs.get("bounds"), other.encoding.get("bounds"), other.attrs.get("climatology")):
            return other
    return None


def _clock(group: GroupFacts, name: str) -> str | None:
    """The units of a variable of times; None for any other, and for months and years, which have no fixed length."""
    clock = _of_clock(group, name)
    units = "" if clock is None else clock.attrs.get("units", "")
    number = group.variables[name].dtype[1] in "fiu"
    return units if number and isinstance(units, str) and unit_of(units) else None


def _calendar(group: GroupFacts, name: str) -> str:
    clock = _of_clock(group, name)
    return "standard" if clock is None else str(clock.attrs.get("calendar", "standard")).lower()


def _fills(variable: VariableFacts) -> list[Any]:
    return [_value(variable.attrs[k]) for k in ("_FillValue", "missing_value") if k in variable.attrs]


def _same(one: Any, other: Any) -> bool:
    """Whether two nodes are the same, also where they hold NaN."""
    return one == other or json.dumps(one) == json.dumps(other)


def _compare(one: FileFacts, other: FileFacts, dim: str) -> None:
    """Raise InputError where two files do not go together."""
    a, b = one.place, other.place
    if one.new != other.new:
        has, lacks = (b, a) if one.new else (a, b)
        raise InputError(f"{lacks}: has no dimension {dim!r}, which {has} has; give files that all have it, or none")
    for path in sorted(set(one.groups) ^ set(other.groups)):
        has, lacks = (a, b) if path in one.groups else (b, a)
        raise InputError(f"{lacks}: has no group {path!r}, which {has} has; give files of the same groups")
    for path in one.groups:
        ours, theirs = one.groups[path].variables, other.groups[path].variables
        for name in sorted(set(ours) ^ set(theirs)):
            has, lacks = (a, b) if name in ours else (b, a)
            raise InputError(
                f"{lacks}: has no variable {_full(path, name)!r}, which {has} has; give files of the same variables"
            )
        for name in ours:
            if said := _difference(one.groups[path], other.groups[path], name, dim):
                mine, its, remedy = said
                raise InputError(f"{b}: variable {_full(path, name)!r} has {its}, and in {a} it has {mine}; {remedy}")


def _difference(one: GroupFacts, other: GroupFacts, name: str, dim: str) -> tuple[str, str, str] | None:
    """How a variable differs in two files, in words: there, here, and what to do about it."""
    a, b = one.variables[name], other.variables[name]
    if a == b:
        return None
    shapes = [{d: n for d, n in zip(v.dims, v.shape, strict=True) if d != dim} for v in (a, b)]
    if a.dims != b.dims or shapes[0] != shapes[1]:
        said = [
            " x ".join(f"{d} {s.get(d, 'of any length')}" for d in v.dims) for v, s in zip((a, b), shapes, strict=True)
        ]
        return (
            f"the grid {said[0] or 'of one value'}",
            f"the grid {said[1] or 'of one value'}",
            "join files of one grid",
        )
    if a.dtype != b.dtype:
        return f"the type {np.dtype(a.dtype)}", f"the type {np.dtype(b.dtype)}", "convert one to the type of the other"
    if (a.digest is None) != (b.digest is None) or a.coordinate != b.coordinate:
        return "another role", "its role as a coordinate", "give files that name the same coordinates"
    if a.digest != b.digest:
        remedy = "regrid one of them" if a.coordinate else f"give it the dimension {dim!r}, or leave it out"
        return "others", f"values without the dimension {dim!r}", remedy
    for key in (*_PACKING, *_MEANING):
        values = [{**v.encoding, **v.attrs}.get(key) for v in (a, b)]
        if _same(*values):
            continue
        if key == "units" and all(_clock(g, name) for g in (one, other)) and a.digest is None:
            continue
        said = [f"{'no' if v is None else 'the'} {key}{'' if v is None else f' {_shown(v)}'}" for v in values]
        return said[0], said[1], _remedy(key)
    if _clock(one, name) != _clock(other, name) and any(k in v.attrs for v in (a, b) for k in _PACKING):
        return "packed times", "packed times of other units", "write times as plain numbers"
    return None


def _remedy(key: str) -> str:
    if key in _PACKING:
        return (
            "pack all files alike, or unpack them to plain numbers (xarray.open_dataset and to_netcdf without encoding)"
        )
    if key == "units":
        return "convert one of them"
    return f"give all files the same {key} (ncatted, or xarray's attrs)"


def _shown(node: Any) -> str:
    value = _value(node)
    text = str(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _joined(
    first: FileFacts, files: Sequence[_Steps], common: dict[tuple[str, str | None], dict[str, Any]], dim: str
) -> Concat:
    """The data set that files are, once they are in order; raises InputError where their coordinates overlap."""
    groups: dict[str, GroupFacts] = {}
    units: dict[str, tuple[str, ...]] = {}
    for path, group in first.groups.items():
        variables = {}
        clocks: dict[str, str] = {}
        for name in group.variables:
            full = _full(path, name)
            every = tuple(file.units.get(full, "") for file in files)
            if len(set(every)) > 1:
                clocks[name] = _target(_clock(group, name) or "", every)
                units[full] = every
        length = sum(file.lengths[path] for file in files)
        for name, variable in group.variables.items():
            attrs = {k: v for k, v in variable.attrs.items() if k in common[path, name]}
            if name in clocks and "units" in variable.attrs:
                attrs["units"] = clocks[name]
            dims, shape, values = variable.dims, variable.shape, variable.values
            if variable.digest is None:
                dims = (dim, *dims) if first.new else dims
                shape = (1, *shape) if first.new else shape
                shape = tuple(length if d == dim else n for d, n in zip(dims, shape, strict=True))
            if name == dim and values is not None:
                values = _node(_coordinates(files, path, dim, clocks.get(name), variable, _calendar(group, name)))
            variables[name] = replace(variable, dims=dims, shape=shape, values=values, attrs=attrs)
        kept = {k: v for k, v in group.attrs.items() if k in common[path, None]}
        groups[path] = GroupFacts(variables, kept, group.unlimited)
    lengths = {path: tuple(file.lengths[path] for file in files) for path in groups}
    return Concat(dim, first.new, tuple(file.place for file in files), lengths, groups, units)


def _target(first: str, every: Iterable[str]) -> str:
    """Units of the first file's date in the finest unit of all."""
    finest = min({unit_of(text) or "" for text in every}, key=lambda unit: MICROSECONDS[unit])
    return first if unit_of(first) == finest else f"{finest}s since {parsed('', first)[1]}"


def _coordinates(
    files: Sequence[_Steps], path: str, dim: str, units: str | None, variable: VariableFacts, calendar: str
) -> np.ndarray:
    """The coordinates of all files, in the data set's units; raises InputError unless they rise or fall all the way."""
    parts = []
    for file in files:
        values = file.coordinates[path]
        if units is not None:
            with _counting(file.place, dim):
                values = counted_anew(values, file.units[_full(path, dim)], units, calendar, _fills(variable))
        parts.append(values)
    whole = np.concatenate(parts)
    if whole.dtype.kind not in "fiu" or whole.size < 2:
        return whole
    rises, falls = whole[1:] > whole[:-1], whole[1:] < whole[:-1]
    direction, good = ("rise", rises) if rises.sum() >= falls.sum() else ("fall", falls)
    if good.all():
        return whole
    at = int(np.argmin(good))
    owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    before, after = files[owner[at]].place, files[owner[at + 1]].place
    said = f"{whole[at + 1]} follows {whole[at]}"
    if before == after:
        raise InputError(f"{after}: coordinate {dim!r} does not {direction} all the way ({said}); sort the file by it")
    raise InputError(
        f"{after}: overlaps with {before} along {dim!r} ({said}); leave one of them out, or cut what both have"
    )


class _counting:
    """Names the file and the variable in errors about times."""

    def __init__(self, place: str, name: str) -> None:
        self._where = f"{place}: variable {name!r}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, InputError):
            raise InputError(
                f"{self._where}: {error}; count the times of all files from one date (cdo setreftime)"
            ) from None


def opened(concat: Concat) -> Groups:
    """Open the data set that a `Concat` describes; no file is opened before values are used.

    Parameters
    ----------
    concat
        What `merge` returned.

    Returns
    -------
    dict
        As from `open_concat`.
    """
    files = _Files(concat)
    result: Groups = {}
    for path, group in concat.groups.items():
        variables = {}
        for name, facts in group.variables.items():
            data = (
                indexing.LazilyIndexedArray(_Whole(files, path, name)) if facts.values is None else _value(facts.values)
            )
            attrs, encoding = ({k: _value(v) for k, v in node.items()} for node in (facts.attrs, facts.encoding))
            if facts.dtype[1] == "f" and not {"_FillValue", "scale_factor", "add_offset"} & set(attrs):
                encoding["_FillValue"] = None  # as `open_groups` does it
            variables[name] = xr.Variable(facts.dims, data, attrs, encoding)
        dataset = xr.Dataset(variables, attrs={k: _value(v) for k, v in group.attrs.items()})
        dataset = dataset.set_coords([n for n, v in group.variables.items() if v.coordinate])
        dataset.encoding = {"unlimited_dims": set(group.unlimited)} if group.unlimited else {}
        dataset.set_close(files.close)
        result[path] = dataset
    return result


class _Files:
    """The files of a data set, of which a few are open at a time. Pickled, it is their description alone."""

    def __init__(self, concat: Concat) -> None:
        self.concat = concat
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._open: OrderedDict[str, Groups] = OrderedDict()
        self.begins = {path: np.concatenate([[0], np.cumsum(n)]) for path, n in self.concat.lengths.items()}

    def __getstate__(self) -> Concat:
        return self.concat

    def __setstate__(self, concat: Concat) -> None:
        self.__init__(concat)  # type: ignore[misc]

    def close(self) -> None:
        """Close what is open; it is opened again where it is needed."""
        with self._lock:
            while self._open:
                _close(self._open.popitem()[1])

    def read(self, file: int, path: str, name: str, key: tuple[Any, ...]) -> np.ndarray:
        """Read a part of a variable of one file."""
        place = self.concat.places[file]
        with self._lock:
            if place not in self._open:
                while len(self._open) >= _OPEN:
                    _close(self._open.popitem(last=False)[1])
                self._open[place] = open_groups(place)
            self._open.move_to_end(place)
            try:
                variable = self._open[place][path].variables[name]
                self._check(file, path, name, variable)
                return _native(np.asarray(variable[key].values))
            except NOT_DAMAGE:
                raise
            except VcinrError:
                _close(self._open.pop(place))  # so that whoever tries again does so with a new connection
                raise
            except Exception as error:  # every format's library has its own for a damaged file
                _close(self._open.pop(place))
                raise InputError(
                    f"{place}: variable {_full(path, name)!r} cannot be read ({one_line(error)}); is the file whole? "
                    "copy it again"
                ) from None

    def _check(self, file: int, path: str, name: str, variable: xr.Variable) -> None:
        """Raise InputError where a file is not what it was when the data set was put together."""
        facts, concat = self.concat.groups[path].variables[name], self.concat
        shape = list(facts.shape)
        if facts.digest is None and concat.new:
            del shape[0]
        elif facts.digest is None:
            shape[facts.dims.index(concat.dim)] = concat.lengths[path][file]
        if variable.shape != tuple(shape) or _native(np.empty(0, variable.dtype)).dtype.str != facts.dtype:
            raise InputError(
                f"{concat.places[file]}: variable {_full(path, name)!r} has changed since the files were put together; "
                "start again"
            )


class _Whole(BackendArray):
    """A variable of all files, which xarray reads when its values are asked for."""

    def __init__(self, files: _Files, path: str, name: str) -> None:
        facts = files.concat.groups[path].variables[name]
        self.files, self.path, self.name, self.shape, self.dtype = files, path, name, facts.shape, np.dtype(facts.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        concat = self.files.concat
        facts = concat.groups[self.path].variables[self.name]
        if facts.digest is not None:
            return self.files.read(0, self.path, self.name, key)
        axis = facts.dims.index(concat.dim)
        wanted = key[axis]
        if isinstance(wanted, slice):
            chosen = np.arange(self.shape[axis])[wanted]
            parts = [self._part(file, inside, key, axis) for file, inside in self._by_file(chosen)]
            if not parts:
                sizes = [len(range(n)[k]) for k, n in zip(key, self.shape, strict=True) if isinstance(k, slice)]
                return np.empty(sizes, self.dtype)
            # Indices before it leave no axis behind.
            return np.concatenate(parts, axis=sum(isinstance(k, slice) for k in key[:axis]))
        ((file, inside),) = self._by_file(np.array([wanted]) % self.shape[axis])
        return np.squeeze(self._part(file, inside, key, axis), axis=sum(isinstance(k, slice) for k in key[:axis]))

    def _by_file(self, chosen: np.ndarray) -> Iterator[tuple[int, slice]]:
        """Of steps that are evenly apart, those of each file, counted from its first."""
        begins = self.files.begins[self.path]
        owners = np.searchsorted(begins, chosen, side="right") - 1
        for cut in np.split(np.arange(len(chosen)), np.flatnonzero(np.diff(owners)) + 1):
            if not cut.size:
                continue
            inside = chosen[cut] - begins[owners[cut[0]]]
            step = int(inside[1] - inside[0]) if len(inside) > 1 else 1
            stop = int(inside[-1]) + (1 if step > 0 else -1)
            yield int(owners[cut[0]]), slice(int(inside[0]), stop if stop >= 0 else None, step)

    def _part(self, file: int, inside: slice, key: tuple[Any, ...], axis: int) -> np.ndarray:
        """The steps of one file, along their axis also where there is one."""
        concat = self.files.concat
        if concat.new:
            rest = key[:axis] + key[axis + 1 :]
            part = np.expand_dims(self.files.read(file, self.path, self.name, rest), 0)
        else:
            part = self.files.read(file, self.path, self.name, (*key[:axis], inside, *key[axis + 1 :]))
        full = _full(self.path, self.name)
        if full not in concat.units:
            return part
        group = concat.groups[self.path]
        target = _clock(group, self.name) or ""
        with _counting(concat.places[file], full):
            fills = _fills(group.variables[self.name])
            return counted_anew(part, concat.units[full][file], target, _calendar(group, self.name), fills)


def _close(groups: Groups) -> None:
    for group in groups.values():
        group.close()
