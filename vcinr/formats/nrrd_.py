"""NRRD, with its values within or in a file beside it, by the package pynrrd.

The variable is ``volume(z, y, x)``; axes that the file calls time or components are ``t`` and ``channel``. All fields
of the header are kept as its own text.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import Format, Groups, begins, flat_list, only, values_of

_HEADER = "nrrd_header"
_TYPES = {
    "int8": "int8", "uint8": "uchar", "int16": "short", "uint16": "ushort", "int32": "int", "uint32": "uint",
    "int64": "longlong", "uint64": "ulonglong", "float32": "float", "float64": "double",
}  # fmt: skip
_LAYOUT = {
    "type", "dimension", "sizes", "endian", "encoding", "data file", "datafile", "byte skip", "byteskip", "line skip",
    "lineskip",
}  # fmt: skip
"""Fields that say how values lie in the file, which are written anew."""


def read(path: Path, name: str) -> Groups:
    """Read a local file, and the file that it names for its values."""
    return _groups(path.read_bytes(), name, path)


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole."""
    return _groups(stream.read(), name, None)


def _groups(data: bytes, name: str, path: Path | None) -> Groups:
    import nrrd

    stream = io.BytesIO(data)
    header: dict[str, Any] = nrrd.read_header(stream)
    if path is None and {"data file", "datafile"} & set(header):
        raise InputError(f"{name}: its values are in a file of their own; copy both to this machine first")
    values = nrrd.read_data(header, stream, None if path is None else str(path), index_order="C")
    if values.dtype.kind not in "iuf":
        raise InputError(f"{name}: it holds {values.dtype}, and integers and floats are read; convert it")
    text = data.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("utf-8", "surrogateescape")
    lines = [line for line in text.split("\n")[1:] if _field(line) is not None]
    attrs: dict[str, Any] = {_HEADER: [line for line in lines if _field(line) not in _LAYOUT]}
    attrs[_HEADER].append(f"sizes: {' '.join(str(n) for n in values.shape[::-1])}")
    attrs |= {key.replace(" ", "_"): header[key] for key in ("space", "content") if key in header}
    for key in ("space directions", "space origin", "spacings"):
        if key in header:
            attrs[key.replace(" ", "_")] = [float(v) for v in np.ravel(_numbers(header[key]))]
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return {"": xr.Dataset({"volume": (_dims(values.ndim, header.get("kinds", ())), values, attrs)})}


def _field(line: str) -> str | None:
    """The field that a line of a header gives; None for a comment, and the whole line for a key of the user's own."""
    if line.startswith("#") or ":" not in line:
        return None
    name, _, rest = line.partition(":")
    return line if rest.startswith("=") else name.strip().lower()


def _numbers(value: Any) -> Any:
    """Numbers of a field, in which axes that are not of space have none."""
    return [np.full(3, np.nan) if row is None else row for row in value] if isinstance(value, list) else value


def _dims(rank: int, kinds: Iterable[str]) -> tuple[str, ...]:
    """Names of the dimensions, slowest first; `kinds` describes them, fastest first."""
    space, other = iter(["x", "y", "z", "t", *(f"dim{i}" for i in range(5, 17))]), 0
    names: list[str] = []
    kinds = [str(k).lower() for k in kinds]
    for axis in range(rank):
        kind = kinds[axis] if axis < len(kinds) else "domain"
        if kind == "time" and "t" not in names:
            names.append("t")
        elif kind in ("domain", "space", "none", "???"):
            names.append(next(s for s in space if s not in names))
        else:
            other += 1
            names.append("channel" if other == 1 else f"channel{other}")
    return tuple(names[::-1])


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a file with gzipped values within."""
    only(dataset, path, "volume")
    variable = dataset["volume"]
    values = values_of(dataset, path, "volume", tuple(map(str, variable.dims)))
    if values.dtype.name not in _TYPES or not values.size:
        raise InputError(
            f"{path}: volume is {values.dtype} of shape {values.shape}, which NRRD does not hold; convert it"
        )
    sizes = " ".join(str(n) for n in values.shape[::-1])
    lines = [str(line) for line in flat_list(variable.attrs.get(_HEADER, []))]
    said = next((line.partition(":")[2].split() for line in lines if _field(line) == "sizes"), sizes.split())
    if said != sizes.split():
        raise InputError(
            f"{path}: volume has the sizes {sizes} and its header says {' '.join(said)}; delete the attribute "
            f"{_HEADER} to write a new one"
        )
    kept = [line for line in lines if _field(line) not in _LAYOUT]
    if not lines:
        kept = _new_fields(variable, path)
    fields = [
        "NRRD0005", f"type: {_TYPES[values.dtype.name]}", f"dimension: {values.ndim}",
        *(line for line in kept if _field(line) in ("space", "space dimension")),
        f"sizes: {sizes}", "endian: little", "encoding: gzip",
        *(line for line in kept if _field(line) not in ("space", "space dimension")),
    ]  # fmt: skip
    if any("\n" in field for field in fields):
        raise InputError(f"{path}: the attribute {_HEADER!r} is damaged; remove it to write the values alone")
    packed = gzip.compress(values.astype(values.dtype.newbyteorder("<")).tobytes(), 6, mtime=0)
    path.write_bytes("\n".join(fields).encode("utf-8", "surrogateescape") + b"\n\n" + packed)


def _new_fields(variable: xr.DataArray, path: Path) -> list[str]:
    """Fields of a volume that has no header: what its axes are, and how far apart its samples lie."""
    kinds = {"t": "time", "channel": "vector"}
    dims = tuple(map(str, variable.dims))
    fields = [f"kinds: {' '.join(kinds.get(d, 'domain') for d in dims[::-1])}"]
    if _dims(len(dims), [kinds.get(d, "domain") for d in dims[::-1]]) != dims:
        raise InputError(
            f"{path}: volume has the dimensions ({', '.join(dims)}) and needs some of t, z, y, x; rename them"
        )
    if "spacings" in variable.attrs:
        fields.append(f"spacings: {' '.join(repr(float(v)) for v in flat_list(variable.attrs['spacings']))}")
    return fields


FORMAT = Format(
    name="NRRD",
    recognises=begins(b"NRRD000"),
    read=read,
    read_stream=read_stream,
    suffixes=(".nrrd", ".nhdr"),
    written=(".nrrd",),
    write=write,
)
