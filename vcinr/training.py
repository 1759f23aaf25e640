"""Train a model for a data set in one call: ingestion, meta-training, modulations, quantiser.

The same stage functions as the pipeline's, chained in a work folder beside the output, which survives an
interruption and lets the next call resume, and is removed when the model is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import xarray as xr

from vcinr.config import Params, Selection, Source, Tiling
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
    system: Literal["auto", "box", "sphere"] = "auto",
    params: Params | None = None,
    watch: Watch = silent,
) -> Model:
    """Train a model on `inputs` (files or one Dataset) and write it to `out`.

    Every `variables` (default: all numeric ones) on the common grid becomes signals over `signal_dims`
    (default: the horizontal, or the last two). `params` gives network, training and quantiser parameters
    (default: those of :class:`vcinr.config.Params`). Raises InputError or ConfigError.
    """
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
    tiling = Tiling(signal_dims=tuple(signal_dims) if signal_dims else None, system=system)
    source = Source(variables=tuple(variables), train=chosen, archive=chosen, tiling=tiling)
    signals = work / "signals.zarr"
    try:
        ingest(source, work, signals, watch)
        meta_train(
            signals, params.inr, params.meta, seed=params.seed, threads=params.threads, out=work / "training",
            checkpoint=work / "checkpoint", device=params.device, watch=watch,
        )  # fmt: skip
        trained, modulations = work / "training" / "model.vcinr", work / "modulations.zarr"
        extract_modulations(signals, trained, modulations, threads=params.threads, device=params.device, watch=watch)
        train_quantiser(
            signals, trained, modulations, params.quantiser, seed=params.seed, threads=params.threads, out=out,
            history=work / "quantiser.csv", device=params.device, watch=watch,
        )  # fmt: skip
    except InputError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return load_model(out)
