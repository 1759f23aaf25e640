"""Many files of one kind as one data set, and back: their signals share arrays, and so one stream.

Signals of equal shape, type and attributes are stacked along the dimension ``item``. Signals of a ragged kind, such as
sounds, are joined end to end instead, and ``row_size(item)`` says how long each is (CF's contiguous ragged arrays).
``name(item)`` keeps the files' names. Where signals differ in other ways, each sort of them is a group.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vcinr import formats, kinds
from vcinr.errors import InputError
from vcinr.formats.base import ITEM, KIND_OF_SIGNAL, NAME, ROW_SIZE, VOXELS, Groups
from vcinr.formats.open import open_dataset, open_groups
from vcinr.formats.write import write_dataset
from vcinr.kinds.base import Kind, Opened
from vcinr.kinds.deferred import Held, in_one
from vcinr.kinds.shape import RESOLUTION
from vcinr.places import is_url, suffix

_BESIDE = {"alpha", "icc_profile", "pose", "file"}  # variables that formats give a signal besides its own


def expanded(paths: Sequence[str]) -> list[str]:
    """Replace folders that are no store of a known format by the files in them, sorted by name.

    Raises
    ------
    InputError
        For a folder without files.
    """
    result: list[str] = []
    for path in paths:
        folder = Path(path).expanduser()
        if is_url(path) or not folder.is_dir() or _is_store(folder):
            result.append(path)
            continue
        files = sorted(str(f) for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
        if not files:
            raise InputError(f"{path}: a folder without files; give files, or a folder that has some")
        result += files
    return result


def _is_store(folder: Path) -> bool:
    """Whether a folder is of a known format itself."""
    return any((folder / member).exists() for form in formats.known() for member in form.members)


def kind_of_data(dataset: xr.Dataset) -> str | None:
    """The name of the kind of signal that a data set holds; None where it is of no such kind.

    It is one where it has the kind's variable, of the kind's dimensions, and nothing besides but what belongs to it. So
    a grid of many variables, of which one is called volume, is none.
    """
    for name, kind in kinds.every().items():
        if kind.variable is None or kind.variable not in dataset.data_vars:
            continue
        others = set(map(str, dataset.variables)) - {kind.variable}
        if others <= _BESIDE and set(kind.dims) <= set(map(str, dataset[kind.variable].dims)):
            return name
    return None


def _kind_that_takes(dataset: xr.Dataset) -> str | None:
    """The name of a kind that can be made of a data set of another kind, such as voxels of a mesh."""
    return next((name for name, kind in kinds.every().items() if set(kind.takes) & set(map(str, dataset))), None)


def kind_of_files(name: str | None) -> Kind | None:
    """The kind of that name, if each of its files is one signal; else None."""
    kind = kinds.every().get(str(name))
    return kind if kind is not None and kind.variable is not None else None


def open_files(
    paths: Sequence[str], kind: str | None = None, resolution: int | None = None
) -> tuple[Groups, list[str] | None]:  # fmt: skip
    """Open files that are to share an archive.

    Parameters
    ----------
    paths : sequence of str
        Paths or URLs of files, or folders of files.
    kind : str, optional
        The kind of their signals. Default: it is seen from the files.
    resolution : int, optional
        The voxels along each axis that meshes become. Several meshes become voxels, and a single one where this or the
        kind is given; else it stays a mesh.

    Returns
    -------
    groups : dict
        Data sets by group path: of files of one kind of signal as `joined` makes them, of any other single file as
        `vcinr.formats.open.open_groups` does.
    variables : list of str or None
        The variables that hold the signals; None for files of no such kind.

    Raises
    ------
    InputError
        For files that cannot be read or do not go together; the message names the file.
    """
    files = expanded(paths)
    first = open_groups(files[0])
    if kind is not None and kind not in kinds.every():
        raise InputError(f"kind {kind!r} is unknown; give one of {', '.join(kinds.every())}")
    seen = kind or kind_of_data(first[""])
    if seen is None and (len(files) > 1 or resolution is not None):
        seen = _kind_that_takes(first[""])
    spec = kind_of_files(seen)
    if seen is None or spec is None:
        if len(files) > 1:
            raise InputError(
                f"{files[1]}: several files share an archive only where each is one signal, such as an image; "
                f"compress files like {files[0]} one by one"
            )
        return first, None
    held = Held()
    opened = [(path, deferred(held, path, partial(open_dataset, path), spec)) for path in files]
    if spec.adapted is None and resolution is not None:
        raise InputError(f"{files[0]}: a resolution is for shapes, and this is of kind {seen}; leave it out")
    if spec.adapted is not None:
        voxels = resolution or RESOLUTION
        made = any(set(spec.takes) & set(map(str, dataset)) for _, dataset in opened)
        opened = [(path, spec.adapted(dataset, voxels)) for path, dataset in opened]
    groups = joined(opened, seen)
    if spec.adapted is not None and made:
        groups[""].attrs[VOXELS] = voxels
    return groups, [f"{path}/{spec.variable}".lstrip("/") for path in groups if groups[path].data_vars]


def deferred(held: Held, path: str, read: Callable[[], xr.Dataset], kind: Kind) -> xr.Dataset:
    """Open a file of a kind of which each is one signal, whose values are read again when they are used.

    Parameters
    ----------
    held : Held
        Holds few of the files.
    path : str
        The file.
    read : callable
        Opens it.
    kind : Kind
        Its kind. Where shapes are made of files, which takes long, or joined in a way of their own, they are read once.
    """
    once = kind.adapted is not None or kind.join is not None
    return read() if once else held.deferred(path, read, partial(_is_shared, kind=kind))


def joined(opened: Opened, kind: str) -> Groups:
    """Join the data sets of files, each of which holds one signal.

    Parameters
    ----------
    opened : list of (str, xarray.Dataset)
        Paths and data sets, as formats read them.
    kind : str
        The kind of their signals.

    Returns
    -------
    dict
        Data sets by group path: the root alone where all signals go together, else a group for each sort of them.

    Raises
    ------
    InputError
        For a data set of another kind, and for two files of one name; the message names the file.
    """
    spec = kinds.every()[kind]
    if spec.join is not None:
        return spec.join(opened)
    sorts: dict[str, Opened] = {}
    names: set[str] = set()
    for path, dataset in sorted(opened, key=lambda o: Path(o[0]).name):
        if spec.variable not in dataset.data_vars:
            have = ", ".join(map(str, dataset.data_vars)) or "nothing"
            raise InputError(f"{path}: no {spec.variable}, it holds {have}; compress it on its own")
        name = Path(path).name
        if name in names:
            raise InputError(f"{path}: two files are called {name}; rename one")
        names.add(name)
        sorts.setdefault(_sort(dataset, spec), []).append((name, dataset))
    groups: Groups = {}
    for members in sorts.values():
        path = "" if len(sorts) == 1 else _group_name(members[0][1], spec, set(groups))
        groups[path] = _whole(members, spec)
    groups.setdefault("", xr.Dataset())
    groups[""].attrs[KIND_OF_SIGNAL] = kind
    return dict(sorted(groups.items()))


def kind_of_archive(root: xr.Dataset) -> Kind | None:
    """The kind of the signals in an archive, by its root group; None for an archive of other data."""
    return kind_of_files(root.attrs.get(KIND_OF_SIGNAL))


def separated(groups: Groups) -> Opened:
    """Take joined data sets apart: inverse of `joined`, but for the paths, which are names of files."""
    kind = kind_of_archive(groups[""])
    assert kind is not None
    if kind.separate is not None:
        return kind.separate(groups)
    result: Opened = []
    for dataset in groups.values():
        if kind.variable not in dataset.data_vars:
            continue
        dataset = dataset.load()  # once, since signals share chunks
        parts = _of_ragged(dataset, kind) if kind.ragged else _of_stack(dataset)
        names = [str(n) for n in np.atleast_1d(dataset[NAME].values)]
        result += [
            (name, _as_file(part.drop_vars(NAME, errors="ignore"), kind))
            for name, part in zip(names, parts, strict=True)
        ]
    return sorted(result, key=lambda signal: signal[0])


def _as_file(dataset: xr.Dataset, kind: Kind) -> xr.Dataset:
    return _within_bits(dataset if kind.restored is None else kind.restored(dataset), kind)


def _within_bits(dataset: xr.Dataset, kind: Kind) -> xr.Dataset:
    """Clip the integers of a signal to the bits that its attribute `bits` states; lossy coding may have gone beyond."""
    assert kind.variable is not None
    variable = dataset[kind.variable]
    if "bits" not in variable.attrs or variable.dtype.kind != "i":
        return dataset
    most = 2 ** (int(np.ravel(variable.attrs["bits"])[0]) - 1)
    limits = np.iinfo(variable.dtype)
    values = np.clip(variable.values, max(-most, limits.min), min(most - 1, limits.max))
    return dataset.assign({kind.variable: variable.copy(data=values)})


def write_files(signals: Opened, kind: Kind, target: Path) -> list[Path]:
    """Write signals as files of the usual formats.

    Parameters
    ----------
    signals : list of (str, xarray.Dataset)
        From `separated`.
    kind : Kind
        Their kind.
    target : Path
        The file to write, where there is one signal and the name has a suffix; else the folder.

    Returns
    -------
    list of Path
        The files. A file is of its original's format where that is written without loss, and of the kind's usual format
        otherwise, such as PNG in place of JPEG.

    Raises
    ------
    InputError
        Where a file exists already or cannot be written; the message names it.
    """
    names, places = [target.name], [target]
    if len(signals) != 1 or not target.suffix or target.is_dir():
        names = [name for name, _ in signals]
        places = [target / name for name in _file_names(names, kind)]
    for place in [target, *places] if target.is_file() else places:
        if place.exists():
            raise InputError(f"{place}: exists already; choose another place or remove it")
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{place.parent}: cannot make this folder ({error.strerror})") from None
    return [
        _written(dataset, place, name, kind) for place, name, (_, dataset) in zip(places, names, signals, strict=True)
    ]


def _written(dataset: xr.Dataset, place: Path, name: str, kind: Kind) -> Path:
    """Write a signal to `place` or, where its own name ends differently, with the first ending that can hold it."""
    places = [place]
    if place.name != name and place.name.endswith(kind.endings[0]):
        others = (place.with_name(place.name.removesuffix(kind.endings[0]) + ending) for ending in kind.endings[1:])
        places += [other for other in others if not other.exists()]
    failed: InputError | None = None
    for attempt in places:
        try:
            write_dataset(dataset, attempt)
            return attempt
        except InputError as error:
            failed = failed or error
    assert failed is not None
    raise failed


def _file_names(names: list[str], kind: Kind) -> list[str]:
    """The names of the files in which signals come back, no two of them alike."""
    kept = {name for name in names if name.lower().endswith(kind.endings)}
    result: list[str] = []
    for name in names:
        if name in kept:
            result.append(name)
            continue
        known = suffix(name) in {ending for form in formats.known() for ending in form.suffixes}
        usual = (name[: -len(suffix(name))] if known else name) + kind.endings[0]
        taken = usual in kept or usual in result
        result.append(name + kind.endings[0] if taken else usual)  # a.jpg beside a.png is a.jpg.png
    return result


def _sort(dataset: xr.Dataset, kind: Kind) -> str:
    """A text that is equal for signals that can share an array."""
    facts: list[Any] = []
    for name, variable in sorted(dataset.variables.items()):
        shape = dict(variable.sizes)
        if kind.ragged:
            shape.pop(kind.dims[0], None)
        shared = _is_shared(str(name), variable, kind)
        content = hashlib.sha256(np.ascontiguousarray(variable.values).tobytes()).hexdigest() if shared else ""
        facts.append([name, list(shape.items()), variable.dtype.str, _text(variable.attrs), content])
    return json.dumps([facts, _text(dataset.attrs)])


def _text(attrs: Any) -> str:
    plain = {str(k): v.tolist() if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
    return repr(sorted((k, repr(v)) for k, v in plain.items()))


def _is_shared(name: str, variable: xr.Variable, kind: Kind) -> bool:
    """Whether a variable is no part of the signal's grid, such as a colour profile: it is stored once."""
    return name not in kind.own and not set(kind.dims) & set(map(str, variable.dims))


def _whole(members: Opened, kind: Kind) -> xr.Dataset:
    """Signals of one sort, stacked or end to end."""
    first, dim = members[0][1], kind.dims[0]
    variables: dict[str, Any] = {}
    for name, variable in first.variables.items():
        if _is_shared(str(name), variable, kind):
            variables[str(name)] = variable
            continue
        parts = [dataset.variables[name] for _, dataset in members]
        variables[str(name)] = in_one(parts, dim if kind.ragged else ITEM, stacked=not kind.ragged)
    if kind.ragged:
        sizes = np.array([dataset.sizes[dim] for _, dataset in members], np.int64)
        variables[ROW_SIZE] = xr.Variable((ITEM,), sizes, {"sample_dimension": dim})
    dataset = xr.Dataset(variables, attrs=first.attrs).set_coords([str(c) for c in first.coords])
    return dataset.assign_coords({NAME: (ITEM, np.array([name for name, _ in members], dtype=object))})


def _of_stack(dataset: xr.Dataset) -> list[xr.Dataset]:
    return [dataset.isel({ITEM: i}) for i in range(dataset.sizes[ITEM])]


def _of_ragged(dataset: xr.Dataset, kind: Kind) -> list[xr.Dataset]:
    ends = np.cumsum(dataset[ROW_SIZE].values)
    whole = dataset.drop_vars([ROW_SIZE, NAME])
    return [
        whole.isel({kind.dims[0]: slice(int(end) - int(size), int(end))})
        for end, size in zip(ends, dataset[ROW_SIZE].values, strict=True)
    ]


def _group_name(dataset: xr.Dataset, kind: Kind, taken: set[str]) -> str:
    """A name for a group of signals: their lengths, and a number where that is not enough."""
    assert kind.variable is not None
    variable = dataset[kind.variable]
    lengths = [str(n) for d, n in variable.sizes.items() if not (kind.ragged and d == kind.dims[0])]
    stem = "x".join([kind.variable, *lengths]).replace(f"{kind.variable}x", f"{kind.variable}-", 1)
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name
