"""LAS and LAZ by the packages laspy and lazrs: points as variables over the dimension ``point``.

X, Y and Z are the integers of the file; their attributes `scale_factor` and `add_offset` make them coordinates, as in
CF. All other fields keep their types. The header is kept as it is in the file.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import Format, Groups, begins, decoded, encoded, values_of

_HEADER, _EXTENDED = "las_header", "las_extended_records"


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    return {"": _dataset(path.read_bytes(), name)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole."""
    return {"": _dataset(stream.read(), name)}


def _dataset(data: bytes, name: str) -> xr.Dataset:
    import laspy

    cloud = laspy.read(io.BytesIO(data))
    header = cloud.header
    if len(cloud.points) != header.point_count:
        raise InputError(f"{name}: cut off, it has {len(cloud.points)} of {header.point_count} points; copy it again")
    variables = {}
    for field in cloud.point_format.dimensions:
        values = np.ascontiguousarray(
            cloud.points.array[field.name] if field.is_scaled else np.asarray(cloud[field.name])
        )
        attrs: dict[str, Any] = {}
        if field.is_scaled and values.ndim == 1:
            attrs = {"scale_factor": float(field.scales[0]), "add_offset": float(field.offsets[0])}
        if field.name in ("X", "Y", "Z"):
            axis = "XYZ".index(field.name)
            attrs = {"scale_factor": float(header.scales[axis]), "add_offset": float(header.offsets[axis])}
        dims = ("point", f"{field.name}_element")[: values.ndim]
        variables[field.name] = xr.Variable(dims, values.astype(values.dtype.newbyteorder("="), copy=False), attrs)
    attrs = {_HEADER: encoded(data[: header.offset_to_point_data])}
    if header.number_of_evlrs:
        attrs[_EXTENDED] = encoded(data[header.start_of_first_evlr :])
    return xr.Dataset(variables, attrs=attrs)


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write .las, or .laz, with the header that was read."""
    import laspy

    names = [str(n) for n in dataset.variables]
    if _HEADER not in dataset.attrs:
        raise InputError(f"{path}: no attribute {_HEADER}, which data sets read from LAS have; write .parquet")
    header = laspy.LasHeader.read_from(io.BytesIO(decoded(str(dataset.attrs[_HEADER]), path, _HEADER)))
    expected = list(header.point_format.dimension_names)
    if set(names) != set(expected):
        missing, extra = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
        raise InputError(
            f"{path}: its points lack {', '.join(missing) or 'nothing'} and have {', '.join(extra) or 'nothing'} that "
            "the header does not know; write .parquet"
        )
    for axis, name in enumerate("XYZ"):
        attrs = dataset[name].attrs
        if (attrs.get("scale_factor"), attrs.get("add_offset")) != (header.scales[axis], header.offsets[axis]):
            raise InputError(
                f"{path}: {name} has another scale_factor or add_offset than its header, which has "
                f"{header.scales[axis]} and {header.offsets[axis]}; open it with decode=False, or correct them"
            )
    points = laspy.ScaleAwarePointRecord.zeros(dataset.sizes["point"], header=header)
    cloud = laspy.LasData(header, points)
    for field in header.point_format.dimensions:
        values = values_of(dataset, path, field.name, ("point",), ("point", f"{field.name}_element"), packed=True)
        if field.is_scaled:
            points.array[field.name] = values
        else:
            cloud[field.name] = values
    if _EXTENDED in dataset.attrs:
        extended = io.BytesIO(decoded(str(dataset.attrs[_EXTENDED]), path, _EXTENDED))
        cloud.evlrs = laspy.vlrs.vlrlist.VLRList.read_from(extended, header.number_of_evlrs, extended=True)
    cloud.write(str(path), do_compress=path.suffix == ".laz")


FORMAT = Format(
    name="LAS",
    recognises=begins(b"LASF"),
    read=read,
    read_stream=read_stream,
    suffixes=(".las", ".laz"),
    written=(".laz", ".las"),
    write=write,
)
