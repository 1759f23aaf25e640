"""Scattered points without a model: ``python -m benchmarks.unstructured [--out FILE]``.

Fields on meshes, on curvilinear grids and of stations, from public packages, each to four bounds as fractions of its
range. Ours goes through an archive, which holds the positions losslessly beside it, and plain xarray, and its figure is
that of the variable's chunks. SZ3 gets the valid values alone, as a line of float32, in the order of the file and in
Morton order of the positions, and the best of its settings counts; of several levels it gets a plane of points x
levels. What is masked is no value; what the mask takes in an archive is also given apart, because no other figure
includes one. ``kNN`` is a target, not a codec: the entropy of a coarse-to-fine code in which a plane through the eight
nearest known points predicts each point, plus eight bits for each symbol and level (measured once for the project; see
`TARGETS`). The exit status is 1 when a bound of ours does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
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
from benchmarks.rivals import sz3
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


def ours(case: Case, fraction: float, folder: Path) -> dict[str, Any]:
    """Compress a field through an archive in `folder`, read it with plain xarray, and compare; a row of figures."""
    archive, values = folder / "archive.zarr", case.values
    begin = perf_counter()
    facts = vcinr.compress(case.dataset, archive, rel_error=fraction, variables=[case.variable], overwrite=True)
    encoded = perf_counter()
    with xr.open_zarr(archive, chunks=None) as data:
        decoded = data[case.variable].values
    seconds = perf_counter() - encoded
    valid, found = np.isfinite(values), facts["variables"][case.variable]
    sizes = []
    for key in sorted((archive / case.variable / "c").rglob("*")):
        if key.is_file():
            sizes.append(describe(key.read_bytes()))
    spread = float(values[valid].max()) - float(values[valid].min())
    error = np.abs(decoded.astype(np.float64) - values)[valid].max()
    holds = bool(error <= fraction * spread) and np.array_equal(np.isfinite(decoded), valid)
    mask = sum(int(s.get("mask") or 0) + int(s.get("specials") or 0) for s in sizes)
    coordinates = sum(p.stat().st_size for n in ("lat", "lon") for p in (archive / n / "c").rglob("*") if p.is_file())
    return {
        "codec": "vcinr", "bytes": found["bytes"], "bits_per_value": 8 * found["bytes"] / valid.sum(),
        "mask_bytes": mask, "bits_without_mask": 8 * (found["bytes"] - mask) / valid.sum(), "held": holds,
        "coordinate_bytes": coordinates, "encode_seconds": encoded - begin, "decode_seconds": seconds,
    }  # fmt: skip


def rival(case: Case, fraction: float) -> dict[str, Any]:
    """The smallest of SZ3's settings on the valid values, in two orders; a row of figures."""
    located = positions.locate({"": metadata.stored(case.dataset)}, case.variable)
    assert located is not None
    points = len(located.positions.points)
    values = case.values
    if values.shape[-2:] != located.positions.points.shape[:1] and case.dataset["lat"].ndim == 1:
        values = np.moveaxis(values, case.dataset[case.variable].dims.index("node"), -1)
    plane = values.reshape(-1, points)
    valid = np.isfinite(plane)
    spread = float(plane[valid].max()) - float(plane[valid].min())
    best: dict[str, Any] = {}
    morton = np.argsort(neighbours.morton(located.positions.points), kind="stable")
    for order, ranks in (("file", np.arange(points)), ("Morton", morton)):
        line, here = plane[:, ranks], valid[:, ranks]
        forms = {"values": line[here]}
        if here.all() or len(line) > 3:  # dry points of a column take the value above them
            filled = line.copy()
            for k in range(1, len(filled)):
                filled[k] = np.where(here[k], filled[k], filled[k - 1])
            if np.isfinite(filled).all():
                forms["points x planes"] = np.ascontiguousarray(filled.T)
        for form, given in forms.items():
            for codec in sz3.SZ3:
                size = len(codec.encode(given, fraction * spread))
                if not best or size < best["bytes"]:
                    best = {"codec": "SZ3", "bytes": size, "setting": f"{codec.name}, {order} order, {form}"}
    return {**best, "bits_per_value": 8 * best["bytes"] / valid.sum(), "held": None}


def measure(raw: Path, watch: Watch = silent) -> list[dict[str, Any]]:
    """Return a row for every field, bound and codec; packages are unpacked in the folder `raw`."""
    rows, clock, total = [], Clock(len(TARGETS) * len(BOUNDS)), len(TARGETS) * len(BOUNDS)
    for case in cases(raw):
        for fraction, target in zip(BOUNDS, TARGETS[case.name], strict=True):
            valid = int(np.isfinite(case.values).sum())
            about = {"field": case.name, "values": valid, "bound_fraction": fraction, "target": target}
            with tempfile.TemporaryDirectory(prefix="unstructured-") as folder:
                rows += [{**about, **ours(case, fraction, Path(folder))}, {**about, **rival(case, fraction)}]
            done = len(rows) // 2
            watch(Progress(f"{case.name}, {fraction:g}", done, total, {}, clock.left(done)))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a text with a line for each field and bound."""
    lines = [["field", "values", "bound", "vcinr", "without mask", "kNN", "of kNN", "SZ3", "of SZ3"]]
    for mine, other in zip(rows[::2], rows[1::2], strict=True):
        bits, theirs = mine["bits_without_mask"], other["bits_per_value"]
        figures = (bits, mine["target"], bits / mine["target"], theirs, bits / theirs)
        lines.append(
            [
                mine["field"], str(mine["values"]), f"{mine['bound_fraction']:g}",
                f"{mine['bits_per_value']:.3f}{'' if mine['held'] else ' !'}", *(f"{f:.3f}" for f in figures),
            ]
        )  # fmt: skip
    return f"{aligned(lines)}\n\nBits per valid value; ! a bound or a mask that does not hold."


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
    return 1 if any(row["held"] is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
