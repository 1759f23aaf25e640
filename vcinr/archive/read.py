"""Read archives: open, verify, describe, and write them back as netCDF."""

from __future__ import annotations

import itertools
import os
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from vcinr import codec
from vcinr.archive import models
from vcinr.archive.metadata import without_storage
from vcinr.archive.write import MANIFEST
from vcinr.archive.zarr_codec import VcinrCodec
from vcinr.errors import CorruptError, InputError, VcinrError
from vcinr.progress import Clock, Progress, Watch, silent

_READ_ERRORS = (VcinrError, ValueError, RuntimeError, OSError, KeyError, TypeError)


def open_archive(path: str | Path, *, decode: bool = True) -> xr.Dataset:
    """The archive as an xarray Dataset, lazily; ``decode=False`` leaves packed values and times as stored.

    Raises InputError when `path` is not an archive.
    """
    _group(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if decode:
            return xr.open_zarr(path, chunks=None)
        return xr.open_zarr(path, chunks=None, mask_and_scale=False, decode_times=False)


def info(path: str | Path) -> dict[str, Any]:
    """Variables with values, bytes, bits per value, bound and achieved error; model and total size on disk."""
    root: Any = _group(path)
    variables: dict[str, Any] = {}
    used: dict[str, int] = {}
    for name, array in _compressed(root):
        attrs, stored = dict(array.attrs), _chunk_bytes(path, array)
        sha = attrs.get("vcinr_model_sha256")
        if sha is not None:
            used[str(sha)] = int(root[f"{models.GROUP}/{sha}"].shape[0]) if f"{models.GROUP}/{sha}" in root else 0
        bound = attrs.get("vcinr_bound_value")
        variables[name] = {
            "values": array.size,
            "dtype": str(array.dtype),
            "bytes": stored,
            "bits_per_value": 8 * stored / max(1, array.size),
            "bits_per_value_with_model": 8 * (stored + used.get(str(sha), 0)) / max(1, array.size),
            "ratio": array.size * array.dtype.itemsize / max(1, stored),
            "bound": {"kind": attrs.get("vcinr_bound", "none"), "value": bound},
            "max_abs_error": attrs.get("vcinr_max_abs_error"),
            "psnr_db": attrs.get("vcinr_psnr_db"),
            "model": sha,
        }
    one = next(iter(used), None)
    total = sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())
    return {
        "archive": str(path),
        "variables": variables,
        "model": {"sha256": one, "bytes": used.get(one, 0) if one else 0},
        "models": used,
        "total_bytes": total,
    }


def verify(
    path: str | Path, against: xr.Dataset | None = None, *, watch: Watch = silent
) -> tuple[list[str], dict[str, Any]]:
    """Decode every chunk of the archive and, with `against` (the undecoded original), check every bound.

    Returns (problems, facts): one line a problem, naming the chunk or variable; facts hold the error seen for
    each compressed variable. No problem means: everything decodes, model hashes fit, every finite value is
    within its bound, masks and all other variables are identical.
    """
    root = _group(path)
    problems: list[str] = []
    facts: dict[str, Any] = {}
    arrays = list(_compressed(root))
    total = sum(a.nchunks for _, a in arrays)
    clock, done = Clock(total), 0
    for name, array in arrays:
        original = None
        if against is not None:
            original = _original(against, name, array, problems)
        worst = 0.0
        sums = _sums(root, name, array, problems)
        for index, key, part in _chunks(array):
            try:
                decoded = np.asarray(array[part])
                if sums is not None and _crc32(root, array, key) != sums[index]:
                    raise CorruptError("these are not the bytes that were written here (manifest)")
            except _READ_ERRORS as error:
                problems.append(_line(name, key, error))
            else:
                if original is not None:
                    worst = max(worst, _compare(name, key, array, original[part], decoded, problems))
            done += 1
            watch(Progress("verify", done, total, {"max_abs_error": worst}, clock.left(done)))
        facts[name] = {"max_abs_error": worst if original is not None else None, "chunks": array.nchunks}
    problems += _check_rest(path, root, against, {n for n, _ in arrays})
    return problems, facts


def decompress(path: str | Path, target: str | Path) -> None:
    """Write the archive as a netCDF file, atomically; raises InputError or CorruptError, leaving nothing."""
    target = Path(target)
    if target.suffix not in (".nc", ".nc4"):
        raise InputError(f"{target}: decompress writes netCDF; name the file .nc")
    if target.exists():
        raise InputError(f"{target}: exists already; choose another name or remove it")
    temporary = target.with_name(f".{target.name}.part")
    try:
        dataset = without_storage(open_archive(path, decode=False).load())
        dataset.to_netcdf(temporary)
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"{target}: cannot write ({error.strerror or error})") from None
    except (ValueError, RuntimeError) as error:
        if isinstance(error, VcinrError):
            raise
        raise InputError(f"{path}: cannot read the archive ({error}); `vcinr verify` names the chunks") from None
    finally:
        temporary.unlink(missing_ok=True)


def is_complete(path: str | Path) -> bool:
    """Whether `path` is an archive that verifies in itself."""
    try:
        return not verify(path)[0]
    except VcinrError:
        return False


def _group(path: str | Path) -> zarr.Group:
    if not os.path.exists(path):
        raise InputError(f"{path}: no such archive")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
    except _READ_ERRORS as error:
        raise InputError(f"{path}: not a Zarr v3 archive ({type(error).__name__}: {error})") from None


def _compressed(root: zarr.Group) -> Iterator[tuple[str, zarr.Array]]:
    for name, array in sorted(root.arrays()):
        codecs = array.metadata.codecs  # type: ignore[union-attr]
        if any(isinstance(c, VcinrCodec) for c in codecs):
            yield name, array


def _sums(root: Any, name: str, array: zarr.Array, problems: list[str]) -> np.ndarray | None:
    """CRC-32 of every chunk as the manifest has them; None, with a problem noted, where it does not."""
    try:
        sums = np.asarray(root[f"{MANIFEST}/{name}/crc32"][...])
    except _READ_ERRORS as error:
        problems.append(f"variable {name!r}: its manifest cannot be read ({' '.join(str(error).split())})")
        return None
    if sums.shape != array.cdata_shape:
        problems.append(f"variable {name!r}: its manifest is of another shape")
        return None
    return sums


def _crc32(root: Any, array: zarr.Array, key: str) -> int:
    buffer = sync(root.store.get(f"{array.path}/{key}", default_buffer_prototype()))
    return zlib.crc32(buffer.to_bytes()) if buffer is not None else -1


def _chunks(array: zarr.Array) -> Iterator[tuple[tuple[int, ...], str, tuple[slice, ...]]]:
    counts = [range(-(-n // c)) for n, c in zip(array.shape, array.chunks, strict=True)]
    for index in itertools.product(*counts):
        part = tuple(
            slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, array.chunks, array.shape, strict=True)
        )
        yield index, array.metadata.encode_chunk_key(index), part


def _chunk_bytes(path: str | Path, array: zarr.Array) -> int:
    folder = Path(path) / array.path / "c"
    files = [folder] if folder.is_file() else folder.rglob("*")
    return sum(f.stat().st_size for f in files if f.is_file())


def _line(name: str, key: str, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if f"{name}/{key}" in text else f"chunk {name}/{key}: {text}"


def _original(against: xr.Dataset, name: str, array: zarr.Array, problems: list[str]) -> np.ndarray | None:
    if name not in against:
        problems.append(f"variable {name!r} is not in the file compared with")
        return None
    values = against[name].values
    if values.shape != array.shape or values.dtype.newbyteorder("=") != array.dtype.newbyteorder("="):
        problems.append(
            f"variable {name!r}: the archive has {array.dtype}{array.shape}, "
            f"the file compared with {values.dtype}{values.shape}"
        )
        return None
    return values


def _compare(
    name: str, key: str, array: zarr.Array, original: np.ndarray, decoded: np.ndarray, problems: list[str]
) -> float:
    serializer = next(c for c in array.metadata.codecs if isinstance(c, VcinrCodec))  # type: ignore[union-attr]
    original = original.astype(original.dtype.newbyteorder("="), copy=False)
    kept = codec.valid_values(original, serializer.fill)
    errors = codec.errors_of(original, decoded)
    worst = float(errors[kept].max(initial=0.0))
    bound = serializer.bound
    if bound is None and array.attrs.get("vcinr_bound") == "lossless":
        bound = ("absolute", 0.0)
    if bound is not None and bound[0] in ("absolute", "relative"):
        allowed = codec.allowed_errors(original, codec.Bound(bound[0], bound[1]))  # type: ignore[arg-type]
        missed = int(((errors > allowed) & kept).sum())
        if missed:
            problems.append(
                f"chunk {name}/{key}: {missed} value(s) outside the {bound[0]} bound {bound[1]:g}, the largest error "
                f"being {worst:g}"
            )
    if original[~kept].tobytes() != decoded[~kept].tobytes():
        problems.append(f"chunk {name}/{key}: masked values (NaN, infinite or fill) differ from the original")
    return worst


def _check_rest(path: str | Path, root: zarr.Group, against: xr.Dataset | None, compressed: set[str]) -> list[str]:
    """Models by hash, and every variable that is kept as it was."""
    problems = []
    for sha in {str(a.attrs["vcinr_model_sha256"]) for _, a in _compressed(root) if "vcinr_model_sha256" in a.attrs}:
        try:
            models.check(Path(path), sha)
        except VcinrError as error:
            problems.append(str(error))
    for name, array in sorted(root.arrays()):
        if name in compressed:
            continue
        try:
            values = np.asarray(array[...])
        except _READ_ERRORS as error:
            problems.append(f"variable {name!r}: {' '.join(str(error).split())}")
            continue
        if against is not None and name in against.variables:
            other = against[name].values
            if values.shape != other.shape or not _same(values, other):
                problems.append(f"variable {name!r} differs from the original, though it is kept losslessly")
    return problems


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.kind in "fc" and b.dtype.kind in "fc":
        return bool(np.array_equal(a, b, equal_nan=True))
    return bool(np.array_equal(a, b))
