"""What codecs do to data with missing cells: ``python -m benchmarks.missing [--out FILE]``.

Ocean fields in which land has no value, each in four forms: missing cells as NaN, as the fill value 1e20, the field
made complete but for a single infinity, and complete, which shows that the codec works at all. Every codec gets the
array as it is, and every run has a process of its own, because a crash is one of the outcomes. vcinr runs without a
model, through an archive and plain xarray; of SZ3's settings the table shows the best. The exit status is 1 when a
row of vcinr does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import vcinr
from benchmarks.data.packages import FERRET
from benchmarks.measure.machine import record
from benchmarks.measure.missing import BROKE, HELD, MOVED, fill_cells, judge, valid_cells
from benchmarks.report.tables import aligned
from benchmarks.rivals import sperr, sz3, zfp
from benchmarks.rivals.base import Decode, Encode
from vcinr.datasets.fetch import fetch
from vcinr.progress import Clock, Progress, Watch, silent, terminal

ROOT = Path(__file__).resolve().parent.parent
FIELDS = {
    "COADS SST": ("coads_climatology.cdf", "SST"),
    "COADS AIRT": ("coads_climatology.cdf", "AIRT"),
    "Levitus TEMP": ("levitus_climatology.cdf", "TEMP"),
    "Levitus SALT": ("levitus_climatology.cdf", "SALT"),
}
BOUNDS = (1e-2, 1e-3)  # fractions of the range of the valid values
FILL = 1e20
SECONDS = 120.0
OURS = "vcinr"


@dataclass(frozen=True)
class Case:
    """One form of a field; `fill` stands for missing besides NaN, where it is given."""

    name: str
    values: np.ndarray
    fill: float | None = None

    @property
    def missing(self) -> np.ndarray:
        """Cells that no bound is promised for."""
        return ~valid_cells(self.values, () if self.fill is None else (self.fill,))


def cases(values: np.ndarray, missing: np.ndarray) -> Iterator[Case]:
    """Yield the forms of a field without values where `missing`; a complete one has the mean of the others instead."""
    yield Case("NaN", np.where(missing, np.float32(np.nan), values))
    yield Case("fill 1e20", np.where(missing, np.float32(FILL), values), FILL)
    whole = np.where(missing, values[~missing].mean(dtype=np.float64).astype(values.dtype), values)
    infinite = whole.copy()
    infinite[tuple(n // 2 for n in whole.shape)] = np.inf
    yield Case("one +Inf", infinite)
    yield Case("complete", whole)


def run_process(command: Sequence[str], seconds: float, folder: Path) -> dict[str, str]:
    """Run `command` in `folder`; an empty mapping when it succeeds, else its outcome and last line."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
            errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"outcome": "timeout", "message": f"not done after {seconds:g} s"}
    if done.returncode == 0:
        return {}
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    outcome = f"crash (signal {-done.returncode})" if done.returncode < 0 else "error"
    return {"outcome": outcome, "message": lines[-1] if lines else ""}


# --- Codecs -------------------------------------------------------------------------------------------------


RAW: Mapping[str, tuple[str, Encode, Decode]] = {
    **{
        rival.name: ("SZ3", partial(sz3.compress, algorithm), rival.decode)
        for algorithm, rival in zip(sz3.ALGORITHMS, sz3.SZ3, strict=True)
    },
    "SPERR": ("SPERR", sperr.compress, sperr.SPERR.decode),
    "ZFP": ("ZFP", zfp.compress, zfp.ZFP.decode),
}
"""Codec, encoder and decoder of each setting. These encoders refuse nothing: what happens then is what is measured."""


def through_archive(values: np.ndarray, abs_error: float, fill: float | None, archive: Path) -> tuple[int, np.ndarray]:
    """Compress `values` into a vcinr archive and read them back with plain xarray.

    Returns
    -------
    tuple of int and np.ndarray
        Bytes of the array in the archive, and its values.
    """
    attrs = {} if fill is None else {"_FillValue": values.dtype.type(fill)}
    dims = [f"d{i}" for i in range(values.ndim)]
    facts = vcinr.compress(xr.Dataset({"field": (dims, values, attrs)}), archive, abs_error=abs_error)
    with xr.open_zarr(archive, chunks=None, mask_and_scale=False) as dataset:
        return facts["variables"]["field"]["bytes"], dataset["field"].values


def _one(codec: str, folder: Path) -> None:
    """Encode and decode ``values.npy`` in a process of its own; write ``bytes`` and ``decoded.npy``."""
    values, job = np.load(folder / "values.npy"), json.loads((folder / "job.json").read_text())
    if codec == OURS:
        size, decoded = through_archive(values, job["abs_error"], job["fill"], folder / "archive.zarr")
        (folder / "bytes").write_text(str(size))
    else:
        _, encode, decode = RAW[codec]
        data = encode(values, job["abs_error"])
        (folder / "bytes").write_text(str(len(data)))
        decoded = decode(data, values.shape, values.dtype)
    np.save(folder / "decoded.npy", decoded)


def measure(codec: str, case: Case, bound: float, seconds: float = SECONDS) -> dict[str, Any]:
    """Measure one codec on one form of a field.

    Parameters
    ----------
    codec : str
        `OURS` or a key of `RAW`.
    case : Case
        The form of the field.
    bound : float
        Absolute error allowed.
    seconds : float
        Time after which the process is ended.

    Returns
    -------
    dict
        Sizes, and what `benchmarks.measure.missing.judge` says or how the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="missing-") as name:
        folder = Path(name)
        np.save(folder / "values.npy", case.values)
        (folder / "job.json").write_text(json.dumps({"abs_error": bound, "fill": case.fill}))
        failed = run_process([sys.executable, "-m", "benchmarks.missing", "--one", codec, name], seconds, folder)
        size = int((folder / "bytes").read_text()) if (folder / "bytes").exists() else None
        if failed:
            outcome: dict[str, Any] = {**failed, "stage": "encode" if size is None else "decode"}
        else:
            decoded = np.load(folder / "decoded.npy")
            outcome = judge(case.values, decoded, bound, () if case.fill is None else (case.fill,))
    return {
        "case": case.name,
        "codec": OURS if codec == OURS else RAW[codec][0],
        "variant": codec,
        "bound": bound,
        "values": case.values.size,
        "missing": int(case.missing.sum()),
        "bytes": size,
        "bits_per_value": None if size is None else 8 * size / case.values.size,
        **outcome,
    }


def compare(
    fields: Mapping[str, tuple[np.ndarray, np.ndarray]], bounds: Sequence[float] = BOUNDS, watch: Watch = silent
) -> list[dict[str, Any]]:
    """Return a row for every form of every field (values, missing), bound and codec."""
    codecs = (OURS, *RAW)
    done, total = 0, sum(len(list(cases(*field))) for field in fields.values()) * len(bounds) * len(codecs)
    clock, rows = Clock(total), []
    for name, (values, missing) in fields.items():
        valid = values[~missing]
        spread = float(valid.max()) - float(valid.min())
        for case in cases(values, missing):
            for fraction in bounds:
                for codec in codecs:
                    row = measure(codec, case, fraction * spread)
                    rows.append({"field": name, "bound_fraction": fraction, **row})
                    done += 1
                    watch(
                        Progress(f"{name}, {case.name}, {codec}: {row['outcome']}", done, total, {}, clock.left(done))
                    )
    return rows


def read_fields(raw: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the ocean fields as (values, missing)."""
    folder = fetch(FERRET, raw) / "usr/share/ferret-vis/data"
    result = {}
    for name, (file, variable) in FIELDS.items():
        with vcinr.open_dataset(folder / file) as dataset:
            stored = dataset[variable]
            values = np.ascontiguousarray(stored.values.astype(np.float32))
            result[name] = values, fill_cells(values, [stored.attrs["_FillValue"]])
    return result


# --- Table --------------------------------------------------------------------------------------------------


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the setting with the best outcome, and of these the smallest."""
    order = (HELD, MOVED, BROKE)
    return min(
        rows, key=lambda r: (order.index(r["outcome"]) if r["outcome"] in order else len(order), r["bytes"] or 0)
    )


def _cell(row: dict[str, Any]) -> str:
    size = "" if row["bits_per_value"] is None else f" {row['bits_per_value']:.2f}"
    if row["outcome"] == HELD:
        return HELD + size
    if row["outcome"] == MOVED:
        return "positions changed" + size
    if row["outcome"] == BROKE:
        ratio = f"{row['bound_ratio']:.{8 if row['bound_ratio'] < 1.01 else 3}g}"
        return f"broke x{ratio} ({row['outside']}){'' if row['positions_exact'] else '*'}{size}"
    return str(row["outcome"])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a text with a line for each field, form and bound, and a column for each codec."""
    codecs = list(dict.fromkeys(row["codec"] for row in rows))
    groups: dict[tuple[str, str, float], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        group = groups.setdefault((row["field"], row["case"], row["bound_fraction"]), {})
        group.setdefault(row["codec"], []).append(row)
    lines = [["field", "missing as", "bound", *codecs]]
    for (field, case, bound), group in groups.items():
        lines.append([field, case, f"{bound:g}", *(_cell(best(group[codec])) for codec in codecs)])
    return (
        f"{aligned(lines)}\n\nLast number: bits per value, missing cells counted. broke xR (N): N valid values outside "
        "the bound, the largest finite error R\ntimes the bound; * positions of missing cells changed too."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the table; return 1 when a row of vcinr does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.missing", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/missing.json"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="where packages are unpacked")
    parser.add_argument("--one", nargs=2, metavar=("CODEC", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        _one(options.one[0], Path(options.one[1]))
        return 0
    rows = compare(read_fields(options.raw), watch=terminal)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record(rows=rows), indent=1) + "\n")
    print(table(rows))
    failed = [row for row in rows if row["codec"] == OURS and row["outcome"] != HELD]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
