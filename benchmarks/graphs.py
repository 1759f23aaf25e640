"""Signals on a graph: ``python -m benchmarks.graphs [--out FILE]``.

FESOM2's temperature on its mesh of 3,140 nodes, without the nodes' positions: they enter the network of the method
basis as spectral coordinates, of 16, 32 and 64 eigenvectors. Beside them are the same network with the positions, as
unit vectors on the sphere, the same with the number of the node as its only coordinate, and the EOFs of the training
signals. A signal is a level of a year in which at least half of the nodes are wet; the annual means of 1948 and 1949
have 35 such levels each. Every third level is tested in both years and never seen in training, its neighbours above
and below are. A fifth of the others chooses the network's parameters that are kept. PSNRs are before quantisation, over
wet nodes, with the range of the training signals as the peak, and are means over the test signals.

Then the test levels are compressed to bounds, with a model on the graph and without one, each with and without the
nodes' positions in the file, by which the residual coder finds neighbours. The exit status is 1 when a bound does not
hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import xarray as xr

import vcinr
from benchmarks.data.packages import FESOM
from benchmarks.measure.machine import record
from benchmarks.report.tables import aligned
from vcinr.config import Params, preset
from vcinr.datasets.fetch import fetch
from vcinr.inr.at import ModelAt
from vcinr.inr.model import Model, load_model
from vcinr.meta.outer import meta_train
from vcinr.progress import Clock, Progress, Watch, silent, terminal
from vcinr.quality import psnr_of
from vcinr.signals import Signals, SignalSet
from vcinr.signals.graph import Graph, graph_of, spectral_coordinates, system_of
from vcinr.signals.store import normalisation_of

YEARS = (1948, 1949)
EIGENVECTORS = (16, 32, 64)
LATENTS = (4, 8, 16, 32)
BOUNDS = (0.1, 0.05, 0.01, 0.001)  # fractions of the range of the test levels
STEPS = 1000
GEOGRAPHIC, NUMBER, EOF = "unit sphere", "node number", "EOF"
SPECTRAL = {f"spectral, {k}": k for k in EIGENVECTORS}
NAMES = (*SPECTRAL, GEOGRAPHIC, NUMBER)


@dataclass(frozen=True, eq=False)
class Ocean:
    """Levels of temperature on a mesh.

    Attributes
    ----------
    values : numpy.ndarray
        float32 ``[year, level, node]``, NaN below the sea floor.
    graph : Graph
        The mesh.
    latitude, longitude : numpy.ndarray
        Positions of the nodes in degrees, float64.
    """

    values: np.ndarray
    graph: Graph
    latitude: np.ndarray
    longitude: np.ndarray

    @property
    def levels(self) -> dict[str, list[int]]:
        """Levels of each split."""
        wet = np.isfinite(self.values[0]).mean(1)
        used = [int(k) for k in np.flatnonzero(wet >= 0.5)]
        known = [k for k in used if k % 3 != 1]
        valid = known[2::5]
        return {"train": [k for k in known if k not in valid], "valid": valid, "test": [k for k in used if k % 3 == 1]}

    def signals(self, name: str) -> Signals:
        """Return the signals in their splits with the coordinates of that name."""
        splits = {}
        for split, levels in self.levels.items():
            values = self.values[:, levels].reshape(-1, self.graph.nodes)
            mask = np.isfinite(values)
            splits[split] = SignalSet(np.where(mask, values, 0)[..., None], mask, ("temp",) * len(values))
        columns = self.coordinates(name)
        # The nodes' positions take the way of spectral coordinates into the network: as they are.
        system = system_of(self.graph, len(columns))
        return Signals(splits, ("node",), tuple(columns), system, normalisation_of(splits["train"]))

    def coordinates(self, name: str) -> np.ndarray:
        """Return the inputs of the network ``[d_in, P]``, float64."""
        if name in SPECTRAL:
            return spectral_coordinates(self.graph, SPECTRAL[name]).astype(np.float64)
        if name == NUMBER:
            return np.linspace(-1, 1, self.graph.nodes)[None]
        north, east = np.deg2rad(self.latitude), np.deg2rad(self.longitude)
        return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])

    def dataset(self, *splits: str, located: bool = False) -> xr.Dataset:
        """Return the levels of some splits as a file would hold them: with edges and, if `located`, positions."""
        levels = sorted(k for split in splits for k in self.levels[split])
        filled = {"_FillValue": np.float32(np.nan)}
        data = xr.Dataset({"temp": (("year", "level", "node"), self.values[:, levels], filled)})
        data["edges"] = ("edge", "two"), self.graph.edges.astype(np.int32)
        if not located:
            return data
        data["temp"].attrs["coordinates"] = "lat lon"
        return data.assign(
            lat=("node", self.latitude, {"units": "degrees_north"}),
            lon=("node", self.longitude, {"units": "degrees_east"}),
        )


def ocean(raw: Path) -> Ocean:
    """Return the data, downloading the package into the folder `raw` first where it is not there."""
    tests = fetch(FESOM, raw) / "pyfesom2-0.4.1/tests/data"
    years = []
    for year in YEARS:
        with xr.open_dataset(tests / f"pi-results/temp.fesom.{year}.nc", decode_cf=False) as data:
            years.append(data["temp"].values[0].T)
    with xr.open_dataset(tests / "pi-grid/fesom.mesh.diag.nc", decode_cf=False) as mesh:
        depths = mesh["nlevels_nod2D"].values
        values = np.where(np.arange(len(years[0]))[:, None] < depths - 1, np.stack(years), np.nan)
        edges = mesh["edges"].assign_attrs(start_index=1)
        lies = xr.Dataset({"depth": ("node", depths), "edges": edges.variable})
        graph = graph_of([lies], "depth")[1]
        return Ocean(values.astype(np.float32), graph, mesh["lat"].values, mesh["lon"].values)


def method(latents: int, steps: int = STEPS) -> Params:
    """Return the parameters of the method basis with so many latents."""
    params = preset("basis")
    inr = params.inr.model_copy(update={"latent": latents})
    meta = params.meta.model_copy(update={"steps": steps, "points": 1024, "validate_every": 100})
    return params.model_copy(update={"inr": inr, "meta": meta, "threads": 1})


def learned(data: Signals, params: Params) -> dict[str, Any]:
    """Train a network and judge it; a row of figures."""
    began = process_time()
    with tempfile.TemporaryDirectory(prefix="graphs-") as folder:
        out = Path(folder, "m")
        found = meta_train(
            data, params.inr, params.meta, seed=params.seed, threads=1, out=out, checkpoint=Path(folder, "c")
        )
        model = load_model(out / "model.vcinr")
    values, weight = data.normalised("test")
    at = ModelAt(model, data.inputs)
    error = values - at.reconstruct(at.fit(values, weight, data.variable_index("test")))
    return {
        "psnr_db": _psnr(error[..., 0], weight), "valid_psnr_db": found["valid_psnr_db"],
        "model_bytes": len(model.data), "node_bytes": _node_bytes(model), "seconds": process_time() - began,
    }  # fmt: skip


def _psnr(error: np.ndarray, weight: np.ndarray | None) -> float:
    """The mean PSNR in dB of signals whose errors ``[N, P]`` count by weights that average to 1."""
    assert weight is not None
    return float(np.mean(psnr_of((np.square(error) * weight).mean(1))))


def _node_bytes(model: Model) -> int:
    """The bytes that the nodes' coordinates take of a model's."""
    header = json.loads(model.data[14 : 14 + int.from_bytes(model.data[10:14], "little")])
    return next(stored for name, _, _, stored in header["tensors"] if name == "graph/nodes")


def eof(data: Signals, components: int) -> float:
    """Return the mean PSNR in dB of test signals in leading EOFs of the training signals, fitted at wet nodes.

    Where a training signal is dry, its anomaly from the mean of the others counts as 0.
    """
    train, gaps = data.normalised("train")
    test, weight = data.normalised("test")
    assert gaps is not None and weight is not None
    known = gaps > 0
    mean = (train[..., 0] * known).sum(0) / np.maximum(known.sum(0), 1)
    modes = np.linalg.svd(np.where(known, train[..., 0] - mean, 0.0), full_matrices=False)[2][:components]
    error = test[..., 0] - mean
    for row, wet in zip(error, weight > 0, strict=True):
        row -= np.linalg.lstsq(modes[:, wet].T, row[wet], rcond=None)[0] @ modes
    return _psnr(error, weight)


def archived(data: Ocean, folder: Path, params: Params) -> list[dict[str, Any]]:
    """Compress the test levels to every bound with a model on the graph and without; rows of figures."""
    model = vcinr.train(data.dataset("train", "valid"), folder / "m.vcinr", system="spectral", params=params)
    test, located = data.dataset("test"), data.dataset("test", located=True)
    spread = float(test.temp.max()) - float(test.temp.min())
    ways = {
        "model on the graph": (test, model), "model, and positions": (located, model),
        "no model": (test, None), "no model, positions": (located, None),
    }  # fmt: skip
    rows = []
    for bound in BOUNDS:
        for way, (given, predicting) in ways.items():
            facts = vcinr.compress(
                given, folder / "a.zarr", model=predicting, rel_error=bound, variables=["temp"], overwrite=True
            )["variables"]["temp"]
            rows.append(
                {
                    "way": way, "bound_fraction": bound, "bytes": facts["bytes"], "psnr_db": facts["psnr_db"],
                    "bits_per_value": 8 * facts["bytes"] / int(test.temp.count()),
                    "model_bytes": len(model.data) if predicting else 0,
                    "held": facts["max_abs_error"] <= bound * spread,
                }
            )  # fmt: skip
    return rows


def measure(raw: Path, steps: int = STEPS, watch: Watch = silent) -> dict[str, Any]:
    """Return the rows of the networks and those of the archives; packages are unpacked in the folder `raw`."""
    data, rows = ocean(raw), []
    total = len(NAMES) * len(LATENTS) + 1
    clock = Clock(total)
    for name in NAMES:
        signals = data.signals(name)
        for latents in LATENTS:
            rows.append({"coordinates": name, "latents": latents, **learned(signals, method(latents, steps))})
            values = {"psnr_db": rows[-1]["psnr_db"]}
            watch(Progress(f"{name}, {latents} latents", len(rows), total, values, clock.left(len(rows))))
    rows += [{"coordinates": EOF, "latents": k, "psnr_db": eof(signals, k)} for k in (0, *LATENTS)]
    with tempfile.TemporaryDirectory(prefix="graphs-") as folder:
        archives = archived(data, Path(folder), method(32, steps))
    watch(Progress("archives", total, total, {}, 0.0))
    counts = {split: len(levels) * len(YEARS) for split, levels in data.levels.items()}
    facts = {"nodes": data.graph.nodes, "edges": len(data.graph.edges), "signals": counts, "steps": steps}
    return {**facts, "rows": rows, "archives": archives}


def table(found: Mapping[str, Any]) -> str:
    """Return a text with a line for each kind of coordinates and one for each archive."""
    at = {(r["coordinates"], r["latents"]): r["psnr_db"] for r in found["rows"]}
    lines = [["coordinates", *map(str, LATENTS)]]
    lines += [[n, *(f"{at[n, k]:.2f}" for k in LATENTS)] for n in (*NAMES, EOF)]
    archives = [["bound", "way", "bits per value", "PSNR dB"]]
    archives += [
        [f"{r['bound_fraction']:g}", r["way"], f"{r['bits_per_value']:.3f}{'' if r['held'] else ' !'}",
         f"{r['psnr_db']:.2f}"]
        for r in found["archives"]
    ]  # fmt: skip
    return f"PSNR in dB of held-out levels, by latents:\n{aligned(lines)}\n\n{aligned(archives)}\n\n!: a broken bound."


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the tables; return 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graphs", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/graphs.json"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="where packages are unpacked")
    options = parser.parse_args(arguments)
    found = measure(options.raw, watch=terminal)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record(**found), indent=1) + "\n")
    print(table(found))
    return 1 if any(not row["held"] for row in found["archives"]) else 0


if __name__ == "__main__":
    sys.exit(main())
