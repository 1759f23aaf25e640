"""Missing cells through an archive: ``python -m benchmarks.positions [--out FILE]``.

Every gridded file of a list of public packages is opened; each variable of two or more dimensions that holds NaN, an
infinity or a fill value is compressed to 1 % of its range and read back with plain xarray, both as it is stored and as
xarray decodes it, where what is missing is NaN. Checked are the positions of NaN, of both infinities and of the fill
values (these bit by bit), the positions xarray calls missing, the bound on all other values, and ``vcinr verify``.
The exit status is 1 on any mismatch. Files that cannot be opened are listed with the reason and are no mismatch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

import vcinr
from benchmarks.data.packages import PACKAGES
from benchmarks.measure.machine import record
from benchmarks.measure.missing import HELD, fill_cells, judge, valid_cells
from benchmarks.report.tables import aligned
from vcinr.datasets.fetch import fetch
from vcinr.errors import InputError
from vcinr.progress import Progress, Watch, silent, terminal

SUFFIXES = (
    ".nc", ".nc3", ".nc4", ".cdf", ".h5", ".hdf5", ".he5", ".hdf", ".grib", ".grib2", ".grb", ".grb2", ".pp",
    ".npy", ".npz", ".zarr", ".nii.gz", ".mgz", ".tif", ".tiff",
)  # fmt: skip
"""Names of files that hold arrays, whether or not they can be opened here."""
REL_ERROR = 0.01
LIMIT = 4_000_000  # values taken of one variable
FORMS: tuple[Literal["stored", "decoded"], ...] = ("stored", "decoded")


def check_variable(dataset: xr.Dataset, name: str, folder: Path) -> dict[str, Any]:
    """Compress variable `name` of `dataset` below `folder`, read it back and compare; a row of figures."""
    original = _native(dataset[name].values)
    fills = fills_of(dataset[name])
    valid = original[valid_cells(original, fills)]
    bound = REL_ERROR * (float(valid.max()) - float(valid.min())) if valid.size else 0.0
    archive = folder / "archive.zarr"
    facts = vcinr.compress(dataset, archive, rel_error=REL_ERROR, variables=[name])["variables"][name]
    with xr.open_zarr(archive, chunks=None, mask_and_scale=False, decode_times=False) as stored:
        row = judge(original, _native(stored[name].values), bound, fills)
    with xr.open_zarr(archive, chunks=None, decode_times=False) as decoded:
        same = np.array_equal(decoded[name].isnull().values, _decoded(dataset)[name].isnull().values)
    problems = vcinr.verify(archive, dataset)[0]
    if row["outcome"] == HELD and not same:
        row["outcome"] = "decoded missing positions changed"
    if row["outcome"] == HELD and problems:
        row["outcome"] = "verify failed"
    return {
        "bound": bound,
        **row,
        "decoded_positions_exact": same,
        "verify_problems": problems,
        "bits_per_value": facts["bits_per_value"],
    }


def check_file(
    package: str, path: Path, file: str, limit: int = LIMIT, watch: Watch = silent
) -> Iterator[dict[str, Any]]:
    """Check all variables of one file that have missing cells.

    Parameters
    ----------
    package, file : str
        Names for the rows.
    path : Path
        The file.
    limit : int
        Number of values taken of a variable.
    watch : callable
        Told of the progress.

    Yields
    ------
    dict
        A row for each variable and form.

    Raises
    ------
    InputError
        If the file cannot be opened.
    """
    with vcinr.open_dataset(path) as opened:
        dataset = _flat(opened)
        for name in map(str, dataset.data_vars):
            counts = missing_counts(dataset[name])
            if not any(counts.values()):
                continue
            part = dataset[[name]].isel(first_values(dataset[name], limit))
            for form in FORMS:
                row = _row(part, name, form)
                whole = dataset[name].size
                yield {
                    "package": package,
                    "file": file,
                    "variable": name,
                    "form": form,
                    "part": None if row["values"] == whole else f"the first {row['values']} of {whole} values",
                    **row,
                }
                watch(Progress(f"{file} {name} {form}: {row['outcome']}", 1, 1))


def _row(dataset: xr.Dataset, name: str, form: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="positions-") as folder:
        try:
            if form == "decoded":
                dataset = _decoded(dataset)
            outcome = check_variable(dataset, name, Path(folder))
        except Exception as error:  # whatever it is, the other variables are still to be checked
            outcome = {"outcome": "error", "message": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    data = dataset[name]
    counts = missing_counts(data)
    return {
        "dtype": str(data.dtype),
        "shape": list(data.shape),
        "values": data.size,
        "missing": counts,
        "missing_share": sum(counts.values()) / data.size,
        **outcome,
    }


def fills_of(data: xr.DataArray) -> list[Any]:
    """Return the finite values that CF's attributes name as missing."""
    fills = [f for key in ("_FillValue", "missing_value") if key in data.attrs for f in np.ravel(data.attrs[key])]
    return [f for f in fills if np.issubdtype(np.asarray(f).dtype, np.number) and np.isfinite(f)]


def missing_counts(data: xr.DataArray) -> dict[str, int]:
    """Count the missing cells of a field of two or more dimensions, by kind; empty for other arrays."""
    fills = fills_of(data)
    if data.ndim < 2 or not data.size or not (data.dtype.kind == "f" or (data.dtype.kind in "iu" and fills)):
        return {}
    values = data.values
    return {
        "nan": int(np.isnan(values).sum()),
        "+inf": int((values == np.inf).sum()),
        "-inf": int((values == -np.inf).sum()),
        "fill": int(fill_cells(values, fills).sum()),
    }


def first_values(data: xr.DataArray, limit: int) -> dict[str, slice]:
    """Return the first indices along the leading dimensions that make at most `limit` values."""
    part = {}
    for i, dim in enumerate(data.dims):
        keep = min(data.shape[i], max(1, limit // math.prod(data.shape[i + 1 :])))
        part[str(dim)] = slice(keep)
        if keep > 1:
            break
    return part


def files_of(folder: Path) -> list[Path]:
    """Return the files and Zarr stores below `folder` that hold arrays, judged by their names."""
    named = [p for p in sorted(folder.rglob("*")) if p.name.lower().endswith(SUFFIXES)]
    return [p for p in named if p.is_file() or p.suffix == ".zarr"]


def check(raw: Path, watch: Watch = silent) -> dict[str, list[dict[str, Any]]]:
    """Check all packages.

    Returns
    -------
    dict
        ``rows`` of variables, files ``opened``, and what was ``unread`` and why.
    """
    rows: list[dict[str, Any]] = []
    opened: list[dict[str, Any]] = []
    unread: list[dict[str, Any]] = []
    for package in PACKAGES:
        title = f"{package.name} {package.version}"
        try:
            folder = fetch(package, raw, watch)
        except InputError as error:
            unread.append({"package": title, "file": None, "reason": str(error)})
            continue
        for path in files_of(folder):
            file = str(path.relative_to(folder))
            try:
                checked = list(check_file(title, path, file, watch=watch))
            except (InputError, OSError, RuntimeError, ValueError) as error:  # damaged files show only when read
                unread.append({"package": title, "file": file, "reason": str(error).removeprefix(f"{path}: ")})
            else:
                rows += checked
                variables = len(checked) // len(FORMS)
                opened.append({"package": title, "file": file, "variables_with_missing_cells": variables})
    return {"rows": rows, "opened": opened, "unread": unread}


def _flat(dataset: xr.Dataset) -> xr.Dataset:
    """Return `dataset` with the names that an archive gives to members of groups."""
    return dataset.rename({n: str(n).replace("/", ".") for n in (*dataset.variables, *dataset.dims) if "/" in str(n)})


def _decoded(dataset: xr.Dataset) -> xr.Dataset:
    return xr.decode_cf(dataset, decode_times=False, decode_timedelta=False)


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False)


# --- Table --------------------------------------------------------------------------------------------------


def summary(result: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return counts of a result of `check`."""
    rows = result["rows"]
    return {
        "packages": len({r["package"] for r in result["opened"]}),
        "files_opened": len(result["opened"]),
        "files_with_missing_cells": len({(r["package"], r["file"]) for r in rows}),
        "files_not_opened": len([r for r in result["unread"] if r["file"]]),
        "variables": len({(r["package"], r["file"], r["variable"]) for r in rows}),
        "rows": len(rows),
        "outcomes": dict(Counter(r["outcome"] for r in rows)),
        "values": sum(r["values"] for r in rows if r["form"] == "stored"),
        "missing": {
            form: {
                kind: sum(r["missing"][kind] for r in rows if r["form"] == form)
                for kind in ("nan", "+inf", "-inf", "fill")
            }
            for form in FORMS
        },
    }


def table(result: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return a text with a line for each variable, then what was not opened, then counts."""
    lines = [["package", "file", "variable", "values", "missing", *(f"as {form}" for form in FORMS)]]
    grouped: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        grouped.setdefault((row["package"], row["file"], row["variable"]), {})[row["form"]] = row
    for (package, file, variable), forms in grouped.items():
        first = next(iter(forms.values()))
        values = f"{first['values']}{'' if first['part'] is None else ' (part)'}"
        cells = [f"{r['outcome']} {r.get('bits_per_value') or 0:.2f}" for r in forms.values()]
        lines.append(
            [package, Path(file).name, variable, values, f"{100 * first['missing_share']:.1f} %", *cells],
        )
    text = [aligned(lines), "", "Last number: bits per value, missing cells counted.", "", "Not opened:"]
    reasons = Counter(
        (r["package"], "".join(Path(r["file"]).suffixes[-1:]) if r["file"] else "", r["reason"])
        for r in result["unread"]
    )
    text += [f"  {package}: {n} {suffix or 'package'}: {why}" for (package, suffix, why), n in reasons.items()]
    facts = summary(result)
    outcomes = ", ".join(f"{outcome} {n}" for outcome, n in facts["outcomes"].items())
    text += [
        "",
        f"{facts['variables']} variables with missing cells in {facts['files_with_missing_cells']} of "
        f"{facts['files_opened']} files opened, {facts['values']} values; outcomes of {facts['rows']} rows: {outcomes}",
    ]
    return "\n".join(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print and write the rows; return 1 on any mismatch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.positions", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/positions.json"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="where packages are unpacked")
    options = parser.parse_args(arguments)
    result = check(options.raw, terminal)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"summary": summary(result), **record(**result)}, indent=1) + "\n")
    print(table(result))
    return 1 if any(row["outcome"] != HELD for row in result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
