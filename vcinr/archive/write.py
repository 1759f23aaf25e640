"""Write archives: an xarray Dataset to a self-contained Zarr v3 store, atomically."""

from __future__ import annotations

import errno
import itertools
import math
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends.zarr import FillValueCoder, encode_zarr_attr_value
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import vcinr
from vcinr import codec
from vcinr.archive import models
from vcinr.archive.metadata import OWN, without_storage
from vcinr.archive.zarr_codec import VcinrCodec, encode_axis
from vcinr.codec import Bound
from vcinr.errors import InputError, ModelError, VcinrError
from vcinr.inr.model import Model
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.signals import Layout, layout_of

ATTRIBUTE = "vcinr_"
"""Prefix of the provenance attributes on a compressed variable."""
MANIFEST = "manifest"
"""Group with, for every compressed variable, each chunk's achieved error and the CRC-32 of its bytes."""
CHECKED = (ZstdCodec(level=5), Crc32cCodec())
SEPARATOR = "."
"""Stands for the slash in the names of group members."""


@dataclass(frozen=True)
class _Job:
    """One variable to compress.

    bound: in the variable's own units; packing: (scale_factor, add_offset) from the stored numbers to these
    units; spread: range of the stored numbers, where the bound needs it.
    """

    name: str
    values: xr.DataArray
    layout: Layout
    model: Model | None
    bound: Bound | None

    @property
    def packing(self) -> tuple[float, float]:
        return _packing(self.values)

    @property
    def stored_bound(self) -> Bound | None:
        """The bound for the numbers as stored."""
        if self.bound is None or self.bound.kind != "absolute":
            return self.bound
        return replace(self.bound, value=self.bound.value / abs(self.packing[0]))

    @property
    def scaling(self) -> tuple[float, float]:
        """(offset, scale) of the model for the numbers as stored."""
        if self.model is None:
            return 0.0, 1.0
        factor, shift = self.packing
        offset, scale = self.model.scaling(self.name)
        return (offset - shift) / factor, scale / factor


def compress(
    dataset: xr.Dataset,
    target: str | Path,
    *,
    model: Model | None = None,
    abs_error: float | Mapping[str, float] | None = None,
    rel_error: float | None = None,
    point_rel_error: float | None = None,
    psnr: float | None = None,
    rate: float | None = None,
    variables: Sequence[str] | None = None,
    chunk: int = 48,
    overwrite: bool = False,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Compress variables of `dataset` into the Zarr archive `target` and keep all else as it is.

    `dataset` is best opened undecoded (``vcinr.datasets.readers.open_dataset``), so that packed values, fill
    values and times survive as stored. abs_error: bound in the variables' units, one for all or by name; or instead
    one of rel_error: a fraction of each variable's range; point_rel_error: a fraction of every value's own
    magnitude, zeros exact; psnr: at least so many dB, peak the variable's range; rate: at most so many bits per
    value in every chunk. Without any: best effort with a model, lossless without. variables: default all of two or
    more dimensions, bare integers apart. chunk: about how many signals one Zarr chunk holds. Returns what
    `vcinr info --json` prints.

    The archive appears under its name only when it is whole. Raises InputError, ModelError, BoundError for a rate
    too low to reach; nothing is left behind then.
    """
    target = Path(target)
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already; choose another name or pass overwrite (--overwrite)")
    if "://" in str(target):
        raise InputError(f"{target}: archives are written to local paths; write it here and copy the folder")
    requests = {"rel_error": rel_error, "point_rel_error": point_rel_error, "psnr": psnr, "rate": rate}
    dataset = _flat_names(dataset)
    if variables:
        variables = [name.replace("/", SEPARATOR) for name in variables]
    jobs = list(_jobs(dataset, model, abs_error, requests, variables))
    temporary = target.with_name(f".{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        _write(dataset, jobs, temporary, model, chunk, watch)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except OSError as error:
        reason = "no space left" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise InputError(
            f"{target}: cannot write the archive ({reason}); free some space or choose another place"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    from vcinr.archive.read import info

    return info(target)


def _flat_names(dataset: xr.Dataset) -> xr.Dataset:
    """Members of groups under names without a slash, which would make them groups that xarray does not show."""
    names = {n: str(n).replace("/", SEPARATOR) for n in (*dataset.variables, *dataset.dims) if "/" in str(n)}
    renamed = dataset.rename(names)
    for old, new in names.items():
        if new in renamed.variables:
            renamed[new].attrs.setdefault(ATTRIBUTE + "original_name", str(old))
    return renamed


def _jobs(
    dataset: xr.Dataset, model: Model | None, abs_error: float | Mapping[str, float] | None,
    requests: Mapping[str, float | None], variables: Sequence[str] | None,
) -> Iterator[_Job]:  # fmt: skip
    asked = {name: value for name, value in {"abs_error": abs_error, **requests}.items() if value is not None}
    if len(asked) > 1:
        raise InputError(f"give one kind of bound, not both {' and '.join(asked)}")
    for name, value in asked.items():
        numbers = value.values() if isinstance(value, Mapping) else [value]
        for number in numbers:
            if not (math.isfinite(number) and number >= 0):
                raise InputError(f"{name}: the bound must be a positive number, got {number}")
    chosen = list(variables) if variables else _default_variables(dataset, model)
    if not chosen:
        raise InputError("the file has no numeric variable with dimensions to compress; name one with --var")
    if isinstance(abs_error, Mapping) and (unknown := set(abs_error) - set(chosen)):
        raise InputError(f"a bound is given for {', '.join(sorted(unknown))}, which is not compressed")
    for name in chosen:
        if name not in dataset.data_vars:
            known = ", ".join(map(str, dataset.data_vars))
            raise InputError(f"variable {name!r} is not in the file; it has {known}")
        values = dataset[name]
        if values.dtype.kind not in "fiub":
            raise InputError(
                f"variable {name!r} has dtype {values.dtype}, which is no number; unnamed, it is kept as it is"
            )
        bound = _bound(values, abs_error, requests)
        # A bound of zero, or the range of a constant, leaves nothing for a model to do.
        exact = bool(asked) and bound is None
        yield _Job(name, values, *_fitted(name, values, None if exact else model), bound)


def _bound(
    values: xr.DataArray, abs_error: float | Mapping[str, float] | None, requests: Mapping[str, float | None]
) -> Bound | None:
    """The bound asked for `values`, in its own units; None for best effort or lossless."""
    factor, shift = _packing(values)
    absolute = abs_error.get(str(values.name)) if isinstance(abs_error, Mapping) else abs_error
    if requests["rel_error"] is not None:
        absolute = requests["rel_error"] * _range(values) * abs(factor)
    if absolute is not None:
        return Bound("absolute", absolute) if absolute > 0 else None
    if relative := requests["point_rel_error"]:
        if shift != 0.0:
            raise InputError(
                f"variable {values.name!r} is packed with an add_offset; a bound relative to each value needs "
                "unpacked values: give an absolute bound"
            )
        return Bound("relative", relative)
    if psnr := requests["psnr"]:
        spread = _range(values)
        return Bound("psnr", psnr, spread) if spread > 0 else None
    return Bound("rate", rate) if (rate := requests["rate"]) else None


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
    return float(values.attrs.get("scale_factor", 1.0)), float(values.attrs.get("add_offset", 0.0))


def _default_variables(dataset: xr.Dataset, model: Model | None) -> list[str]:
    from vcinr.datasets.readers import numeric_fields

    # Bare integers are flags, classes and counts as often as measurements: they are coded lossily only by name.
    fields = [
        n
        for n in numeric_fields(dataset)
        if dataset[n].ndim >= 2 and (dataset[n].dtype.kind == "f" or "scale_factor" in dataset[n].attrs)
    ]
    if model is None:
        return fields
    known = [n for n in fields if n in model.normalisation]
    if not known:
        raise ModelError(
            f"the model was trained on {', '.join(model.normalisation)}, none of which is in the file "
            f"({', '.join(fields)}); compress without a model or train one"
        )
    return known


def _fill(values: xr.DataArray) -> float | int | None:
    fill = values.attrs.get("_FillValue", values.attrs.get("missing_value"))
    if fill is None or np.ndim(fill) > 0 or isinstance(fill, str) or not np.isfinite(fill):
        return None  # what is not finite is set aside in any case
    return np.asarray(fill).astype(values.dtype).item()


def _range(values: xr.DataArray) -> float:
    array = values.values
    kept = array[codec.valid_values(array, _fill(values))]
    return float(kept.max()) - float(kept.min()) if kept.size else 0.0


def _write(dataset: xr.Dataset, jobs: list[_Job], target: Path, model: Model | None, chunk: int, watch: Watch) -> None:
    rest = dataset.drop_vars([job.name for job in jobs])
    history = "; ".join(f"{job.name} {_promise(job)}" for job in jobs)
    earlier = rest.attrs.get("history")
    rest.attrs["history"] = "\n".join(filter(None, [earlier, f"vcinr {vcinr.__version__} compress: {history}"]))
    rest.attrs["vcinr_requires"] = (
        "Reading the variables marked vcinr_version needs the Python package vcinr: pip install vcinr"
    )
    rest = without_storage(rest)
    # What is given as `encoding` replaces a variable's own, so it has to be repeated here.
    encoding = {str(name): {**variable.encoding, "compressors": CHECKED} for name, variable in rest.variables.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # strings and consolidated metadata are extensions to Zarr v3
        rest.to_zarr(target, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    root = zarr.open_group(target, mode="r+", zarr_format=3)
    if any(job.model is not None for job in jobs) and model is not None:
        models.store(root, model)
    done, total = 0, sum(math.prod(len(c) for c in _grid_of_chunks(job, chunk)[1]) for job in jobs)
    clock = Clock(total)
    for job in jobs:
        for measured in _write_variable(root, job, chunk):
            done += 1
            watch(Progress("compress", done, total, measured, clock.left(done)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(root.store)


def _promise(job: _Job) -> str:
    if job.bound is None:
        return "lossless" if job.model is None else "best effort, lossy"
    units = {"absolute": "of the input", "relative": "of each value", "psnr": "dB or more", "rate": "bits per value"}
    return f"within {job.bound.value:g} {units[job.bound.kind]}, lossy"


def _grid_of_chunks(job: _Job, chunk: int) -> tuple[tuple[int, ...], list[range]]:
    """Chunk shape (signals whole, about `chunk` of them) and chunk indices an axis."""
    sizes, left = {str(d): n for d, n in job.values.sizes.items()}, max(1, chunk)
    shape = {d: sizes[d] for d in job.layout.dims}
    for dim in reversed([d for d in sizes if d not in shape]):
        shape[dim] = max(1, min(sizes[dim], left))
        left = max(1, left // shape[dim])
    ordered = tuple(shape[d] for d in sizes)
    return ordered, [range(-(-n // c)) for n, c in zip(sizes.values(), ordered, strict=True)]


def _write_variable(root: zarr.Group, job: _Job, chunk: int) -> Iterator[dict[str, float]]:
    """Encode and store the chunks of one variable, yielding figures after each; then its attributes."""
    values, shape = job.values, _grid_of_chunks(job, chunk)[0]
    fill = _fill(values)
    serializer = VcinrCodec(
        variable=job.name,
        signal_axes=tuple(values.dims.index(d) for d in job.layout.dims),
        axes=tuple(encode_axis(a) for a in job.layout.axes),
        model=job.model.sha256 if job.model else None,
        scaling=job.scaling,
        bound=(job.stored_bound.kind, job.stored_bound.value) if job.stored_bound else None,
        fill=fill,
    )
    dtype = values.dtype.newbyteorder("=")
    array = root.create_array(
        job.name, shape=values.shape, chunks=shape, dtype=dtype, serializer=serializer, compressors=None,
        filters=None, fill_value=_zarr_fill(fill, dtype), dimension_names=[str(d) for d in values.dims],
    )  # fmt: skip
    field = serializer.field(values.ndim, job.model)
    worst, squared, counted, stored = 0.0, 0.0, 0, 0
    low, high = math.inf, -math.inf
    errors, sums = (np.zeros(array.cdata_shape, dtype) for dtype in ("f8", "u4"))
    for index in itertools.product(*_grid_of_chunks(job, chunk)[1]):
        part = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, shape, strict=True))
        block = np.asarray(values[part].values)
        try:
            encoded = codec.encode(block, field, job.stored_bound, chunk_shape=shape)
        except VcinrError as error:
            raise type(error)(f"chunk {job.name}/{'/'.join(map(str, index))}: {error}") from None
        key = f"{array.path}/{array.metadata.encode_chunk_key(index)}"
        sync(root.store.set(key, default_buffer_prototype().buffer.from_bytes(encoded.data)))
        kept = block[codec.valid_values(block, fill)]
        if kept.size:
            low, high = min(low, float(kept.min())), max(high, float(kept.max()))
        errors[index], sums[index] = encoded.max_abs_error * abs(job.packing[0]), zlib.crc32(encoded.data)
        worst, squared = max(worst, encoded.max_abs_error), squared + encoded.squared_error
        counted, stored = counted + encoded.valid, stored + len(encoded.data)
        yield {
            "bits_per_value": 8 * len(encoded.data) / max(1, block.size),
            "max_abs_error": encoded.max_abs_error,
        }
    array.attrs.update(_attributes(values, dtype))
    facts: dict[str, Any] = {
        "version": vcinr.__version__,
        "bound": job.bound.kind if job.bound else "lossless" if job.model is None else "none",
        "max_abs_error": worst * abs(job.packing[0]),
        "bytes": stored,
    }
    if job.bound is not None:
        facts["bound_value"] = job.bound.value
    if job.model is not None:
        facts["model_sha256"] = job.model.sha256
    if counted and squared > 0 and high > low:
        # Peak is the variable's own range, as in every figure of `vcinr info`.
        facts["psnr_db"] = 10 * math.log10((high - low) ** 2 / (squared / counted))
    array.attrs.update({ATTRIBUTE + k: v for k, v in facts.items()})
    manifest = root.require_group(MANIFEST).create_group(job.name)
    for name, column in (("max_abs_error", errors), ("crc32", sums)):
        manifest.create_array(name, data=column, compressors=CHECKED)


def _zarr_fill(fill: float | int | None, dtype: np.dtype) -> Any:
    return dtype.type(fill) if fill is not None else dtype.type(0)


def _attributes(values: xr.DataArray, dtype: np.dtype) -> dict[str, Any]:
    """The variable's attributes in the form xarray's Zarr backend reads back."""
    carried = {k: values.encoding[k] for k in OWN if k in values.encoding}
    attrs = {**values.attrs, **carried}
    result = {k: encode_zarr_attr_value(v) for k, v in attrs.items() if k != "_FillValue"}
    if "_FillValue" in attrs:
        result["_FillValue"] = FillValueCoder.encode(dtype.type(attrs["_FillValue"]), dtype)
    return result
