"""Every data set, every codec, every bound, in one run: ``python -m benchmarks.table``.

Data are those of `benchmarks.data.climate`. Rivals get the same bytes, each the best of its settings. Models are those
of `benchmarks.data.models`: ``python -m benchmarks.table --train`` trains them once (minutes each) and keeps them in
models/; a variable without a model does without. Rows are those of `benchmarks.measure.rows`; they are written to
benchmarks/results/table.json with date, machine and command.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.climate import DATASETS, Case, cases
from benchmarks.data.models import field_of, models_of, train_models
from benchmarks.measure import gains
from benchmarks.measure.gains import NO_MODEL
from benchmarks.measure.machine import record
from benchmarks.measure.ours import ChunkCodec
from benchmarks.measure.rows import Ours, Row, rate_distortion, side_by_side
from benchmarks.rivals import AT_PSNR, RIVALS
from benchmarks.rivals.base import Rival, by_level
from benchmarks.rivals.wasm import EBCC, fourier_network
from vcinr.quality import psnr_db

RESULT = Path("benchmarks/results/table.json")
BOUNDS = (0.1, 0.05, 0.03, 0.01, 0.003, 0.001, 0.0001)
TARGETS = (40.0, 42.0, 44.0, 46.0, 48.0, 50.0)
COLUMNS = (
    "dataset", "variable", "part", "codec", "variant", "ours", "bound_fraction", "values", "bytes", "bits_per_value",
    "model", "model_bytes", "bound_ratio", "psnr_db", "dssim", "spectral_error", "encode_mbs", "decode_mbs", "level",
)  # fmt: skip


def run(case: Case, bounds: Sequence[float], targets: Sequence[float], slow: bool) -> list[Row]:
    """Measure every codec on one array.

    Parameters
    ----------
    case : Case
        The array.
    bounds : sequence of float
        Largest errors, as fractions of the range.
    targets : sequence of float
        PSNRs in dB that vcinr also runs at, without a bound, beside SZ3 and SPERR; may be empty.
    slow : bool
        Whether EBCC is among the rivals.

    Returns
    -------
    list of dict
        Rows with `COLUMNS`.
    """
    models, values = models_of(case), case.test.values
    ours = {NO_MODEL: ChunkCodec(field_of(case, None), case.peak)}
    ours |= {name: ChunkCodec(field_of(case, model), case.peak) for name, model in models.items()}
    ours[NO_MODEL].at_bound(values[:2], case.peak / 20)  # compiles the coder before anything is timed
    bounded: dict[str, Ours] = {name: own.at_bound for name, own in ours.items()}
    rivals = _by_level_too(case, {**RIVALS, "EBCC": EBCC} if slow else RIVALS)
    rows = side_by_side(values, case.train, [b * case.peak for b in bounds], case.peak, bounded, (64,), rivals=rivals)
    if targets:
        aimed: dict[str, tuple[Ours, Sequence[float]]] = {n: (own.at_psnr, targets) for n, own in ours.items()}
        rivals = _by_level_too(case, {name: AT_PSNR[name] for name in ("SZ3", "SPERR")})
        steps = [float(k) for k in range(34, 54)]
        rows += rate_distortion(values, case.train, case.peak, aimed, (64,), steps, rivals=rivals)
    where = {"dataset": case.dataset, "variable": case.variable, "part": case.part}
    named = (row | ({"codec": "vcinr", "model": row["codec"]} if row["codec"] in models else {}) for row in rows)
    return [{k: v for k, v in (where | row).items() if k in COLUMNS} for row in named]


def _by_level_too(case: Case, rivals: Mapping[str, tuple[Rival, ...]]) -> Mapping[str, tuple[Rival, ...]]:
    """Return `rivals`; for arrays with levels, each setting also level by level."""
    if case.test.ndim != 4:
        return rivals
    return {name: (*settings, *map(by_level, settings)) for name, settings in rivals.items()}


def _network(case: Case) -> Row:
    """Measure the Fourier-feature network on the first map alone: it takes minutes for more."""
    values = np.ascontiguousarray(case.test.values[:1])
    began = time.perf_counter()
    data, decoded = fourier_network(values)
    squared = float(np.square(values.astype(np.float64) - decoded).sum())
    return {
        "dataset": case.dataset, "variable": case.variable, "part": "first map", "codec": "fourier-network",
        "ours": False, "bound_fraction": None, "values": values.size, "bytes": len(data),
        "bits_per_value": 8 * len(data) / values.size, "psnr_db": psnr_db(case.peak, squared, values.size),
        "encode_mbs": values.nbytes / 1e6 / (time.perf_counter() - began),
    }  # fmt: skip


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a text: bits per value by variable and bound, then gains, then bits at equal PSNR.

    In the lines of variables no model's bytes are counted, those of the EOF basis neither. In the mean gains over the
    rivals that are not trained they are, for the data sets of `gains.PARTS_A_YEAR`.
    """
    cells = gains.cells(rows)
    lines = [f"{'':38} {'bound':>7} {'vcinr':>9} {'no model':>9} {'best rival':>11}  {'gain':>6}"]
    for c in cells:
        learned = "" if c.learned is None else f"  (EOF {c.learned:.4f})"
        lines.append(
            f"{c.dataset + ' ' + c.variable:38} {c.bound:7g} {min(c.models.values(), default=math.nan):9.4f} "
            f"{c.alone:9.4f} {c.rivals[c.best]:11.4f}  {c.gain:6.2f}  {c.best}{learned}"
        )
    ahead = [
        f"behind {name} by more than 1 %: {c.dataset} {c.variable} at {c.bound:g}, {c.ours / bits:.3f} times its bits"
        for c, name, bits in gains.behind(cells)
    ]
    lines += ["", *(ahead or ["nowhere behind any rival by more than 1 %"]), ""]
    for gain in gains.gains(cells):
        models = ", ".join(f"vcinr {name} {bits:.4f}" for name, bits in gain.models.items())
        lines.append(
            f"{gain.dataset:10} {gain.bound:7g}: geometric mean of gains {gain.mean:.3f}, least {gain.least:.3f}"
            + (f"; bits per value of models: {models}" if models else "")
        )
    lines.append("")
    for p in gains.equal_psnr(rows):
        lines.append(
            f"{p['dataset'] + ' ' + p['variable']:38} {p['psnr_db']:6.2f} dB: {p['codec']} {p['bits_per_value']:.4f}, "
            f"SPERR {p['sperr']:.4f}, ratio {p['ratio']:.3f}"
        )
    return "\n".join(lines) + "\n"


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
    parser.add_argument("--show", action="store_true", help="print the summary of the rows written before, run nothing")
    options = parser.parse_args()
    if options.show:
        print(summary(json.loads(options.out.read_text())["rows"]))
        return
    if options.train:
        train_models(options.data, options.threads)
    rows: list[Row] = []
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
