"""Parquet by the package pyarrow: columns as variables over the dimension ``row``.

Numbers and truth values keep their types; dates, times and durations are the integers that they are stored as; all else
that has a text is text. Whole numbers with gaps become float64. In floats a gap is NaN, and in text it is empty; the
attribute `gaps` says that "all" such values are gaps, or in which rows they are. The types of the columns are kept, so
that they come back.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError, one_line
from vcinr.formats.base import Format, Groups, begins, check_table, decoded, encoded, flat_list

_SCHEMA = "arrow_schema"
_EXACT = 2**53  # whole numbers up to this one are exact in float64


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    return {"": _dataset(path.read_bytes(), name)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole."""
    return {"": _dataset(stream.read(), name)}


def _dataset(data: bytes, name: str) -> xr.Dataset:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(io.BytesIO(data)).read()
    names = table.column_names
    if len(set(names)) < len(names):
        raise InputError(f"{name}: two columns have the same name; rename one")
    if not names:
        raise InputError(f"{name}: it has no columns; leave it out")
    variables = {n: _column(table.column(n).combine_chunks(), n, name) for n in names}
    return xr.Dataset(variables, attrs={_SCHEMA: encoded(table.schema.serialize().to_pybytes())})


def _stored_as(kind: Any) -> Any:
    """The integers that dates, times and durations are stored as; None for other types."""
    import pyarrow as pa

    if not pa.types.is_temporal(kind) or pa.types.is_interval(kind):
        return None
    return pa.int32() if kind.bit_width == 32 else pa.int64()


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _column(column: Any, title: str, name: str) -> xr.Variable:
    """A column of a table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if (stored := _stored_as(column.type)) is not None:
        column = column.cast(stored)
    gaps = np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)
    if _is_number(column.type):
        if not gaps.any():
            return xr.Variable("row", column.to_numpy(zero_copy_only=False))
        if pa.types.is_floating(column.type):
            nan = pa.scalar(np.float64("nan")).cast(column.type)
            values = pc.fill_null(column, nan).to_numpy(zero_copy_only=False)
        else:
            whole = pc.fill_null(column.cast(pa.int64()) if pa.types.is_boolean(column.type) else column, 0)
            numbers = whole.to_numpy(zero_copy_only=False)
            if numbers.size and (int(numbers.max()) > _EXACT or int(numbers.min()) < -_EXACT):
                raise InputError(
                    f"{name}: column {title!r} has gaps and whole numbers beyond 2**53, which float64 does not hold; "
                    "fill the gaps, or leave the column out"
                )
            values = np.where(gaps, np.nan, numbers.astype(np.float64))
        return xr.Variable("row", values, _gaps(gaps, np.isnan(values)))
    try:
        text = column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{name}: column {title!r} is {column.type}, which has no text ({one_line(error)}); leave the column out"
        ) from None
    cells = np.array(pc.fill_null(text, "").to_pylist(), dtype=object)
    return xr.Variable("row", cells, _gaps(gaps, cells == "") if gaps.any() else None)


def _gaps(gaps: np.ndarray, alike: np.ndarray) -> dict[str, Any]:
    """The attribute that tells gaps from values that look like them."""
    return {"gaps": "all" if np.array_equal(gaps, alike) else np.flatnonzero(gaps).tolist()}


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a table with the types that were read; columns that are new have those of their values."""
    import pyarrow as pa
    import pyarrow.parquet

    check_table(dataset, path)
    schema = None
    if _SCHEMA in dataset.attrs:
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(decoded(str(dataset.attrs[_SCHEMA]), path, _SCHEMA)))
        except (pa.ArrowInvalid, OSError):
            raise InputError(f"{path}: the attribute {_SCHEMA!r} is damaged; remove it") from None
    kinds = {} if schema is None else {field.name: field for field in schema}
    order = [n for n in kinds if n in dataset.variables] + [str(n) for n in dataset.variables if n not in kinds]
    arrays = [_array(dataset.variables[n], kinds[n].type if n in kinds else None, n, path) for n in order]
    fields = [kinds.get(n) or pa.field(n, array.type) for n, array in zip(order, arrays, strict=True)]
    metadata = None if schema is None else schema.metadata
    pyarrow.parquet.write_table(pa.table(arrays, pa.schema(fields, metadata)), path, compression="zstd")


def _array(variable: xr.Variable, kind: Any, name: str, path: Path) -> Any:
    """A column for a table, of type `kind` if there is one."""
    import pyarrow as pa

    values = np.asarray(variable.values)
    mask = None
    if "gaps" in variable.attrs:
        if variable.attrs["gaps"] == "all":
            mask = np.isnan(values) if values.dtype.kind == "f" else values == ""
        else:
            mask = np.zeros(len(values), bool)
            mask[flat_list(variable.attrs["gaps"])] = True
    try:
        if values.dtype.kind in "OUT":
            array = pa.array([str(v) for v in values], pa.string(), mask=mask)
            if kind is None or array.type == kind:
                return array
            if pa.types.is_dictionary(kind):
                return array.cast(kind.value_type).dictionary_encode().cast(kind)
            return array.cast(kind)
        if kind is None or pa.types.is_floating(kind):
            return pa.array(values, kind, mask=mask)
        stored = _stored_as(kind)
        if values.dtype.kind == "f" and mask is not None:
            values = np.where(mask, 0, values)
        if values.dtype.kind == "f" and not np.array_equal(values, np.trunc(values)):
            raise InputError(
                f"{path}: {name} is a column of {kind} and has values between whole numbers; "
                f"delete the attribute {_SCHEMA} to write it as it is"
            )
        whole = values if values.dtype.kind in "iub" else values.astype(np.int64)
        return pa.array(whole, mask=mask).cast(stored or kind).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError) as error:
        raise InputError(
            f"{path}: {name} cannot be a column of {kind} ({one_line(error)}); delete the attribute {_SCHEMA} to write "
            "it as it is"
        ) from None


FORMAT = Format(
    name="Parquet",
    recognises=begins(b"PAR1"),
    read=read,
    read_stream=read_stream,
    suffixes=(".parquet",),
    written=(".parquet",),
    write=write,
)
