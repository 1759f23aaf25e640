"""Models of the benchmarks' data sets: how each is trained, and which ones know a variable."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xarray as xr

from benchmarks.data import speedy
from benchmarks.data.climate import DATASETS, Case
from vcinr.codec.promise import Field
from vcinr.config import Inr, Meta, Params, Quantiser
from vcinr.inr.model import Model, load_model
from vcinr.signals.tiling import layout_of
from vcinr.training import train

MODELS = Path("models")


@dataclass(frozen=True)
class Plan:
    """How the model models/NAME.vcinr of a data set is trained.

    Parameters
    ----------
    name : str
        Of the file.
    variables : tuple of str
        What it is trained on; all variables, if none are named.
    dims : tuple of str, optional
        Dimensions of a signal; by default the horizontal ones.
    params : Params
        Of network and training.
    """

    name: str
    variables: tuple[str, ...] = ()
    dims: tuple[str, ...] | None = None
    params: Params = field(default_factory=Params)


LEVELS = ("level", "lat", "lon")
ALL, HEIGHT, PRESSURE = speedy.VARIABLES[:5], speedy.VARIABLES[4:5], speedy.VARIABLES[5:6]
COARSE, FINE = (1.0, 10.0, 100.0, 1000.0, 10000.0), (1e1, 3e1, 1e2, 3e2, 1e3, 3e3, 1e4, 1e5, 1e6, 1e7)
PLANS: dict[str, tuple[Plan, ...]] = {
    "hadgem": (Plan("hadgem"),),  # the pipeline's
    "era5": (Plan("era5"),),
    "navy": (Plan("navy"),),
    "speedy": (  # two small ones, which pay for themselves within a year, and two larger ones for many years
        Plan("speedy-levels", ALL, LEVELS, Params(
            inr=Inr(width=64, latent=24), meta=Meta(steps=7000, points=1024, outer_rate=4e-3, validate_every=500),
            quantiser=Quantiser(lambdas=COARSE, steps=1000),
        )),
        Plan("speedy-surface", PRESSURE, None, Params(
            inr=Inr(width=32, latent=12), meta=Meta(steps=4000, points=1024, outer_rate=3e-3),
            quantiser=Quantiser(lambdas=COARSE[:4], steps=1000),
        )),
        Plan("speedy-geopotential", HEIGHT, LEVELS, Params(
            inr=Inr(width=256, depth=5, latent=64), meta=Meta(steps=5500, batch=8, points=1024, validate_every=500),
            quantiser=Quantiser(lambdas=FINE),
        )),
        Plan("speedy-pressure", PRESSURE, None, Params(
            inr=Inr(width=192), meta=Meta(steps=3000, batch=8, points=1024),
        )),
    ),
}  # fmt: skip


def models_of(case: Case) -> dict[str, Model]:
    """Return the trained models of the data set that know the variable, by name."""
    paths = {plan.name: MODELS / f"{plan.name}.vcinr" for plan in PLANS.get(case.dataset, ())}
    models = {name: load_model(path) for name, path in paths.items() if path.exists()}
    return {name: model for name, model in models.items() if case.variable in model.normalisation}


def field_of(case: Case, model: Model | None) -> Field:
    """Return what the chunk codec knows of the case."""
    layout = layout_of(case.test, None if model is None else model.dims)
    axes = tuple(case.test.dims.index(d) for d in layout.dims)
    scaling = (0.0, 1.0) if model is None else model.scaling(case.variable)
    return Field(case.variable, axes, layout.grid, model, scaling)


def train_models(names: Sequence[str], threads: int) -> None:
    """Train the models of the data sets `names` that are not trained yet."""
    for name in names:
        plans = [plan for plan in PLANS[name] if not (MODELS / f"{plan.name}.vcinr").exists()]
        if not plans:
            continue
        fields = {
            str(first.name): first.drop_vars([c for c in first.coords if c not in first.dims])
            for first, _ in DATASETS[name]()
        }
        for variable in (data := xr.Dataset(fields)).variables.values():
            variable.encoding = {}
        for plan in plans:
            began, out = time.perf_counter(), MODELS / f"{plan.name}.vcinr"
            part = data[list(plan.variables)] if plan.variables else data
            params = plan.params.model_copy(update={"threads": threads})
            model = train(part, out, signal_dims=plan.dims, params=params)
            print(f"{out}: {len(model.data):,} bytes, {time.perf_counter() - began:.0f} s", flush=True)
