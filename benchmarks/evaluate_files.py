"""The evaluation of the pipeline for files of one signal each: their archive beside the codecs made for them.

`benchmarks.evaluate` does the same for fields on grids. `benchmarks.measure.files` says what is counted, and how.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.measure.files import compare, processes, spec_of
from benchmarks.measure.machine import record
from benchmarks.report.kinds import sections_of, table
from benchmarks.report.page import html_report
from benchmarks.report.pictures import picture
from vcinr.archive.read import info
from vcinr.config import Source
from vcinr.datasets.ingest import open_archive
from vcinr.kinds.files import separated
from vcinr.progress import Watch, silent
from vcinr.signals import read_signals


def evaluate_files(
    source: Source, raw: str | Path, signals: str | Path, model: str | Path, archive: str | Path, metrics: str | Path,
    plots: str | Path, out: str | Path, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Measure, draw and write the report.

    Parameters
    ----------
    source : Source
        Where the files come from.
    raw : path
        Folder in which packages are unpacked.
    signals, model, archive : path
        What the stages before made: the tiles that were learned from, the model, and the archive.
    metrics : path
        JSON file to write.
    plots : path
        Folder for tables as CSV; emptied first.
    out : path
        Folder for figures, ``summary.txt`` and ``index.html``; emptied first.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        The metrics: those of the archive, rates ``at`` PSNRs, and bounds of volumes.
    """
    out, plots, model = Path(out), Path(plots), Path(model)
    for folder in (out, plots):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ((_, data),) = open_archive(source, Path(raw), watch)
    tested = dict(separated(data if isinstance(data, dict) else {"": data}))
    tested = {Path(name).stem: dataset for name, dataset in tested.items()}
    spec = spec_of(source.kind, list(tested.values()))
    learned = read_signals(signals).splits["train"].features[:]
    learned = learned[..., 0] if learned.shape[-1] == 1 else learned
    with processes() as pool:
        found = compare(spec, tested, learned, model, pool, watch)
    first = next(iter(tested))
    caption = picture(spec, {first: tested[first]}, model, spec.asked[len(spec.asked) // 2], out / "sample.png")
    paths = {key: ", ".join(s.path for s in part) for key, part in (("train", source.train), ("test", source.archive))}
    facts = {"unit": spec.unit, "plural": spec.plural, "kind": source.kind, "targets": spec.targets}
    part = {
        "title": source.kind,
        "model": {"bytes": model.stat().st_size},
        "pictures": [["sample.png", caption]],
        **found,
    }
    report = record(data=paths, **facts, sets=[part])
    result = record(
        model={"bytes": model.stat().st_size},
        archives=[info(archive)],
        at=[{key: row[key] for key in ("codec", "psnr_db", "rate")} for row in found["at"]],
        bounds=[{key: row[key] for key in ("codec", "bound", "rate")} for row in found.get("bounds", ())],
    )
    Path(metrics).parent.mkdir(parents=True, exist_ok=True)
    Path(metrics).write_text(json.dumps(result, indent=2) + "\n")
    with open(plots / "rate_distortion.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ("codec", "bits_per_value", "psnr_db", "bytes"))
        writer.writeheader()
        for codec, curve in found["curves"].items():
            for row in curve:
                writer.writerow(
                    {"codec": codec, "bits_per_value": row["rate"], "psnr_db": row["psnr_db"], "bytes": row["bytes"]}
                )
    (out / "comparison.json").write_text(json.dumps(report, indent=1) + "\n")
    text = table(source.kind, report)
    (out / "summary.txt").write_text(text + "\n")
    html_report(out / "index.html", f"vcinr: {model.stem}", sections_of(report, out, out, text))
    return result
