"""Evaluation of a trained model on held-out data, beside other codecs in the same run: ``python -m flows.evaluate``."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure.machine import record
from benchmarks.measure.ours import ChunkCodec
from benchmarks.measure.rows import Ours, Row, rate_distortion, side_by_side
from benchmarks.report import figures
from benchmarks.report.page import Section, html_report
from benchmarks.report.tables import summary_table
from vcinr.archive.plan import signals_of
from vcinr.archive.read import info
from vcinr.codec.promise import Field
from vcinr.config import Evaluate
from vcinr.inr.at import ModelAt
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import Model, load_model
from vcinr.meta.extract import find_latents
from vcinr.progress import Watch, silent
from vcinr.quality import psnr_of
from vcinr.signals import Signals, read_signals

COLUMNS = ("variable", "codec", "bound_fraction", "bits_per_value", "bits_per_value_with_model", "psnr_db",
           "max_abs_error", "bound_ratio", "encode_mbs", "decode_mbs")  # fmt: skip


def evaluate(
    signals: str | Path, model: str | Path, archive: str | Path, history: str | Path, options: Evaluate,
    metrics: str | Path, plots: str | Path, out: str | Path, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Measure, draw and write the report.

    For every variable of the test split: PSNR of the meta-learned network before and after quantisation, bits per value
    at each error bound beside the rival codecs, and rate-distortion without a bound. Figures with a bound are of real
    bytes, decoded again.

    Parameters
    ----------
    signals, model, archive, history : path
        What the stages before made: signals, model, one archive or a folder of them, and the training's history.
    options : Evaluate
        Bounds, sizes of EOF bases, and how many values to take.
    metrics : path
        JSON file to write.
    plots : path
        Folder for tables as CSV; emptied first.
    out : path
        Folder for figures, ``side_by_side.json``, ``summary.txt`` and ``index.html``; emptied first.
    watch : callable
        Told of the progress.

    Returns
    -------
    dict
        The metrics.
    """
    data, artifact = read_signals(signals), load_model(model)
    out, plots = Path(out), Path(plots)
    for folder in (out, plots):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    bounded: list[Row] = []
    free: list[Row] = []
    test: dict[str, Any] = {}
    sections: list[Section] = []
    for variable in data.normalisation:
        if variable not in data.splits["test"].variable:
            continue
        rows, points, facts, section = _variable(data, artifact, variable, options, out, watch)
        bounded += [{"variable": variable, **row} for row in rows]
        free += [{"variable": variable, **row} for row in points]
        test[variable] = facts
        sections.append(section)
    result = record(
        model={"sha256": artifact.sha256, "bytes": len(artifact.data)},
        test=test,
        archives=[info(path) for path in _archives(Path(archive))],
    )
    Path(metrics).parent.mkdir(parents=True, exist_ok=True)
    Path(metrics).write_text(json.dumps(result, indent=2) + "\n")
    _csv(plots / "bounded.csv", bounded)
    _csv(plots / "rate_distortion.csv", free)
    (out / "side_by_side.json").write_text(json.dumps(record(bounded=bounded, rate_distortion=free), indent=1) + "\n")
    learning = figures.learning_figure(_numbers(history), out / "learning.png")
    summary = _summary(result, bounded, options)
    (out / "summary.txt").write_text(summary)
    overview = Section(
        "Summary",
        (
            f"Measured {result['date']} on {result['machine']['cpu']}, {result['machine']['cores']} cores. "
            "Sizes are real bytes, decoded again; the model's bytes are counted where a column or a dashed line "
            "says so. PSNR's peak and the bounds' unit is the range of the training data.",
        ),
        preformatted=summary,
        figures=((learning, "Meta-training: PSNR after the inner loop."),),
    )
    html_report(out / "index.html", f"vcinr: {Path(model).stem}", [overview, *sections])
    return result


def _variable(
    data: Signals, model: Model, variable: str, options: Evaluate, out: Path, watch: Watch
) -> tuple[list[Row], list[Row], dict[str, Any], Section]:
    """Return rows with and without a bound, metrics and the report's section of one variable."""
    offset, peak = data.normalisation[variable]
    test, train = (_maps(data, names, variable, options.max_values) for names in (("test",), ("train", "valid")))
    bounds = [b * peak for b in options.bounds]
    ours = _codec(data, model, variable)
    bounded: dict[str, Ours] = {
        "vcinr": ours.at_bound,
        "vcinr, no model": _codec(data, None, variable).at_bound,
    }
    rows = side_by_side(test, train, bounds, peak, bounded, options.eof_components, watch)
    rates, title = model.quantiser["offset"].shape[0], conditioning(model.spec.conditioning).title
    free: dict[str, tuple[Ours, Sequence[float]]] = {title: (ours.at_rate, range(rates))}
    points = rate_distortion(test, train, peak, free, options.eof_components, watch=watch)
    y = ((test.reshape(len(test), -1, 1) - offset) / peak).astype(np.float32)
    at = ModelAt(model, data.inputs)
    phi = find_latents(at, y, None, np.full(len(y), model.index(variable)))
    bare = at.reconstruct(phi)
    unquantised = float(np.mean(psnr_of(((bare - y) ** 2).mean((1, 2)))))
    own = [p for p in points if p["ours"]]
    facts = {
        "signals": len(test),
        "method": title,
        "psnr_db_unquantised": unquantised,
        "quantised": [
            {k: p[k] for k in ("level", "bits_per_value", "bits_per_value_with_model", "psnr_mean_db")} for p in own
        ],
        "bits_per_value": {f"{b:g}": {r["codec"]: r["bits_per_value"] for r in _best(rows, b)} for b in options.bounds},
    }
    name = variable.replace("/", "_")
    drawn = [
        (figures.bounded_figure(rows, out / f"bounded-{name}.png"), "Bits per value at a promised maximum error."),
        (
            figures.rate_distortion_figure(points, out / f"rate-distortion-{name}.png"),
            "Rate-distortion without a bound.",
        ),
    ]
    if len(data.dims) in (2, 3):
        _, decoded, _ = ours.at_rate(test[:1], rates - 1)
        drawn.append(
            (
                figures.maps_figure(
                    test[0], decoded[0], data.axes, data.dims, f"{variable}, first test signal, {title} latents alone",
                    str(dict(data.attrs.get("units", {})).get(variable, "")), out / f"maps-{name}.png",
                ),
                "Original, reconstruction from the coded latents alone at the finest rate, and error.",
            )
        )  # fmt: skip
    return rows, points, facts, Section(variable, figures=drawn)


def _maps(data: Signals, splits: Sequence[str], variable: str, limit: int) -> np.ndarray:
    """Return signals of one variable ``[N, *grid]`` as floats, evenly thinned to about `limit` values, gaps filled."""
    parts = []
    for split in splits:
        signals = data.splits[split]
        rows = np.flatnonzero(np.array(signals.variable) == variable)
        values = signals.features[rows][..., 0]
        values = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
        if signals.mask is not None:
            valid = signals.mask[rows]
            axes = tuple(range(1, values.ndim))
            mean = values.sum(axes, where=valid, keepdims=True) / np.maximum(valid.sum(axes, keepdims=True), 1)
            values = np.where(valid, values, mean.astype(values.dtype))
        parts.append(values)
    whole = np.concatenate(parts)
    keep = max(2, limit // max(1, whole[0].size))
    return whole if len(whole) <= keep else whole[np.linspace(0, len(whole) - 1, keep).astype(int)]


def _codec(data: Signals, model: Model | None, variable: str) -> ChunkCodec:
    """Return the chunk codec with chunks as an archive has them by default."""
    grid = data.splits["test"].features.shape[1:-1]
    axes = tuple(range(1, 1 + len(grid)))
    place = Field(variable, axes, data.domain, model, data.normalisation[variable])
    return ChunkCodec(place, data.normalisation[variable][1], signals_of(math.prod(grid)))


def _best(rows: list[Row], fraction: float) -> list[Row]:
    """Return the smallest row of each family at one bound."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["bound_fraction"] is None or abs(row["bound_fraction"] / fraction - 1) > 1e-6:
            continue
        if row["family"] not in best or row["bytes"] < best[row["family"]]["bytes"]:
            best[row["family"]] = row
    return [{**row, "codec": family} for family, row in best.items()]


def _summary(result: dict[str, Any], rows: list[Row], options: Evaluate) -> str:
    lines = []
    for variable, facts in result["test"].items():
        lines += [f"{variable}: test split, {facts['signals']} signals, PSNR peak = training range", ""]
        before = f"{facts['method']} before quantisation {facts['psnr_db_unquantised']:.2f} dB"
        lines.append(f"  {before}; quantised and coded:")
        for q in facts["quantised"]:
            lines.append(
                f"    {q['psnr_mean_db']:6.2f} dB  {q['bits_per_value']:.4f} bits per value "
                f"({q['bits_per_value_with_model']:.2f} with the model)"
            )
        own = [row for row in rows if row["variable"] == variable]
        smallest = [row for b in options.bounds for row in _best(own, b)]
        lines += ["", summary_table(smallest), ""]
    for facts in result["archives"]:
        for name, v in facts["variables"].items():
            quality = "" if v["psnr_db"] is None else f", {v['psnr_db']:.2f} dB"
            lines.append(
                f"archive {facts['archive']}: {name}, {v['bits_per_value']:.4f} bits per value "
                f"({v['bits_per_value_with_model']:.4f} with the model), largest error {v['max_abs_error']:g}{quality}"
            )
    return "\n".join(lines) + "\n"


def _archives(path: Path) -> list[Path]:
    return [path] if (path / "zarr.json").exists() else sorted(path.glob("*.zarr"))


def _numbers(path: str | Path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _csv(path: Path, rows: list[Row]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
