"""Scattered points without a model: ``python -m benchmarks.unstructured [--out FILE]``.

Fields on meshes, on curvilinear grids and of stations, from public packages, each to four bounds as fractions of its
range. Ours goes through an archive, which holds the positions losslessly beside it, and plain xarray, and its figure
is that of the variable's chunks; it is also measured without positions. SZ3 gets the valid values alone, as a line of
float32, and of several times or levels also as points x planes, in the order of the file and in Morton order of the
positions; the best of its settings counts. What is masked is no value; what the mask takes in an archive is also given
apart, because no other figure includes one. ``kNN`` is a target, not a codec: the entropy of a coarse-to-fine code in
which a plane through the eight nearest known points predicts each point, plus eight bits for each symbol and level
(measured once for the project; see `TARGETS`). The exit status is 1 when a bound of ours does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import xarray as xr

import vcinr
from benchmarks.data.packages import FESOM, IRIS, NCARG
from benchmarks.measure.machine import record
from benchmarks.report.tables import aligned
from benchmarks.rivals import RIVALS
from vcinr.archive import metadata, positions
from vcinr.codec.chunk import describe
from vcinr.coding import neighbours
from vcinr.datasets.fetch import fetch
from vcinr.progress import Clock, Progress, Watch, silent, terminal

BOUNDS = (0.1, 0.05, 0.01, 0.001)  # fractions of the range of the valid values
TARGETS: dict[str, tuple[float, float, float, float]] = {
    "CAM-SE T850": (0.025, 0.062, 0.361, 1.91),
    "ICON ocean S": (0.052, 0.102, 0.463, 2.55),
    "geodesic height": (0.197, 0.345, 1.32, 4.74),
    "geodesic vorticity": (0.227, 0.389, 1.03, 2.89),
    "FESOM surface temp": (0.274, 0.533, 2.01, 5.58),
    "FESOM temp, 47 levels": (0.279, 0.534, 1.83, 5.20),
    "FESOM w, 48 levels": (0.098, 0.143, 0.459, 2.05),
    "Chesapeake depth": (0.704, 1.39, 3.59, 7.57),
    "NEMO ORCA1 tos": (0.041, 0.101, 0.588, 2.83),
    "SAO temperature": (0.652, 1.18, 3.39, 7.92),
}
"""Bits per valid value of the kNN column at `BOUNDS`."""


@dataclass(frozen=True, eq=False)
class Case:
    """A field with the coordinates by which an archive finds its points; NaN where it has no value."""

    name: str
    dataset: xr.Dataset
    variable: str

    @property
    def values(self) -> np.ndarray:
        """The values as float32, NaN where there are none."""
        return np.asarray(self.dataset[self.variable].values, np.float32)


def cases(raw: Path) -> Iterator[Case]:
    """Yield the fields, downloading packages into the folder `raw` first where they are not there."""
    ncarg = fetch(NCARG, raw) / "usr/share/ncarg/data"
    with _opened(ncarg / "nug/camse_unstructured_grid.nc") as data:
        yield _case("CAM-SE T850", data["T850"].values, ("node",), data["lat"], data["lon"])
    with _opened(ncarg / "nug/triangular_grid_ICON.nc") as data:
        wet = data["wet_c"].values[0] != 0
        surface = data["S"].values[0, 0, wet]
        yield _case("ICON ocean S", surface, ("node",), data["clat"][wet], data["clon"][wet])
    with _opened(ncarg / "cdf/hswm_d000000p000.g2.nc") as data:
        centre = data["grid_center_lat"], data["grid_center_lon"]
        yield _case("geodesic height", data["height"].values, ("time", "node"), *centre)
        yield _case("geodesic vorticity", data["relative"].values, ("time", "node"), *centre)
    tests = fetch(FESOM, raw) / "pyfesom2-0.4.1/tests/data"
    with _opened(tests / "pi-grid/fesom.mesh.diag.nc") as mesh:
        nodes, depths = (mesh["lat"], mesh["lon"]), mesh["nlevels_nod2D"].values
    for variable, name, dry in (("temp", "FESOM temp, 47 levels", 1), ("w", "FESOM w, 48 levels", 0)):
        with _opened(tests / f"pi-results/{variable}.fesom.1948.nc") as data:
            values = data[variable].values
        values = np.where(np.arange(values.shape[2]) < depths[:, None] - dry, values, np.nan)
        if variable == "temp":
            yield _case("FESOM surface temp", values[:, :, 0], ("time", "node"), *nodes)
        yield _case(name, values, ("time", "node", "level"), *nodes)
    with _opened(ncarg / "cdf/ctcbay.nc") as data:
        yield _case("Chesapeake depth", data["depth"].values, ("node",), data["lat"], data["lon"])
    files = sorted((fetch(IRIS, raw) / "iris_sample_data/sample_data/NEMO").glob("nemo_1m_2015*_grid-T.nc"))
    months = []
    for file in files:
        with _opened(file) as data:
            months.append(data["tos"].where(data["tos"] != data["tos"].attrs["_FillValue"]).values[0])
            grid = data["nav_lat"], data["nav_lon"]
    yield _case("NEMO ORCA1 tos", np.stack(months), ("time", "y", "x"), *grid)
    with _opened(ncarg / "cdf/950318_sao.cdf") as data:
        columns = {n: data[n].values.ravel() for n in ("lat", "lon", "T", "TD")}
        there = np.all([v > -9000 for v in columns.values()], axis=0)
        there &= np.all([np.abs(columns[n]) < 60 for n in ("T", "TD")], axis=0)  # a few reports are plainly wrong
        rows = {n: xr.Variable("node", v[there]) for n, v in columns.items()}
        yield _case("SAO temperature", rows["T"].values, ("node",), rows["lat"], rows["lon"])


def _opened(path: Path) -> xr.Dataset:
    return xr.open_dataset(path, decode_cf=False)


def _case(name: str, values: np.ndarray, dims: tuple[str, ...], latitude: Any, longitude: Any) -> Case:
    unit = {"units": "radian"} if str(latitude.attrs.get("units", "")).startswith("rad") else {"units": "degree"}
    points = dims[-2:] if latitude.ndim == 2 else ("node",)
    data = xr.Dataset(
        {
            "value": (dims, values.astype(np.float32), {"coordinates": "lat lon", "_FillValue": np.float32(np.nan)}),
            "lat": (points, latitude.values, {"standard_name": "latitude", **unit}),
            "lon": (points, longitude.values, {"standard_name": "longitude", **unit}),
        }
    )
    return Case(name, data, "value")


def ours(case: Case, fraction: float, folder: Path, *, located: bool = True) -> dict[str, Any]:
    """Compress a field through an archive in `folder`, read it with plain xarray, and compare; a row of figures.

    Where it is not `located`, the archive knows no positions.
    """
    archive, values = folder / "archive.zarr", case.values
    data = case.dataset if located else case.dataset[[case.variable]].drop_vars(["lat", "lon"], errors="ignore")
    begin = perf_counter()
    facts = vcinr.compress(data, archive, rel_error=fraction, variables=[case.variable], overwrite=True)
    encoded = perf_counter()
    with xr.open_zarr(archive, chunks=None) as opened:
        decoded = opened[case.variable].values
    seconds = perf_counter() - encoded
    valid, size = np.isfinite(values), facts["variables"][case.variable]["bytes"]
    parts = [describe(file.read_bytes()) for file in _files(archive, case.variable)]
    mask = sum(int(part.get(name) or 0) for part in parts for name in ("mask", "specials"))
    error = float(np.abs(decoded.astype(np.float64) - values)[valid].max())
    holds = error <= fraction * _spread(values[valid]) and np.array_equal(np.isfinite(decoded), valid)
    return {
        "codec": "vcinr" if located else "vcinr without positions", "bytes": size,
        "bits_per_value": 8 * size / valid.sum(), "bits_without_mask": 8 * (size - mask) / valid.sum(),
        "mask_bytes": mask, "held": bool(holds), "encode_seconds": encoded - begin, "decode_seconds": seconds,
        "coordinate_bytes": sum(f.stat().st_size for n in ("lat", "lon") for f in _files(archive, n)),
    }  # fmt: skip


def _files(archive: Path, name: str) -> list[Path]:
    """The chunks of an array."""
    return [file for file in sorted((archive / name / "c").rglob("*")) if file.is_file()]


def _spread(values: np.ndarray) -> float:
    return float(values.max()) - float(values.min())


FAMILIES = ("SZ3", "SPERR", "linear + pcodec")


def rivals(case: Case, fraction: float) -> list[dict[str, Any]]:
    """The smallest of each rival's settings on the valid values, in two orders; a row of figures of each."""
    located = positions.locate({"": metadata.stored(case.dataset)}, case.variable)
    assert located is not None
    points, dims = located.positions.points, case.dataset[case.variable].dims
    planes = np.moveaxis(case.values, dims.index("node"), -1) if "node" in dims else case.values
    planes = planes.reshape(-1, len(points))
    bound = fraction * _spread(planes[np.isfinite(planes)])
    sizes: dict[str, dict[str, int]] = {family: {} for family in FAMILIES}
    for order, ranks in (("file", np.arange(len(points))), ("Morton", np.argsort(neighbours.morton(points)))):
        for form, given in _forms(planes[:, ranks]):
            for family in FAMILIES:
                for codec in RIVALS[family]:
                    sizes[family][f"{codec.name}, {order} order, {form}"] = len(codec.encode(given, bound))
    rows = []
    for family, found in sizes.items():
        setting = min(found, key=lambda name: found[name])
        bits = 8 * found[setting] / np.isfinite(planes).sum()
        rows.append({"codec": family, "bytes": found[setting], "bits_per_value": bits, "setting": setting})
    return rows


def _forms(planes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The valid values in a line; and points x planes, where each point has a value in the first plane.

    What is not valid, such as the points of a column below the sea floor, then takes the value of the plane before.
    """
    valid = np.isfinite(planes)
    yield "values", planes[valid]
    if len(planes) > 1 and valid[0].all():
        filled = planes.copy()
        for k in range(1, len(filled)):
            filled[k] = np.where(valid[k], filled[k], filled[k - 1])
        yield "points x planes", np.ascontiguousarray(filled.T)


def measure(raw: Path, watch: Watch = silent) -> list[dict[str, Any]]:
    """Return a row for every field, bound and codec; packages are unpacked in the folder `raw`."""
    rows: list[dict[str, Any]] = []
    done, total = 0, len(TARGETS) * len(BOUNDS)
    clock = Clock(total)
    for case in cases(raw):
        for fraction, target in zip(BOUNDS, TARGETS[case.name], strict=True):
            valid = int(np.isfinite(case.values).sum())
            about = {"field": case.name, "values": valid, "bound_fraction": fraction, "target": target}
            with tempfile.TemporaryDirectory(prefix="unstructured-") as folder:
                found = [ours(case, fraction, Path(folder), located=located) for located in (True, False)]
            rows += [{**about, **row} for row in (*found, *rivals(case, fraction))]
            done += 1
            watch(Progress(f"{case.name}, {fraction:g}", done, total, {}, clock.left(done)))
    return rows


def by_codec(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    """Return the rows of each field and bound, by codec."""
    groups: dict[tuple[str, float], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["field"], row["bound_fraction"]), {})[row["codec"]] = row
    return list(groups.values())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a text with a line for each field and bound."""
    heads = ["field", "values", "bound", "vcinr", "of it mask", "without positions", *FAMILIES, "kNN", "vcinr / kNN"]
    lines = [heads]
    for group in by_codec(rows):
        mine, unlocated = group["vcinr"], group["vcinr without positions"]
        figures = (
            mine["bits_per_value"] - mine["bits_without_mask"], unlocated["bits_per_value"],
            *(group[family]["bits_per_value"] for family in FAMILIES),
            mine["target"], mine["bits_without_mask"] / mine["target"],
        )  # fmt: skip
        bound, bits = f"{mine['bound_fraction']:g}", f"{mine['bits_per_value']:.3f}{'' if mine['held'] else ' !'}"
        lines.append([mine["field"], str(mine["values"]), bound, bits, *(f"{f:.3f}" for f in figures)])
    return (
        f"{aligned(lines)}\n\nBits per valid value; the last column without the mask. !: a bound or a mask that broke."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the table; return 1 when a bound of ours does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unstructured", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/unstructured.json"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="where packages are unpacked")
    options = parser.parse_args(arguments)
    rows = measure(options.raw, terminal)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record(rows=rows), indent=1) + "\n")
    print(table(rows))
    return 1 if any(row.get("held") is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
