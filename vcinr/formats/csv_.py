"""CSV: columns as variables over the dimension ``row``, whole numbers as int64, others as float64, the rest as text.

A column is of numbers only where every cell is one or is missing. What numbers looked like is kept in attributes, so
that those that are still what they were are written as they were:

- `decimals`: digits after the point.
- `missing`: the text of cells without a number, which are NaN.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import Format, Groups, check_table, flat_list

_WHOLE = re.compile(r"-?[1-9][0-9]*|0")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf")
_MISSING = ("", "nan", "NaN", "NA", "N/A", "null", "NULL", "-")
_SEPARATORS = ",;\t"


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    return {"": _dataset(path.read_bytes(), name)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole."""
    return {"": _dataset(stream.read(), name)}


def _dataset(data: bytes, name: str) -> xr.Dataset:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: byte {error.start} is not UTF-8 text; convert it (iconv -t UTF-8)") from None
    first = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=first.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    while rows and not rows[-1]:  # lines at the end
        rows.pop()
    if not rows:
        raise InputError(f"{name}: it has no columns; leave it out")
    attrs: dict[str, Any] = {} if separator == "," else {"separator": separator}
    if all(_NUMBER.fullmatch(cell) for cell in rows[0]):  # no names
        attrs["header"] = 0
        names = [f"column{i + 1}" for i in range(len(rows[0]))]
    else:
        names = rows.pop(0)
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"{name}: two columns are named {twice!r}; rename one")
    for i, row in enumerate(rows):
        if len(row) != len(names):
            if not row and len(names) == 1:
                row.append("")
                continue
            where = i + 1 + ("header" not in attrs)
            raise InputError(f"{name}: row {where} has {len(row)} of {len(names)} cells; is the file whole? correct it")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    variables = {n: _column(cells, n, name) for n, cells in zip(names, columns, strict=True)}
    return xr.Dataset(variables, attrs=attrs)


def _column(cells: tuple[str, ...], column: str, name: str) -> xr.Variable:
    """A column as numbers, if all its cells are, or else as text."""
    given = [c for c in cells if c not in _MISSING]
    gaps = {c for c in cells if c in _MISSING}
    numeric = bool(given) and len(gaps) <= 1 and all(map(_NUMBER.fullmatch, given))
    whole = numeric and all(map(_WHOLE.fullmatch, given))
    padded = any(re.match(r"[+-]?0[0-9]", c) for c in given)  # postal codes and other names made of digits
    if not numeric or padded or (whole and not all(-(2**63) <= int(c) < 2**63 for c in given)):
        return xr.Variable("row", np.array(cells, dtype=object))
    if whole and not gaps:
        return xr.Variable("row", np.array([int(c) for c in cells], dtype=np.int64))
    values = np.array([np.nan if c in gaps else float(c) for c in cells])
    attrs: dict[str, Any] = {}
    if whole and any(int(float(c)) != int(c) for c in given):
        raise InputError(
            f"{name}: column {column!r} misses values and has whole numbers beyond 2**53, which float64 does not hold; "
            "fill the gaps, or leave the column out"
        )
    if not any(set(c) & set("eEnf") for c in given):
        attrs["decimals"] = max(len(c.partition(".")[2]) for c in given)
    if gaps:
        attrs["missing"] = gaps.pop()
    return xr.Variable("row", values, attrs)


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a file in which every number, read again, is the same."""
    check_table(dataset, path)
    columns = [_cells(variable, str(name), path) for name, variable in dataset.variables.items()]
    separator = "\t" if path.suffix == ".tsv" else str(dataset.attrs.get("separator", ","))
    header = flat_list(dataset.attrs.get("header", 1))[0]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=separator, lineterminator="\n")
        if header:
            writer.writerow(dataset.variables)
        writer.writerows(zip(*columns, strict=True))


def _cells(variable: xr.Variable, name: str, path: Path) -> list[str]:
    """The cells of a column."""
    values = np.asarray(variable.values)
    if values.dtype.kind in "iu":
        return [str(v) for v in values.tolist()]
    if values.dtype.kind in "OUT":
        return [str(v) for v in values.tolist()]
    if values.dtype.kind != "f":
        raise InputError(f"{path}: {name} holds {values.dtype}, and numbers and text are written; leave it out")
    decimals = flat_list(variable.attrs.get("decimals", []))
    missing = str(variable.attrs.get("missing", "nan"))
    # The shortest text that gives this number back: of float32 fewer digits than of the float64 of the same value.
    exact = [str(v) for v in values] if values.dtype != np.float64 else [repr(v) for v in values.tolist()]
    cells = []
    for text, value in zip(exact, values.tolist(), strict=True):
        if value != value:
            cells.append(missing)
            continue
        short = f"{value:.{int(decimals[0])}f}" if decimals else text
        cells.append(short if float(short) == value else text)
    return cells


FORMAT = Format(
    name="CSV",
    recognises=lambda file: False,  # it is text, and begins with anything
    read=read,
    read_stream=read_stream,
    suffixes=(".csv", ".tsv"),
    by_suffix=True,
    written=(".csv", ".tsv"),
    write=write,
)
