"""netCDF 3 in its three forms: classic, with 64-bit offsets, and with 64-bit data. netCDF 4 is HDF5.

The netCDF library reads a local file part by part. Behind a URL the header is read here, and then the bytes of the
parts that are asked for, as the Classic Format Specification of Unidata's netCDF manual lays them out.
"""

from __future__ import annotations

import io
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from vcinr.errors import InputError
from vcinr.formats.base import RAW, Format, Groups, begins

_TYPES = {
    1: "i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8", 7: "u1", 8: ">u2", 9: ">u4", 10: ">i8", 11: ">u8",
}  # fmt: skip
_TEXT = 2
_ROW_BYTES = 1 << 20  # what is read at once although only a part of it is asked for
_RUN_BYTES = 1 << 24  # most bytes read at once


@dataclass(frozen=True)
class _Variable:
    """Where a variable lies in its file: `step` bytes from one record to the next; None for one without records."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    attrs: dict[str, Any]
    begin: int
    step: int | None = None

    @property
    def end(self) -> int:
        """The first byte after it, without the padding that follows it."""
        records = self.shape[0] if self.step is not None else 1
        item = self.dtype.itemsize * math.prod(self.shape[1:] if self.step is not None else self.shape)
        return self.begin + (self.step or 0) * (records - 1) + item if records else self.begin


@dataclass(frozen=True)
class _Header:
    """What the header of a file says."""

    record_dims: tuple[str, ...]
    attrs: dict[str, Any]
    variables: tuple[_Variable, ...]


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    with path.open("rb") as stream:
        _header(stream, path.stat().st_size, name)
    return {"": xr.open_dataset(path, engine="netcdf4", **RAW)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL: its header now, and of values the bytes that are asked for."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    header = _header(stream, size, name)
    lock = threading.Lock()
    variables = {
        v.name: xr.Variable(v.dims, indexing.LazilyIndexedArray(_Lazy(stream, lock, v, name)), v.attrs)
        for v in header.variables
    }
    decoded, attrs, coordinates = xr.conventions.decode_cf_variables(
        variables, header.attrs, concat_characters=True, mask_and_scale=False, decode_times=False, decode_coords=True,
        decode_timedelta=False,
    )  # fmt: skip
    dataset = xr.Dataset(decoded, attrs=attrs).set_coords([n for n in decoded if n in coordinates])
    dataset.encoding = {"unlimited_dims": set(header.record_dims)} if header.record_dims else {}
    return {"": dataset}


class _Lazy(BackendArray):
    """A variable whose bytes are read when its values are asked for."""

    def __init__(self, stream: BinaryIO, lock: threading.Lock, variable: _Variable, place: str) -> None:
        self._stream, self._lock, self._variable, self._place = stream, lock, variable, place
        self.shape, self.dtype = variable.shape, variable.dtype.newbyteorder("=")

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        cuts = [k if isinstance(k, slice) else slice(k, k + 1 or None) for k in key]
        ranges = [range(n)[cut] for cut, n in zip(cuts, self.shape, strict=True)]
        result = np.empty([len(r) for r in ranges], self.dtype)
        if result.size:
            with self._lock:
                self._fill(result, self._variable.begin, ranges, 0)
        return result[tuple(slice(None) if isinstance(k, slice) else 0 for k in key)]

    def _fill(self, result: np.ndarray, begin: int, ranges: list[range], axis: int) -> None:
        """Fill `result`, the values at `ranges[axis:]` of what begins at a byte."""
        variable = self._variable
        if axis == len(ranges):
            result[...] = self._bytes(begin, 1)[0]
            return
        inner = self.shape[axis + 1 :]
        item = math.prod(inner)
        size = item * variable.dtype.itemsize
        step = variable.step if axis == 0 and variable.step is not None else size
        within = tuple(slice(r.start, r.stop if r.stop >= 0 else None, r.step) for r in ranges[axis + 1 :])
        if size > _ROW_BYTES and any(len(r) < n for r, n in zip(ranges[axis + 1 :], inner, strict=True)):
            for i, at in enumerate(ranges[axis]):
                self._fill(result[i], begin + at * step, ranges, axis + 1)
        elif step != size:  # other variables lie between two records
            for i, at in enumerate(ranges[axis]):
                result[i] = self._bytes(begin + at * step, item).reshape(inner)[within]
        else:
            most = max(1, _RUN_BYTES // max(1, size * abs(ranges[axis].step)))
            for start in range(0, len(ranges[axis]), most):
                run = ranges[axis][start : start + most]
                low, high = min(run[0], run[-1]), max(run[0], run[-1])
                values = self._bytes(begin + low * step, (high - low + 1) * item).reshape(high - low + 1, *inner)
                result[start : start + most] = values[:: run.step if len(run) > 1 else 1][(slice(None), *within)]

    def _bytes(self, begin: int, count: int) -> np.ndarray:
        dtype = self._variable.dtype
        self._stream.seek(begin)
        data = self._stream.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            raise InputError(f"{self._place}: {self._variable.name!r} is cut off; copy the file again")
        return np.frombuffer(data, dtype)


def _header(stream: BinaryIO, size: int, name: str) -> _Header:
    """Read the header of a file; raises InputError where the file is shorter than its header says.

    The netCDF library would read zeros beyond the end.
    """

    def take(n: int) -> bytes:
        data = stream.read(n) if 0 <= n <= size else b""
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

    def text() -> str:
        n = number()
        return take(padded(n))[:n].decode(errors="replace")

    def dtype() -> tuple[int, np.dtype]:
        code = number(4)
        if code not in _TYPES:
            raise InputError(f"{name}: its header names the type {code}, which netCDF does not have; copy it again")
        return code, np.dtype(_TYPES[code])

    def attributes() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in items():
            key = text()
            code, kind = dtype()
            n = number()
            data = take(padded(n * kind.itemsize))[: n * kind.itemsize]
            if code == _TEXT:
                found[key] = data.decode(errors="replace").replace("\0", "")
                continue
            values = np.frombuffer(data, kind).astype(kind.newbyteorder("="))
            found[key] = values[0] if n == 1 else values
        return found

    records = number()
    dims = [(text(), number()) for _ in items()]
    attrs = attributes()
    rows = []
    for _ in items():
        own = text()
        chosen = [number() for _ in range(number())]
        if any(d >= len(dims) for d in chosen):
            raise InputError(f"{name}: variable {own!r} has a dimension that the header does not; copy it again")
        said = attributes()
        kind = dtype()[1]
        number()  # the size, which is not reliable beyond 4 GiB
        rows.append((own, chosen, said, kind, number(offset)))
    sizes = [
        kind.itemsize * math.prod(dims[d][1] for d in chosen[1:])
        for _, chosen, _, kind, _ in rows
        if chosen and dims[chosen[0]][1] == 0
    ]
    # Records are padded, but not where a single variable has them.
    step = sizes[0] if len(sizes) == 1 else sum(map(padded, sizes))
    if records == 256**wide - 1:  # written as a stream, so that the number is not known
        first = min((begin for _, chosen, _, _, begin in rows if chosen and dims[chosen[0]][1] == 0), default=size)
        records = max(0, size - first) // step if step else 0
    variables = []
    for own, chosen, said, kind, begin in rows:
        recorded = bool(chosen) and dims[chosen[0]][1] == 0
        shape = tuple(records if recorded and i == 0 else dims[d][1] for i, d in enumerate(chosen))
        names = tuple(dims[d][0] for d in chosen)
        variables.append(_Variable(own, names, shape, kind, said, begin, step if recorded else None))
    end = max((v.end for v in variables), default=0)
    if size < end:
        raise InputError(f"{name}: cut off, it has {size} of at least {end} bytes; copy it again")
    return _Header(tuple(n for n, length in dims if length == 0), attrs, tuple(variables))


FORMAT = Format(
    name="netCDF",
    recognises=begins(b"CDF\x01", b"CDF\x02", b"CDF\x05"),
    read=read,
    read_stream=read_stream,
    suffixes=(".nc", ".nc3", ".nc4", ".cdf"),
)
