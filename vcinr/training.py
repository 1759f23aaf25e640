"""Train a model for a data set in one call: ingestion, meta-training, modulations, quantiser.

The same stage functions as the pipeline's, chained in a work folder beside the output, which survives an
interruption and lets the next call resume, and is removed when the model is written.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import xarray as xr

from vcinr.config import META_SHARE, QUANTISER_SHARE, Params, Selection, Source, Tiling
from vcinr.datasets.ingest import ingest
from vcinr.errors import InputError
from vcinr.inr.model import Model, load_model
from vcinr.meta.extract import extract_modulations
from vcinr.meta.outer import meta_train
from vcinr.progress import Watch, silent
from vcinr.quantise.train import train_quantiser


def train(
    inputs: str | Path | xr.Dataset | Sequence[str | Path],
    out: str | Path,
    *,
    variables: Sequence[str] = (),
    signal_dims: Sequence[str] | None = None,
    feature_dim: str | None = None,
    system: Literal["auto", "box", "sphere"] = "auto",
    params: Params | None = None,
    watch: Watch = silent,
) -> Model:
    """Train a model and write it.

    Parameters
    ----------
    inputs : str, Path, Dataset or sequence of paths
        What it learns from.
    out : str or Path
        The model's file.
    variables : sequence of str
        Default: all numeric ones. They share one grid.
    signal_dims : sequence of str, optional
        Dimensions of one signal. Default: the horizontal, or the last two.
    feature_dim : str, optional
        The dimension along which the features of a point lie, such as the components of a wind: they share a latent.
    system : str
        How coordinates enter the network.
    params : Params, optional
        Network, training and quantiser; default: those of :class:`vcinr.config.Params`. Its `minutes` are the time that
        all of it may take: what ingestion and extraction leave is shared by meta-training and the quantiser. Time of an
        interrupted run's meta-training counts when it goes on.
    watch : callable
        Is told of progress.

    Returns
    -------
    Model
        What was written.

    Raises
    ------
    InputError
        For data that cannot be read or learned from.
    ConfigError
        For parameters that do not go together.
    """
    began = time.monotonic()
    params, out = params or Params(), Path(out)
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name the model's file, for example {out / 'model.vcinr'}")
    work = out.with_name(f".{out.name}.work")
    work.mkdir(parents=True, exist_ok=True)
    if isinstance(inputs, xr.Dataset):
        inputs.to_netcdf(work / "input.nc")
        inputs = work / "input.nc"
    paths = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    chosen = tuple(Selection(path=str(p)) for p in paths)
    tiling = Tiling(signal_dims=tuple(signal_dims) if signal_dims else None, feature_dim=feature_dim, system=system)
    source = Source(variables=tuple(variables), train=chosen, archive=chosen, tiling=tiling)
    signals = work / "signals.zarr"
    try:
        ingest(source, work, signals, watch)
        budget = None if params.minutes is None else max(1.0, 60 * params.minutes - (time.monotonic() - began))
        trained, modulations = work / "training" / "model.vcinr", work / "modulations.zarr"
        started = time.monotonic()
        summary = meta_train(
            signals, params.inr, params.meta, seed=params.seed, threads=params.threads, out=work / "training",
            checkpoint=work / "checkpoint", device=params.device,
            seconds=None if budget is None else META_SHARE * budget, watch=watch,
        )  # fmt: skip
        earlier = max(0.0, summary["seconds"] - (time.monotonic() - started))  # of runs that were interrupted
        extract_modulations(signals, trained, modulations, threads=params.threads, device=params.device, watch=watch)
        left = None if budget is None else _left(budget, earlier + time.monotonic() - started)
        train_quantiser(
            signals, trained, modulations, params.quantiser, seed=params.seed, threads=params.threads, out=out,
            history=work / "quantiser.csv", device=params.device, seconds=left, watch=watch,
        )  # fmt: skip
    except InputError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return load_model(out)


def _left(budget: float, spent: float) -> float:
    """Seconds of a budget that the quantiser may learn for, less what judging it takes; never none at all."""
    share = QUANTISER_SHARE / (1 - META_SHARE)
    return max(0.02 * budget, share * (budget - spent))
