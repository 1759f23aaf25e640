"""Write archives: an xarray Dataset to a self-contained Zarr v3 store, atomically."""

from __future__ import annotations

import errno
import itertools
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from vcinr.errors import InputError, ModelError, VcinrError
from vcinr.inr.model import Model
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.signals import Layout, coordinates, layout_of

ATTRIBUTE = "vcinr_"
"""Prefix of the provenance attributes on a compressed variable."""
SEPARATOR = "."
"""Stands for the slash in the names of group members."""


@dataclass(frozen=True)
class _Job:
    """One variable to compress.

    abs_error: bound in the variable's own units; packing: (scale_factor, add_offset) from the stored numbers
    to these units.
    """

    name: str
    values: xr.DataArray
    layout: Layout
    model: Model | None
    abs_error: float | None

    @property
    def packing(self) -> tuple[float, float]:
        attrs = self.values.attrs
        return float(attrs.get("scale_factor", 1.0)), float(attrs.get("add_offset", 0.0))

    @property
    def stored_bound(self) -> float | None:
        """The bound in the numbers as stored."""
        return None if self.abs_error is None else self.abs_error / abs(self.packing[0])

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
    variables: Sequence[str] | None = None,
    chunk: int = 48,
    overwrite: bool = False,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Compress variables of `dataset` into the Zarr archive `target` and keep all else as it is.

    `dataset` is best opened undecoded (``vcinr.datasets.readers.open_dataset``), so that packed values, fill
    values and times survive as stored. abs_error: bound in the variables' units, one for all or by name;
    rel_error: instead, a fraction of each variable's range. Without either: best effort with a model, lossless
    without. `chunk`: about how many signals one Zarr chunk holds. Returns what `vcinr info --json` prints.

    The archive appears under its name only when it is whole. Raises InputError, ModelError or, should the
    encoder be at fault, BoundError; nothing is left behind then.
    """
    target = Path(target)
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already; choose another name or pass overwrite (--overwrite)")
    if "://" in str(target):
        raise InputError(f"{target}: archives are written to local paths; write it here and copy the folder")
    dataset = _flat_names(dataset)
    if variables:
        variables = [name.replace("/", SEPARATOR) for name in variables]
    jobs = list(_jobs(dataset, model, abs_error, rel_error, variables))
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
    rel_error: float | None, variables: Sequence[str] | None,
) -> Iterator[_Job]:  # fmt: skip
    if abs_error is not None and rel_error is not None:
        raise InputError("give an absolute or a relative error bound, not both")
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
            raise InputError(f"variable {name!r} has dtype {values.dtype}, which is no number; it is kept as it is "
                             "when you do not name it")  # fmt: skip
        bound = abs_error.get(name) if isinstance(abs_error, Mapping) else abs_error
        if rel_error is not None:
            bound = rel_error * _range(values) * abs(float(values.attrs.get("scale_factor", 1.0)))
        if bound is not None and not (math.isfinite(bound) and bound >= 0):
            raise InputError(f"variable {name!r}: the error bound must be a positive number, got {bound}")
        bound = bound or None  # a constant field or a bound of zero: lossless
        if bound is None and (rel_error is not None or abs_error is not None):
            yield _Job(name, values, layout_of(values), None, None)
            continue
        yield _job(name, values, model, bound)


def _job(name: str, values: xr.DataArray, model: Model | None, bound: float | None) -> _Job:
    if model is None:
        return _Job(name, values, layout_of(values), None, bound)
    model.scaling(name)
    dims = model.dims if set(model.dims) <= set(values.dims) else None
    layout = layout_of(values, dims, "sphere" if model.system["system"] == "sphere" else "box")
    if len(layout.dims) != len(model.dims) or model.spec.d_in != coordinates.dimension(dict(model.system)):
        raise ModelError(f"variable {name!r} has the grid {layout.dims}, the model was trained on {model.dims}")
    return _Job(name, values, layout, model, bound)


def _default_variables(dataset: xr.Dataset, model: Model | None) -> list[str]:
    from vcinr.datasets.readers import numeric_fields

    fields = [n for n in numeric_fields(dataset) if dataset[n].ndim >= 2]
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
    history = "; ".join(
        f"{job.name} {'lossless' if job.abs_error is None and job.model is None else _promise(job.abs_error)}"
        for job in jobs
    )
    earlier = rest.attrs.get("history")
    rest.attrs["history"] = "\n".join(filter(None, [earlier, f"vcinr {vcinr.__version__} compress: {history}"]))
    rest.attrs["vcinr_requires"] = (
        "Reading the variables marked vcinr_version needs the Python package vcinr: pip install vcinr"
    )
    checked = {"compressors": (ZstdCodec(level=5), Crc32cCodec())}
    rest = without_storage(rest)
    # What is given as `encoding` replaces a variable's own, so it has to be repeated here.
    encoding = {str(name): {**variable.encoding, **checked} for name, variable in rest.variables.items()}
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


def _promise(bound: float | None) -> str:
    return "best effort" if bound is None else f"within {bound:g} of the input, lossy"


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
        abs_error=job.stored_bound,
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
        worst, squared = max(worst, encoded.max_abs_error), squared + encoded.squared_error
        counted, stored = counted + encoded.valid, stored + len(encoded.data)
        yield {
            "bits_per_value": 8 * len(encoded.data) / max(1, block.size),
            "max_abs_error": encoded.max_abs_error,
        }
    array.attrs.update(_attributes(values, dtype))
    facts: dict[str, Any] = {
        "version": vcinr.__version__, "bound": "lossless" if job.abs_error is None and job.model is None else
        "none" if job.abs_error is None else "absolute", "max_abs_error": worst * abs(job.packing[0]), "bytes": stored,
    }  # fmt: skip
    if job.abs_error is not None:
        facts["abs_error"] = job.abs_error
    if job.model is not None:
        facts["model_sha256"] = job.model.sha256
    if counted and squared > 0 and high > low:
        # Peak is the variable's own range, as in every figure of `vcinr info`.
        facts["psnr_db"] = 10 * math.log10((high - low) ** 2 / (squared / counted))
    array.attrs.update({ATTRIBUTE + k: v for k, v in facts.items()})


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
