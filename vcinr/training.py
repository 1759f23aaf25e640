"""Train a model for a data set in one call: ingestion, meta-training, modulations, quantiser.

The stages are the functions that the pipeline uses. They run in a work folder beside the output, which survives an
interruption, so that the next call resumes; it is removed when the model has been written.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import xarray as xr

from vcinr import kinds, stages
from vcinr.config import META_SHARE, QUANTISER_SHARE, Params, Selection, Source, Tiling, parse
from vcinr.datasets.ingest import ingest
from vcinr.errors import InputError
from vcinr.formats.open import open_dataset, open_groups
from vcinr.kinds.base import PATCHES_IN_A_TILE, Kind
from vcinr.kinds.files import expanded, kind_of_data, kind_of_files
from vcinr.kinds.scenes import join
from vcinr.models import AnyModel, load_model
from vcinr.progress import Watch, silent
from vcinr.scenes.sets import views_of
from vcinr.scenes.train import train_scenes
from vcinr.signals.graph import EIGENVECTORS


def train(
    inputs: str | Path | xr.Dataset | Sequence[str | Path],
    out: str | Path,
    *,
    variables: Sequence[str] = (),
    signal_dims: Sequence[str] | None = None,
    feature_dim: str | None = None,
    system: Literal["auto", "box", "sphere", "spectral"] = "auto",
    eigenvectors: int = EIGENVECTORS,
    kind: str | None = None,
    params: Params | None = None,
    watch: Watch = silent,
) -> AnyModel:
    """Train a model and write it.

    Parameters
    ----------
    inputs : str, Path, Dataset or sequence of paths
        The data that the model learns from.
    out : str or Path
        The model file to write.
    variables : sequence of str
        Variables to learn, which must share one grid. Default: all numeric ones.
    signal_dims : sequence of str, optional
        Dimensions of one signal. Default: the horizontal ones, or the last two.
    feature_dim : str, optional
        The dimension along which the features of a point lie, such as the components of a wind: they share a latent.
    system : str
        How coordinates enter the network: ``sphere``, ``box``, ``auto``, or ``spectral`` for the nodes of a graph (see
        `vcinr.config.Tiling`).
    eigenvectors : int
        For ``spectral``: the number of eigenvectors.
    kind : str, optional
        The kind of signal (:mod:`vcinr.kinds`). Default: it is seen from the first file.
    params : Params, optional
        Parameters of network, training and quantiser. Default: those of the method ``basis`` or, for kinds of which
        each file is one signal, ``experts``. Its `minutes`
        limit the time of the whole call: meta-training and the quantiser share what ingestion and extraction leave.
        When an interrupted run is resumed, the time that its meta-training took is included.
    watch : callable
        Is told of progress.

    Returns
    -------
    Model or PatchModel
        The model that was written.

    Raises
    ------
    InputError
        For data that cannot be read or learned from.
    ConfigError
        For parameters that do not fit together.
    """
    began, out = time.monotonic(), Path(out)
    if out.is_dir():
        raise InputError(f"{out}: this is a folder; name the model's file, for example {out / 'model.vcinr'}")
    work_folder = out.with_name(f".{out.name}.work")
    if isinstance(inputs, xr.Dataset):
        _make(work_folder, out)
        inputs.to_netcdf(work_folder / "input.nc")
        inputs = work_folder / "input.nc"
    paths = expanded([str(inputs)] if isinstance(inputs, str | Path) else [str(p) for p in inputs])
    kind = kind or kind_of_data(open_groups(paths[0])[""]) or "grid"
    of_files = kind_of_files(kind)
    params = params or _usual(kind)
    if kind == "scenes":
        _train_scenes(paths, out, params, watch)
        return load_model(out)
    tiling = Tiling(
        signal_dims=tuple(signal_dims) if signal_dims else None, feature_dim=feature_dim, system=system,
        eigenvectors=eigenvectors,
    )  # fmt: skip
    own: dict[str, int] = {}
    if of_files is not None:
        own, paths = _tile(paths, of_files, params.method)
    chosen = tuple(Selection(path=p) for p in paths)
    source = Source(
        kind=kind,
        variables=tuple(variables),
        train=chosen,
        archive=chosen,
        tiling=tiling,
        **own,  # type: ignore[arg-type]
    )
    signals = work_folder / "signals.zarr"
    _make(work_folder, out)
    try:
        ingest(source, work_folder, signals, watch)
        budget = None if params.minutes is None else max(1.0, 60 * params.minutes - (time.monotonic() - began))
        folder, modulations, started = work_folder / "training", work_folder / "modulations.zarr", time.monotonic()
        summary = stages.learn(
            params, signals, folder, work_folder / "checkpoint",
            seconds=None if budget is None else META_SHARE * budget, watch=watch,
        )  # fmt: skip
        # Those of meta-training in runs that were interrupted:
        resumed_seconds = max(0.0, summary["seconds"] - (time.monotonic() - started))
        trained = folder / stages.TRAINED
        if params.method != "experts":  # which are complete without
            stages.extract(params, signals, trained, modulations, watch)
        remaining = None if budget is None else _quantiser_seconds(budget, resumed_seconds + time.monotonic() - started)
        stages.complete(
            params, signals, trained, modulations, out, work_folder / "quantiser.csv", seconds=remaining, watch=watch
        )
    except InputError:
        shutil.rmtree(work_folder, ignore_errors=True)
        raise
    shutil.rmtree(work_folder, ignore_errors=True)
    return load_model(out)


def _train_scenes(paths: Sequence[str], out: Path, params: Params, watch: Watch) -> None:
    """Train a model of scenes, each of which is a transforms.json."""
    if params.method != "experts":
        raise InputError(f"{paths[0]}: scenes are learned by the method experts, not by {params.method}; leave it out")
    scenes = [views for path in paths for views in views_of(join([(path, open_dataset(path))])[""], path)]
    train_scenes(scenes, params.patches, seed=params.seed, out=out, watch=watch)


def _quantiser_seconds(budget: float, spent: float) -> float:
    """Seconds of a budget in which the quantiser may learn.

    Some of the rest is kept for assessing it, but it always gets a little time.
    """
    share = QUANTISER_SHARE / (1 - META_SHARE)
    return max(0.02 * budget, share * (budget - spent))


def _make(folder: Path, out: Path) -> None:
    """Make the work folder beside the model's file; raises InputError, which names `out`, where that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot write there ({error.strerror}); choose another place") from None


def usual_params(inputs: Sequence[str], kind: str | None = None, method: str = "", profile: str = "cpu") -> Params:
    """The parameters that `train` takes for inputs, of their usual method or of another one.

    Parameters
    ----------
    inputs : sequence of str
        Files or folders of files.
    kind : str, optional
        The kind of signal. Default: it is seen from the first file.
    method, profile : str
        The method; by default ``experts`` where each file is one signal, else ``basis``. And its size.

    Raises
    ------
    InputError
        For a first file that cannot be read.
    ConfigError
        For an unknown method or profile.
    """
    return _usual(kind or kind_of_data(open_groups(expanded(list(inputs))[0])[""]) or "grid", method, profile)


def _usual(kind: str, method: str = "", profile: str = "cpu") -> Params:
    """The parameters that suit a kind."""
    spec = kinds.every().get(kind)
    given = {"method": method or None, "profile": profile}
    return parse(given if spec is None else kinds.with_usual(given, spec), "method")


_LEARNED = 0.9
"""Share of the values of all signals that are in those from which tiles are cut, at least."""


def _tile(paths: list[str], kind: Kind, method: str) -> tuple[dict[str, int], list[str]]:
    """Lengths of the tiles to learn from, by the names of the kind's parameters, and the files that have such tiles.

    They are the usual lengths, or less where too many signals are shorter than that, and where there would be a single
    tile. The few signals that are shorter still, such as an icon among photographs, are left out.
    """
    fields = kind.options.model_fields
    apart = int("frames" in fields)  # leading dimensions of which the tiles have a length of their own
    lengths, sizes, known = [], [], []  # of each signal: those of its dimensions, number of values, attributes
    for path in paths:
        dataset = open_dataset(path)
        # A file without such a signal counts as a long one, so that it is kept for a message that names it.
        signal = dataset[kind.variable].sizes if kind.variable in dataset else dict.fromkeys(kind.dims, sys.maxsize)
        lengths.append([signal.get(d, 0) for d in kind.dims])
        sizes.append(math.prod(signal.values()) if kind.variable in dataset else 0)
        known.append(dataset[kind.variable].attrs if kind.variable in dataset else {})
    shortest = [min(n[apart:]) for n in lengths]
    frames = [n[0] for n in lengths]
    usual = int(fields["tile"].default)
    if method != "experts" and kind.network_tile is not None:
        usual = kind.network_tile
    elif kind.patch_length is not None:
        length = kind.patch_length([(attrs, n[0]) for attrs, n in zip(known, lengths, strict=True)])
        usual = usual if length is None else PATCHES_IN_A_TILE * length
    own = {"tile": _reached(shortest, sizes, usual)}
    if apart:
        own["frames"] = _reached(frames, sizes, int(fields["frames"].default))
    along = [own["frames"]] if apart else []

    def tiles(signal: list[int]) -> int:
        each = along + [own["tile"]] * (len(signal) - apart)
        return math.prod(n // size for n, size in zip(signal, each, strict=True))

    while own["tile"] > 1 and sum(map(tiles, lengths)) < 2:
        own["tile"] //= 2
    return own, [path for path, signal in zip(paths, lengths, strict=True) if tiles(signal)] or paths


def _reached(lengths: list[int], sizes: list[int], usual: int) -> int:
    """The usual length of tiles, or the largest that signals with `_LEARNED` of all values reach."""
    falling = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    last = next(i for k, i in enumerate(falling, 1) if sum(sizes[j] for j in falling[:k]) >= _LEARNED * sum(sizes))
    return max(1, min(usual, lengths[last]))
