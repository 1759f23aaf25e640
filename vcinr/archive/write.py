"""Write archives: a data set with its groups to a self-contained Zarr v3 store, chunk by chunk, resumable, atomic.

Every array of numbers is stored by our codec, those that nobody asked to compress losslessly: its chunks carry a
checksum, and a missing one is an error, where plain Zarr would return fill values. Text and the like are kept as
xarray stores them.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import shutil
import warnings
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

import vcinr
from vcinr.archive import metadata, models, store
from vcinr.archive.metadata import PREFIX, RESERVED, Data, Groups
from vcinr.archive.spool import Spool, link
from vcinr.archive.zarr_codec import VcinrCodec, encode_axis
from vcinr.codec.chunk import VERSION
from vcinr.codec.encode import encode
from vcinr.codec.promise import Bound, Effort, Field, valid_values
from vcinr.errors import BoundError, InputError, ModelError, VcinrError, one_line
from vcinr.inr.model import Model
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.quality import psnr_db
from vcinr.signals import Layout, layout_of

MANIFEST = f"{RESERVED}/manifest"
"""Group with each compressed chunk's achieved error and CRC-32, and digests of everything else."""
_PACKING = ("scale_factor", "add_offset")
_CHECKED = (ZstdCodec(level=5), Crc32cCodec())
_CHUNK_VALUES = 1 << 25  # of a chunk of whole signals, so that encoding it takes about a gigabyte
_PIECE_VALUES = 1 << 22  # of a chunk of what is only kept


@dataclass(frozen=True)
class _Job:
    """One array of numbers to store.

    name: its path in the archive; values: with the coordinates of its own and outer groups; bound: in the variable's
    own units, None for lossless or, with a model, best effort; asked: whether it was to be compressed; note: why it
    is stored losslessly all the same, or None; limits: of the stored numbers, where the bound depends on them; rate:
    bits per value that lossless coding must not pass.
    """

    name: str
    values: xr.DataArray
    layout: Layout | None = None
    model: Model | None = None
    bound: Bound | None = None
    asked: bool = False
    note: str | None = None
    limits: tuple[float, float] = (0.0, 0.0)
    rate: float = math.inf

    @property
    def packing(self) -> tuple[float, float]:
        """(scale_factor, add_offset) from the stored numbers to the variable's units."""
        return _packing(self.values)

    @cached_property
    def stored_bound(self) -> Bound | None:
        """The bound for the numbers as stored, such that it also holds for what they unpack to."""
        if self.bound is None or self.packing == (1.0, 0.0) or self.bound.kind not in ("absolute", "relative"):
            return self.bound
        factor, shift = self.packing
        # Readers unpack small integers, or all by a float32, in float32: roundings of the result add to its error.
        types = [
            self.values.dtype,
            *(np.asarray(self.values.attrs[k]).dtype for k in _PACKING if k in self.values.attrs),
        ]
        single = self.values.dtype.itemsize <= 2 or np.dtype(np.float32) in types
        eps = float(np.finfo(np.float32 if single else np.float64).eps)
        if self.bound.kind == "relative":
            return replace(self.bound, value=max(0.0, self.bound.value - 2 * eps * (2 + self.bound.value)))
        unpacked = abs(factor) * max(map(abs, self.limits)) + abs(shift)
        return replace(self.bound, value=max(0.0, self.bound.value - 2 * eps * unpacked) / abs(factor))

    @property
    def scaling(self) -> tuple[float, float]:
        """(offset, scale) of the model for the numbers as stored."""
        if self.model is None:
            return 0.0, 1.0
        factor, shift = self.packing
        offset, scale = self.model.scaling(self.name)
        return (offset - shift) / factor, scale / factor

    @property
    def promise(self) -> str:
        """The bound in words."""
        if self.bound is None:
            return "lossless" if self.model is None else "best effort, lossy"
        value = f"{self.bound.value:g}"
        return {
            "absolute": f"within {value} of the input, lossy",
            "relative": f"within {value} of each value's magnitude, lossy",
            "psnr": f"at {value} dB or more, lossy",
            "rate": f"in at most {value} bits per value, lossy",
        }[self.bound.kind]


@dataclass(frozen=True)
class _Array:
    """A job with all that fixes its bytes: the array's codec, chunk shape and dtype."""

    job: _Job
    codec: VcinrCodec
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(-(-n // c) for n, c in zip(self.job.values.shape, self.shape, strict=True))

    def chunks(self) -> Iterator[tuple[tuple[int, ...], str]]:
        """Index and store key of every chunk."""
        for index in itertools.product(*map(range, self.counts)):
            yield index, "/".join([self.job.name, "c", *map(str, index)])

    @property
    def numeric(self) -> bool:
        """Whether our codec stores it, losslessly or not."""
        return self.dtype.kind in "fiub"

    def request(self) -> list[Any]:
        """JSON-able: two jobs of equal requests and values have equal bytes."""
        bound = self.job.stored_bound
        peak = bound.peak if bound else None
        return [self.job.name, self.codec.to_dict(), peak, self.shape, self.dtype.str, self.job.values.shape]


def compress(
    dataset: Data,
    target: str | Path,
    *,
    model: Model | None = None,
    abs_error: float | Mapping[str, float] | None = None,
    rel_error: float | None = None,
    point_rel_error: float | None = None,
    psnr: float | None = None,
    rate: float | None = None,
    variables: Sequence[str] | None = None,
    chunk: int | None = None,
    overwrite: bool = False,
    effort: Effort = "best",
    watch: Watch = silent,
) -> dict[str, Any]:
    """Compress variables of `dataset` into the Zarr archive `target` and keep all else as it is.

    `dataset`: a Dataset, a DataTree, or data sets by group; best opened undecoded
    (``vcinr.datasets.readers.open_groups``), so that packed values, fill values and times survive as stored.
    `target`: a folder, a name ending in .zip, or an fsspec URL. abs_error: bound in the variables' units, one for all
    or by name; or instead one of rel_error: a fraction of each variable's range; point_rel_error: a fraction of every
    value's own magnitude, zeros exact; psnr: at least so many dB, peak the variable's range; rate: at most so many
    bits per value in every chunk. Without any: best effort with a model, lossless without. variables: full names
    (``group/name``), default all of two or more dimensions, bare integers apart; what cannot be lossy (text, truth
    values, ...) is stored losslessly, and the result says so. chunk: about how many signals one Zarr chunk
    holds, by default those of a million values, eight at least: a chunk is what can be read by itself, and large ones
    take fewer bits. effort: "best" looks for the fewest bytes, "fast" takes many times less time and up to two or three
    times the bytes, with the same promises. Chunks are encoded on as many threads as there are cores; the bytes do not
    depend on it.
    Returns what `vcinr info --json` prints.

    The archive appears under its name only when it is whole. An interrupted run leaves its finished chunks beside it
    (``.NAME.part``; for a URL in the user's cache), and the same call again goes on from there. Raises InputError,
    ModelError, BoundError for a rate too low to reach; except where the disk failed, nothing is left behind then.
    """
    _occupied(target, overwrite)
    requests = {"rel_error": rel_error, "point_rel_error": point_rel_error, "psnr": psnr, "rate": rate}
    groups = {path: metadata.stored(group, path) for path, group in metadata.as_groups(dataset).items()}
    jobs = _jobs(groups, model, abs_error, requests, variables)
    arrays = [_array(job, chunk) for job in jobs]
    work = store.workplace(target)
    request = json.dumps([VERSION, vcinr.__version__, effort, [a.request() for a in arrays]])
    try:
        with Spool(work, request, lambda: store.restore(work, target)) as spool:
            try:
                facts = _encode(arrays, spool, effort, watch)
                _assemble(groups, arrays, facts, spool, work / "archive")
                _check_opens(work / "archive", groups)
                _occupied(target, overwrite)  # by now, too
                store.publish(work / "archive", target)
            except VcinrError:
                spool.discard()
                raise
            spool.discard()
    except OSError as error:
        reason = "no space left" if error.errno == errno.ENOSPC else error.strerror or str(error)
        kept = f". Finished chunks are kept in {work}: the same command goes on from there" if work.exists() else ""
        raise InputError(
            f"{target}: cannot write the archive ({reason}); free some space or choose another place{kept}"
        ) from None
    from vcinr.archive.read import info

    return info(target)


def _occupied(target: str | Path, overwrite: bool) -> None:
    """Raise InputError where something is that must not be replaced."""
    if (there := store.occupant(target)) == "other":
        raise InputError(f"{target}: exists already and is no archive; choose another name")
    if there == "archive" and not overwrite:
        raise InputError(f"{target}: exists already; choose another name or pass overwrite (--overwrite)")


def _check_opens(tree: Path, groups: Groups) -> None:
    """Raise InputError unless xarray opens every group of the finished archive."""
    from vcinr.archive.read import open_archive

    for path in groups:
        try:
            open_archive(tree, group=path, decode=False).close()  # times may be beyond decoding, as in the source
        except VcinrError as error:
            raise InputError(f"group {path or '/'!r} cannot be stored so that xarray opens it ({error})") from None


def _jobs(
    groups: Groups, model: Model | None, abs_error: float | Mapping[str, float] | None,
    requests: Mapping[str, float | None], variables: Sequence[str] | None,
) -> list[_Job]:  # fmt: skip
    """Every array of numbers, and what was named and is none, as a job."""
    asked = {name: value for name, value in {"abs_error": abs_error, **requests}.items() if value is not None}
    if len(asked) > 1:
        raise InputError(f"give one kind of bound, not both {' and '.join(asked)}")
    for name, value in asked.items():
        numbers = value.values() if isinstance(value, Mapping) else [value]
        for number in numbers:
            if not (math.isfinite(number) and number >= 0):
                raise InputError(f"{name}: the bound must be a positive number, got {number}")
    chosen = list(variables) if variables else default_variables(groups, model)
    names = [metadata.join(path, str(name)) for path, group in groups.items() for name in group.variables]
    for name in chosen:
        if name not in names:
            raise InputError(f"variable {name!r} is not in the file; it has {', '.join(names)}")
    if isinstance(abs_error, Mapping) and (unknown := set(abs_error) - set(chosen)):
        raise InputError(f"a bound is given for {', '.join(sorted(unknown))}, which is not compressed")
    jobs = []
    for name in names:
        values = metadata.member(groups, name)
        if name not in chosen:
            jobs.append(_Job(name, values))
        elif reason := _never_lossy(values):
            note = f"stored losslessly: {reason}"
            jobs.append(_Job(name, values, asked=True, note=note, rate=requests["rate"] or math.inf))
        else:
            bound, limits = _bound(name, values, abs_error, requests)
            # A bound of zero, or the range of a constant, leaves nothing for a model to do.
            exact = bool(asked) and bound is None
            layout, fitted = _fitted(name, values, None if exact else model)
            jobs.append(_Job(name, values, layout, fitted, bound, asked=True, limits=limits))
    return jobs


def _never_lossy(values: xr.DataArray) -> str | None:
    """Why these values cannot be compressed within a bound, or None where they can."""
    if values.dtype.kind not in "fiu":
        return f"{values.dtype} is no number with an error"
    if values.size == 0:
        return "it has no values"
    if values.ndim == 0:
        return "it is a single value"
    if str(values.attrs.get("_Unsigned", "")).lower() in ("true", "false"):
        return "_Unsigned makes its numbers wrap around"
    return None


def _bound(
    name: str, values: xr.DataArray, abs_error: float | Mapping[str, float] | None, requests: Mapping[str, float | None]
) -> tuple[Bound | None, tuple[float, float]]:
    """The bound asked for `values`, in its own units, None for best effort or lossless; and their limits if needed."""
    factor, shift = _packing(values)
    packed = (factor, shift) != (1.0, 0.0)
    wanted = requests["rel_error"] is not None or requests["psnr"] is not None
    limits = _limits(values) if packed or wanted else (0.0, 0.0)
    spread = limits[1] - limits[0]
    absolute = abs_error.get(name) if isinstance(abs_error, Mapping) else abs_error
    if requests["rel_error"] is not None:
        absolute = requests["rel_error"] * spread * abs(factor)
    if absolute is not None:
        return (Bound("absolute", float(absolute)) if absolute > 0 else None), limits
    if relative := requests["point_rel_error"]:
        if shift != 0.0:
            raise InputError(
                f"variable {name!r} is packed with an add_offset; a bound relative to each value needs "
                "unpacked values: give an absolute bound"
            )
        return Bound("relative", float(relative)), limits
    if psnr := requests["psnr"]:
        return (Bound("psnr", float(psnr), spread) if spread > 0 else None), limits
    return (Bound("rate", float(rate)) if (rate := requests["rate"]) else None), limits


def _fitted(name: str, values: xr.DataArray, model: Model | None) -> tuple[Layout, Model | None]:
    """The layout of `values`, by the model's dimensions and coordinate system where there is one."""
    if model is None:
        return layout_of(values), None
    model.scaling(name)
    dims = model.dims if set(model.dims) <= set(values.dims) else None
    layout = layout_of(values, dims, "sphere" if model.system["system"] == "sphere" else "box")
    if len(layout.dims) != len(model.dims):
        raise ModelError(f"variable {name!r} has the grid {layout.dims}, the model was trained on {model.dims}")
    return layout, model


def _packing(values: xr.DataArray) -> tuple[float, float]:
    """(scale_factor, add_offset) of packed values, else (1, 0)."""
    try:
        factor, shift = (
            float(np.asarray(values.attrs.get(k, i)).item()) for k, i in zip(_PACKING, (1, 0), strict=True)
        )
    except (ValueError, TypeError):
        raise InputError(f"variable {values.name!r}: its scale_factor or add_offset is no number; correct it") from None
    if not (math.isfinite(factor) and math.isfinite(shift) and factor != 0.0):
        raise InputError(f"variable {values.name!r}: scale_factor {factor:g} and add_offset {shift:g} unpack nothing")
    return factor, shift


def default_variables(groups: Groups, model: Model | None) -> list[str]:
    """What is compressed when nothing is named; raises InputError or ModelError where that is nothing."""
    from vcinr.datasets.readers import numeric_fields

    # Bare integers are flags, classes and counts as often as measurements: they are coded lossily only by name.
    fields = [
        metadata.join(path, n)
        for path, group in groups.items()
        for n in numeric_fields(group)
        if group[n].ndim >= 2 and (group[n].dtype.kind == "f" or "scale_factor" in group[n].attrs)
    ]
    if model is not None:
        known = [n for n in fields if n in model.normalisation]
        if not known:
            raise ModelError(
                f"the model was trained on {', '.join(model.normalisation)}, none of which is in the file "
                f"({', '.join(fields)}); compress without a model or train one"
            )
        return known
    if not fields:
        raise InputError("the file has no numeric variable of two or more dimensions; name one with --var")
    return fields


def _limits(values: xr.DataArray) -> tuple[float, float]:
    """Least and greatest valid value, read piece by piece; (0, 0) where there is none."""
    fill = metadata.fill_values(values)
    low, high = math.inf, -math.inf
    shape = _pieces(values.shape)
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(values.shape, shape, strict=True))):
        block = _block(values, index, shape)
        kept = block[valid_values(block, fill)]
        if kept.size:
            low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _block(values: xr.DataArray, index: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The values of one chunk, in native byte order."""
    try:
        block = np.asarray(values[tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, shape, strict=True))].values)
    except Exception as error:  # every format's library has its own for a damaged file
        raise InputError(
            f"variable {values.name!r} cannot be read ({one_line(error)}); is the file whole? copy it again"
        ) from None
    return block.astype(block.dtype.newbyteorder("="), copy=False)


def _pieces(shape: tuple[int, ...], most: int = _PIECE_VALUES) -> tuple[int, ...]:
    """A chunk shape of at most about `most` values: the last axes whole, then a part of one, then single."""
    result: list[int] = []
    left = most
    for n in reversed(shape):
        result.append(max(1, min(n, left)))
        left = max(1, left // max(1, n))
    return tuple(reversed(result))


def signals_of(points: int) -> int:
    """Signals of so many points in a chunk, where nobody says."""
    return max(8, (1 << 20) // points)


def _signal_chunks(job: _Job, chunk: int | None) -> tuple[int, ...]:
    """Chunk shape of about `chunk` signals; a signal is cut only where it is large and no model needs it whole."""
    assert job.layout is not None
    sizes = {str(d): n for d, n in job.values.sizes.items()}
    grid = {d: sizes[d] for d in job.layout.dims}
    while job.model is None and math.prod(grid.values()) > _CHUNK_VALUES:
        longest = max(grid, key=lambda d: grid[d])
        grid[longest] = -(-grid[longest] // 2)
    points = math.prod(grid.values())
    left = max(1, min(signals_of(points) if chunk is None else chunk, _CHUNK_VALUES // points))
    shape = dict(grid)
    for dim in reversed([d for d in sizes if d not in grid]):
        shape[dim] = max(1, min(sizes[dim], left))
        left = max(1, left // shape[dim])
    return tuple(shape[d] for d in sizes)


def _array(job: _Job, chunk: int | None) -> _Array:
    values, bound, layout = job.values, job.stored_bound, job.layout
    serializer = VcinrCodec(
        variable=job.name,
        signal_axes=() if layout is None else tuple(values.dims.index(d) for d in layout.dims),
        axes=() if job.model is None or layout is None else tuple(encode_axis(a) for a in layout.axes),
        model=job.model.sha256 if job.model else None,
        scaling=job.scaling,
        bound=(bound.kind, bound.value) if bound else None,
        fill=metadata.fill_values(values),
        limits=metadata.valid_limits(values) if layout is not None else None,
    )
    shape = _pieces(values.shape) if layout is None else _signal_chunks(job, chunk)
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        raise InputError(f"variable {job.name!r} is {values.dtype}, which no archive can hold; convert it to float64")
    return _Array(job, serializer, shape, metadata.native(values.dtype))


def _encode(arrays: Sequence[_Array], spool: Spool, effort: Effort, watch: Watch) -> dict[str, dict[str, Any]]:
    """Bring every chunk into the spool; returns what was measured of each, by key."""
    facts: dict[str, dict[str, Any]] = {}
    total = sum(math.prod(a.counts) for a in arrays if a.job.asked)
    clock, done = Clock(total), 0
    for array in filter(lambda a: a.numeric, arrays):
        for key, block, found in _encoded(array, spool, effort):
            facts[key] = found
            if array.job.asked:
                done += 1
                shown = {"bits_per_value": 8 * found["bytes"] / max(1, block.size)}
                watch(Progress("compress", done, total, shown | {"max_abs_error": found["error"]}, clock.left(done)))
    return facts


def _encoded(
    array: _Array, spool: Spool, effort: Effort
) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:  # fmt: skip
    """Key, values and facts of every chunk, in order, once it is in the spool.

    Reading and the spool stay with this thread; others encode a few chunks ahead, as many as memory has room for.
    """
    field = array.codec.field(array.shape, array.job.model)
    threads = max(1, min(_cores(), _CHUNK_VALUES // max(1, math.prod(array.shape))))
    waiting: deque[tuple[str, np.ndarray, tuple[bytes, dict[str, Any]] | Future[tuple[bytes, dict[str, Any]]]]] = (
        deque()
    )

    def finished() -> tuple[str, np.ndarray, dict[str, Any]]:
        key, block, found = waiting.popleft()
        if isinstance(found, Future):
            found = found.result()
            spool.add(key, block, *found)
        return key, block, found[1]

    with ThreadPoolExecutor(threads) as pool:
        try:
            for index, key in array.chunks():
                block = _block(array.job.values, index, array.shape)
                found = spool.find(key, block)
                waiting.append((key, block, found or pool.submit(_encode_chunk, array, field, key, block, effort)))
                if len(waiting) > threads:
                    yield finished()
            while waiting:
                yield finished()
        finally:
            pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _encode_chunk(
    array: _Array, field: Field, key: str, block: np.ndarray, effort: Effort
) -> tuple[bytes, dict[str, Any]]:
    try:
        encoded = encode(block, field, array.job.stored_bound, chunk_shape=array.shape, effort=effort)
    except VcinrError as error:
        raise type(error)(f"chunk {key}: {error}") from None
    if 8 * len(encoded.data) > array.job.rate * block.size:
        raise BoundError(
            f"chunk {key}: {array.job.note}, in {8 * len(encoded.data) / block.size:.3g} bits per value, more than the "
            f"{array.job.rate:g} allowed; leave the variable out of those to compress"
        )
    kept = block[valid_values(block, field.fill)] if block.dtype.kind in "fiu" else block.ravel()[:0]
    return encoded.data, {
        "bytes": len(encoded.data), "crc32": zlib.crc32(encoded.data), "error": encoded.max_abs_error,
        "squared": encoded.squared_error, "valid": encoded.valid,
        "low": float(kept.min()) if kept.size else math.inf, "high": float(kept.max()) if kept.size else -math.inf,
    }  # fmt: skip


def _assemble(
    groups: Groups, arrays: Sequence[_Array], facts: Mapping[str, Mapping[str, Any]], spool: Spool, tree: Path
) -> None:
    """Build the whole archive in the folder `tree` from the spool and from what is kept."""
    shutil.rmtree(tree, ignore_errors=True)
    asked = [a for a in arrays if a.job.asked]
    for path, group in groups.items():
        _write_group(tree, path, group, arrays, "; ".join(f"{a.job.name} {a.job.promise}" for a in asked))
    root = zarr.open_group(tree, mode="r+", zarr_format=3)
    for array in arrays:
        if array.numeric:
            _write_array(root, array, facts, spool, tree)
    for model in {a.job.model.sha256: a.job.model for a in arrays if a.job.model is not None}.values():
        models.put(root, model)
    _write_manifest(root, asked, facts, tree)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(root.store)
    # Zarr orders them without regard to case and, where T and t are groups, then fails to read what it wrote.
    text = json.loads((tree / store.ROOT).read_text())
    copies = text["consolidated_metadata"]["metadata"]
    text["consolidated_metadata"]["metadata"] = dict(sorted(copies.items()))
    (tree / store.ROOT).write_text(json.dumps(text, indent=2))


def _write_group(tree: Path, path: str, group: xr.Dataset, arrays: Sequence[_Array], history: str) -> None:
    """The group, its attributes and those of its variables that are not numbers, as xarray stores them."""
    notes = {a.job.name: a.job.note for a in arrays if not a.numeric and a.job.note}
    numeric = [a.job.name for a in arrays if a.numeric]
    rest = group.drop_vars([n for n in group.variables if metadata.join(path, str(n)) in numeric])
    rest.attrs = metadata.portable(group.attrs, f"group {path!r}" if path else "the file")
    if not path:
        rest.attrs["history"] = "\n".join(
            filter(None, [str(group.attrs.get("history", "")), f"vcinr {vcinr.__version__} compress: {history}"])
        )
        rest.attrs[PREFIX + "requires"] = (
            "Reading the arrays of this archive needs the Python package vcinr: pip install vcinr"
        )
    for name, variable in rest.variables.items():
        variable.attrs = metadata.portable(variable.attrs, f"variable {name!r}")
        if note := notes.get(metadata.join(path, str(name))):
            variable.attrs |= {PREFIX + "bound": "lossless", PREFIX + "note": note}
    encoding: dict[str, Any] = {str(name): {"compressors": _CHECKED} for name in rest.variables}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # strings are an extension to Zarr v3
            rest.to_zarr(tree, group=path or None, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    except (ValueError, TypeError, UnicodeError, NotImplementedError) as error:
        names = ", ".join(repr(str(n)) for n in rest.variables)
        raise InputError(
            f"one of {names or 'its attributes'} in group {path or '/'!r} cannot be stored "
            f"({' '.join(str(error).split())}); drop or convert it"
        ) from None


def _write_array(
    root: zarr.Group, array: _Array, facts: Mapping[str, Mapping[str, Any]], spool: Spool, tree: Path
) -> None:
    """The array's metadata, and its chunks out of the spool."""
    job, values = array.job, array.job.values
    fill = array.codec.fill
    attributes = metadata.portable(values.attrs, f"variable {job.name!r}", array.dtype)
    if job.asked:
        attributes |= _provenance(array, [facts[key] for _, key in array.chunks()])
    root.create_array(
        job.name, shape=values.shape, chunks=array.shape, dtype=array.dtype, serializer=array.codec, compressors=None,
        filters=None, fill_value=array.dtype.type(fill[0] if fill else 0), attributes=attributes,
        dimension_names=[str(d) for d in values.dims],
    )  # fmt: skip
    for _, key in array.chunks():
        link(spool.path(key), tree / key)


def _provenance(array: _Array, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a compressed variable says of itself: codec, bound, achieved error, model."""
    job, factor = array.job, abs(array.job.packing[0]) if array.job.values.dtype.kind in "fiu" else 1.0
    said: dict[str, Any] = {
        "version": vcinr.__version__,
        "bound": "lossless" if job.note or (job.bound is None and job.model is None) else "none",
        "max_abs_error": max((f["error"] for f in facts), default=0.0) * factor,
        "bytes": sum(f["bytes"] for f in facts),
    }
    if job.bound is not None and job.note is None:
        said |= {"bound": job.bound.kind, "bound_value": job.bound.value}
    if job.note is not None:
        said["note"] = job.note
    if job.model is not None:
        said["model_sha256"] = job.model.sha256
    squared, valid = sum(f["squared"] for f in facts), sum(f["valid"] for f in facts)
    spread = max((f["high"] for f in facts), default=0.0) - min((f["low"] for f in facts), default=0.0)
    if valid and 0 < squared < math.inf and 0 < spread < math.inf:
        # Peak is the variable's own range, as in every figure of `vcinr info`.
        said["psnr_db"] = psnr_db(spread, squared, valid)
    return {PREFIX + k: v for k, v in said.items()}


def _write_manifest(
    root: zarr.Group, asked: Sequence[_Array], facts: Mapping[str, Mapping[str, Any]], tree: Path
) -> None:
    """Each compressed chunk's error and CRC-32 as arrays; CRC-32 of every other file, and the metadata's digest."""
    manifest = root.require_group(MANIFEST)
    counted = set()
    for array in asked:
        if not array.numeric:
            continue
        errors, sums = (np.zeros(array.counts, dtype) for dtype in ("f8", "u4"))
        for index, key in array.chunks():
            errors[index] = facts[key]["error"] * abs(array.job.packing[0])
            sums[index] = facts[key]["crc32"]
            counted.add(key)
        group = manifest.require_group(array.job.name)
        for name, column in (("max_abs_error", errors), ("crc32", sums)):
            group.create_array(
                name, data=column, compressors=None, dimension_names=[f"chunk_{i}" for i in range(column.ndim)]
            )
    files, nodes = {}, {}
    for file in sorted(p for p in tree.rglob("*") if p.is_file()):
        key = file.relative_to(tree).as_posix()
        if key in counted or key == f"{MANIFEST}/{store.ROOT}":
            continue
        data = file.read_bytes()
        if file.name == store.ROOT:
            nodes[key] = json.loads(data)
        if key != store.ROOT:  # which is written again
            files[key] = zlib.crc32(data)
    manifest.attrs.update({"files": files, "metadata_sha256": metadata_digest(nodes)})


def metadata_digest(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """SHA-256 of the metadata of all nodes (``group/array/zarr.json``) but the manifest's own.

    Each is JSON with sorted keys and no spaces, without consolidated metadata; one line "key json" a node, by key.
    """
    digest = hashlib.sha256()
    for key, node in sorted(nodes.items()):
        plain = {k: v for k, v in node.items() if k != "consolidated_metadata"}
        digest.update(f"{key} {json.dumps(plain, sort_keys=True, separators=(',', ':'))}\n".encode())
    return digest.hexdigest()
