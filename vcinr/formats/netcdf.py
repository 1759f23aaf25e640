"""netCDF 3 in its three forms: classic, with 64-bit offsets, and with 64-bit data. netCDF 4 is HDF5."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import BinaryIO

import netCDF4
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import RAW, Format, Groups, begins

_WIDTH = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # bytes of a value, by type code


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    with path.open("rb") as stream:
        _check(stream, path.stat().st_size, name)
    return {"": xr.open_dataset(path, engine="netcdf4", **RAW)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole: the netCDF library reads version 3 only from a path or from memory."""
    data = stream.read()
    _check(io.BytesIO(data), len(data), name)
    store = xr.backends.NetCDF4DataStore(netCDF4.Dataset("memory", memory=data))
    return {"": xr.open_dataset(store, **RAW)}


def _check(stream: BinaryIO, size: int, name: str) -> None:
    """Raise InputError where a netCDF 3 file is shorter than its header says.

    The library would read zeros beyond the end.
    """

    def take(n: int) -> bytes:
        data = stream.read(n)
        if len(data) < n:
            raise InputError(f"{name}: cut off within its header; copy it again")
        return data

    version = take(4)[3]
    wide, offset = (8 if version == 5 else 4), (4 if version == 1 else 8)

    def number(n: int = wide) -> int:
        return int.from_bytes(take(n), "big")

    def padded(n: int) -> int:
        return n + -n % 4

    def items() -> range:
        take(4)  # a tag
        return range(number())

    def skip_attributes() -> None:
        for _ in items():
            take(padded(number()))
            width = _WIDTH[number(4)]
            take(padded(number() * width))

    records, lengths, fixed, per_record = number(), [], [0], []
    for _ in items():
        take(padded(number()))
        lengths.append(number())
    skip_attributes()
    for _ in items():
        take(padded(number()))
        shape = [lengths[number()] for _ in range(number())]
        skip_attributes()
        width = _WIDTH[number(4)]
        number()  # the size, which is not reliable beyond 4 GiB
        begin = number(offset)
        if shape and shape[0] == 0:  # along the record dimension
            per_record.append((begin, width * math.prod(shape[1:])))
        else:
            fixed.append(begin + width * math.prod(shape))
    end = max(fixed)
    if 0 < records < 256**wide - 1:  # all ones: written as a stream, so that the number is not known
        step = per_record[0][1] if len(per_record) == 1 else sum(padded(n) for _, n in per_record)
        end = max([end, *(begin + (records - 1) * step + n for begin, n in per_record)])
    if size < end:
        raise InputError(f"{name}: cut off, it has {size} of at least {end} bytes; copy it again")


FORMAT = Format(
    name="netCDF",
    recognises=begins(b"CDF\x01", b"CDF\x02", b"CDF\x05"),
    read=read,
    read_stream=read_stream,
    suffixes=(".nc", ".nc3", ".nc4", ".cdf"),
)
