"""Files of one signal each beside the codecs made for them: ``python -m benchmarks.kinds [photo32] [photo768] ...``.

For photographs and tiles of them, a satellite image, speech, scans of brains and video (`benchmarks.data.signals`) a
model is trained on the training split alone. The test files become one archive each at several PSNRs, as ``vcinr
compress`` makes it. `benchmarks.measure.files` says what is counted, and how. Each kind has a file of results, its
model and a page of the report of its own, so that ``dvc repro kinds/dvc.yaml`` has a stage for each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.data import signals
from benchmarks.measure.files import USUAL, Result, Spec, compare, processes
from benchmarks.measure.machine import record
from benchmarks.report.kinds import page, table
from benchmarks.report.pictures import picture
from vcinr.config import Selection, Source, preset
from vcinr.datasets.ingest import ingest
from vcinr.kinds import KINDS
from vcinr.patches.train import train_patches
from vcinr.progress import Watch, silent, terminal


@dataclass(frozen=True)
class Benchmark:
    """A kind's benchmark.

    Parameters
    ----------
    spec : Spec
        How signals are measured.
    tile : int
        Length of the tiles that the model learns from: long ones, because at the edges of tiles less is known around
        a patch than in whole signals.
    experts : int, optional
        Largest number of experts; that of the kind where it is not given.
    """

    spec: Spec
    tile: int
    experts: int | None = None


BENCHMARKS = {
    "photo32": Benchmark(
        replace(USUAL["image"], plural="tiles of 32x32", asked=(27.5, 30, 32, 34, 36, 38), small=True), 32, experts=12
    ),
    "photo768": Benchmark(
        replace(USUAL["image"], plural="photographs of 768x512", asked=(28.5, 31, 33, 35, 37.5)), 128
    ),
    "sentinel2": Benchmark(
        replace(
            USUAL["image"],
            plural="scenes",
            peak=65535,
            targets=(33, 35.5, 38, 40, 42),
            asked=(32, 34.5, 37, 39, 41, 43),
        ),
        128,
    ),
    "speech": Benchmark(replace(USUAL["sound"], targets=(40, 43, 46.4, 50.6)), signals.PIECE),
    "volumes": Benchmark(USUAL["volume"], 60),
    "video": Benchmark(replace(USUAL["video"], plural="clips"), signals.SIDE),
}


def dataset_of(spec: Spec, values: np.ndarray) -> xr.Dataset:
    """Return a signal as a file of its kind would be read."""
    dims = (*KINDS[spec.kind].dims, "channel")[: values.ndim]
    attrs = {"sound": {"sample_rate": spec.samples, "subtype": "PCM_16"}, "video": {"frame_rate": "25/1"}}
    return xr.Dataset({spec.variable: (dims, values, attrs.get(spec.kind, {}))})


def train(benchmark: Benchmark, learned: Sequence[np.ndarray], out: Path, watch: Watch = silent) -> Result:
    """Train a model on sets of signals ``[item, ...]`` and return what JSON says of it.

    These are the steps of ``vcinr train``, with the length of tiles as the pipeline's params.yaml may give it.
    """
    spec, kind = benchmark.spec, KINDS[benchmark.spec.kind]
    settings = preset("experts").patches.model_copy(update=dict(kind.patches))
    if benchmark.experts is not None:
        settings = settings.model_copy(update={"experts": benchmark.experts})
    dims = ("item", *kind.dims, "channel")[: learned[0].ndim]
    work = out.with_name(f".{out.name}.work")  # always the same, because a model states what it was trained on
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        files, store = [work / f"train-{i}.nc" for i in range(len(learned))], work / "signals.zarr"
        for file, values in zip(files, learned, strict=True):
            xr.Dataset({spec.variable: (dims, values)}).to_netcdf(file)
        chosen = tuple(Selection(path=str(file)) for file in files)
        own: dict[str, Any] = {"tile": benchmark.tile, "tiles": 10**6}
        source = Source(kind=spec.kind, train=chosen, archive=chosen, test={"item": (0, 1)}, **own)
        ingest(source, work, store, watch)
        facts = train_patches(store, settings, seed=0, out=out, watch=watch)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "bytes": facts["model_bytes"],
        "experts": facts["experts"],
        "tile": benchmark.tile,
        "settings": {k: v for k, v in settings.model_dump().items() if v is not None},
        "estimated_bits_per_value": [row["bits_per_value"] for row in facts["history"]],
    }


PICTURED = {
    "photo32": {"": 34.0},
    "photo768": {"Dragonfly_by_Bolly": 31.0, "Picture_0B_by_freespace": 34.0},
    "sentinel2": {"scene": 37.0},
    "speech": {"asterisk-fr": 46.4},
    "volumes": {"MNI152": 38.0, "Colin27": 38.0},
    "video": {"carphone-02": 34.0, "bikes-04": 33.0},
}
"""The signals that are drawn, and at which PSNR. An empty name stands for all of them."""


@dataclass(frozen=True)
class Places:
    """Where packages are unpacked, and folders for models, results and pages of the report."""

    raw: Path = Path("data/raw")
    models: Path = Path("models")
    results: Path = Path("benchmarks/results/kinds")
    report: Path = Path("kinds")


def measure(
    name: str, title: str, learned: np.ndarray, tested: Mapping[str, np.ndarray], pool: Executor, places: Places,
    watch: Watch, parts: Mapping[str, str] | None = None,
) -> Result:  # fmt: skip
    """Train a model for a benchmark, measure one set of its signals, and draw some of them.

    Parameters
    ----------
    name, title : str
        Of the benchmark, and of the set.
    learned : numpy.ndarray
        ``[item, ...]``: what may be learned from.
    tested : mapping of str to numpy.ndarray
        The signals to compress.
    pool : Executor
        Runs the single measurements.
    places : Places
        Where to write.
    watch : callable
        Is told of progress.
    parts : mapping of str to str, optional
        As of `compare`.

    Returns
    -------
    dict
        What `compare` returns, with ``title``, ``model``, and ``pictures`` as names and captions.
    """
    benchmark = BENCHMARKS[name]
    path = places.models / f"{name if title == name else f'{name}-{title}'}.vcinr"
    path.parent.mkdir(parents=True, exist_ok=True)
    model = train(benchmark, [learned], path, watch)
    datasets = {key: dataset_of(benchmark.spec, values) for key, values in tested.items()}
    found = compare(benchmark.spec, datasets, learned, path, pool, watch, parts)
    drawn = []
    for key, level in PICTURED[name].items():
        if not key or key in datasets:
            file = places.results / f"{name}{key and '-'}{key.partition('_by')[0].lower()}.png"
            some = {key: datasets[key]} if key else datasets
            drawn.append([file.name, picture(benchmark.spec, some, path, level, file)])
    return {"title": title, "model": model, "pictures": drawn, **found}


def run(name: str, places: Places, pool: Executor, watch: Watch = silent) -> Result:
    """Run a benchmark, and write its model, results, pictures and page.

    Parameters
    ----------
    name : str
        Of `BENCHMARKS`.
    places, pool, watch
        As in `measure`.

    Returns
    -------
    dict
        What was written as JSON: date, machine and command, ``data``, facts of the spec, and ``sets``.
    """
    spec = BENCHMARKS[name].spec
    places.results.mkdir(parents=True, exist_ok=True)
    if name == "volumes":
        brains = signals.brains(places.raw, watch)
        shapes = ", ".join(f"{title} of {'x'.join(map(str, v.shape))} voxels" for title, v in brains.items())
        facts = {"train": "the other brain, and mirrored", "test": shapes}
        sets = []
        for title, volume in brains.items():
            (other,) = (v for k, v in brains.items() if k != title)
            learned = np.stack([other, other[:, :, ::-1]])
            sets.append(measure(name, title, learned, {title: volume}, pool, places, watch))
        # The model for others learns from both brains. It is not measured, since no third one is at hand.
        both = [np.stack([brain, brain[:, :, ::-1]]) for brain in brains.values()]
        train(BENCHMARKS[name], both, places.models / f"{name}.vcinr", watch)
    else:
        split = getattr(signals, name)(places.raw, watch)
        facts = split.facts
        sets = [measure(name, name, split.train, split.test, pool, places, watch, split.parts)]
    about = {k: getattr(spec, k) for k in ("kind", "unit", "plural", "peak", "targets", "block")}
    result = {**record(), "data": facts, **about, "sets": sets}
    (places.results / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    page(name, result, places.results, places.report / f"{name}.html")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named, or all, and print the tables."""
    usual = Places()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kinds", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="kind", help=f"of {', '.join(BENCHMARKS)}; by default all")
    parser.add_argument("--raw", type=Path, default=usual.raw, help="where packages are unpacked")
    parser.add_argument("--models", type=Path, default=usual.models, help="where models are written")
    parser.add_argument("--out", type=Path, default=usual.results, help="where results and pictures are written")
    parser.add_argument("--report", type=Path, default=usual.report, help="where pages are written")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args(arguments)
    names = options.names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"unknown {unknown[0]}; known: {', '.join(BENCHMARKS)}")
    places = Places(options.raw, options.models, options.out, options.report)
    with processes(options.jobs) as pool:
        for name in names:
            print(table(name, run(name, places, pool, terminal)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
