"""Read archives: open, verify, describe, and write them back as netCDF."""

from __future__ import annotations

import json
import math
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from numcodecs import zstd
from zarr.abc.store import Store

from vcinr.archive import metadata, models
from vcinr.archive.metadata import PREFIX, RESERVED, Data
from vcinr.archive.store import ROOT, get, keys, open_store, total_bytes
from vcinr.archive.write import MANIFEST, metadata_digest
from vcinr.archive.zarr_codec import VcinrCodec
from vcinr.codec.promise import MAX_VALUES, Bound, allowed_errors, check_size, errors_of, valid_values
from vcinr.errors import CorruptError, InputError, VcinrError, one_line
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.quality import psnr_db

_CODECS = {"vcinr", "vcinr_sharding", "bytes", "vlen-utf8", "vlen-bytes", "zstd", "crc32c"}
"""All that an archive's arrays may be stored with: another name could be a codec that does anything."""


_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, VcinrError)
"""What JSON gives rise to that is not as it should be."""


def open_archive(path: str | Path, *, group: str = "", decode: bool = True) -> xr.Dataset:
    """One group of the archive as an xarray Dataset, lazily; ``decode=False`` leaves packed values and times as stored.

    Unlike plain ``xarray.open_zarr`` it checks the metadata first, and gives attributes their own types back, so that
    values packed by a float32 unpack to float32. Raises InputError when `path` is not an archive or
    has no such group, CorruptError when its metadata are damaged.
    """
    store, root = _open(path)
    if problems := _metadata_problems(store) or _index_problems(root) or _plain_problems(store, root):
        raise CorruptError(f"{path}: {problems[0]}")
    if group and group not in _paths(root):
        raise InputError(f"{path}: no group {group!r}; it has {', '.join(p for p in _paths(root) if p) or 'none'}")
    raw: Any = {"mask_and_scale": False, "decode_times": False, "decode_timedelta": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = xr.open_zarr(store, group=group or None, zarr_format=3, chunks=None, **raw)
            opened = metadata.restored(opened)
            return xr.decode_cf(opened) if decode else opened
    except Exception as error:  # xarray, zarr and the CF decoders each have their own
        raise InputError(f"{path}: cannot be opened ({one_line(error)}); `vcinr verify` names the damage") from None


def info(path: str | Path) -> dict[str, Any]:
    """Variables with values, bytes, bits per value, bound and achieved error; what is kept as it was; models; size."""
    store, root = _open(path)
    if problems := _metadata_problems(store):
        raise CorruptError(f"{path}: {problems[0]}")
    here = keys(store)
    variables: dict[str, Any] = {}
    kept: dict[str, str | None] = {}
    used: dict[str, int] = {}
    for name, array in _arrays(root):
        attrs = dict(array.attrs)
        if PREFIX + "bytes" not in attrs:
            kept[name] = str(attrs[PREFIX + "note"]) if PREFIX + "note" in attrs else None
            continue
        stored = sum(_size(store, key) for key in here if key.startswith(f"{name}/c/"))
        sha = attrs.get(PREFIX + "model_sha256")
        if sha is not None:
            used[str(sha)] = _size(store, f"{models.GROUP}/{sha}/c/0")
        variables[name] = {
            "values": array.size,
            "dtype": str(array.dtype),
            "bytes": stored,
            "bits_per_value": 8 * stored / max(1, array.size),
            "bits_per_value_with_model": 8 * (stored + used.get(str(sha), 0)) / max(1, array.size),
            "ratio": array.size * array.dtype.itemsize / max(1, stored),
            "bound": {"kind": attrs.get(PREFIX + "bound", "none"), "value": attrs.get(PREFIX + "bound_value")},
            "max_abs_error": attrs.get(PREFIX + "max_abs_error"),
            "psnr_db": attrs.get(PREFIX + "psnr_db"),
            "note": attrs.get(PREFIX + "note"),
            "model": sha,
        }
    one = next(iter(used), None)
    return {
        "archive": str(path),
        "variables": variables,
        "kept": kept,
        "model": {"sha256": one, "bytes": used.get(one, 0) if one else 0},
        "models": used,
        "total_bytes": total_bytes(path),
    }


def verify(path: str | Path, against: Data | None = None, *, watch: Watch = silent) -> tuple[list[str], dict[str, Any]]:
    """Decode every chunk of the archive and, with `against` (the undecoded original), check every bound.

    Returns (problems, facts): one line a problem, naming the chunk, file or variable; facts hold the error seen for
    each compressed variable. No problem means: everything decodes, all is as it was written, every finite value is
    within its bound, masks and all other variables are identical to the original's. Raises InputError when `path` is
    no archive at all.
    """
    store, root = _open(path)
    here = keys(store)
    problems = _metadata_problems(store)
    manifest = _manifest(store)
    problems += _file_problems(store, set(here), manifest)
    facts: dict[str, Any] = {}
    originals = None
    if against is not None:
        originals = {p: metadata.stored(g) for p, g in metadata.as_groups(against).items()}
        problems += _missing_members(root, originals)
    arrays = list(_arrays(root))
    total = sum(min(a.nchunks, len(here)) for _, a in arrays)
    clock, done = Clock(total), 0
    for name, array in arrays:
        asked = PREFIX + "bytes" in array.attrs
        try:
            original = None if originals is None else _original(originals, name, array)
            sums = _sums(root, name, array, len(here)) if asked and _codec(array) else None
        except VcinrError as error:
            problems.append(str(error))
            original = sums = None
        worst, seen = 0.0, _Seen()
        for index, key, part in _chunks(array):
            if done > total + 100:
                problems.append(
                    f"variable {name!r}: declares {array.nchunks:,} chunks, more than the archive has files"
                )
                break
            try:
                check_size(array.chunks)
                decoded = np.asarray(array[part])
                if sums is not None:
                    data, problem = _listed(store, f"{name}/{key}", sums[index])
                    if problem:
                        raise CorruptError(problem)
                    if array.attrs.get(PREFIX + "bound") == "rate":
                        _check_rate(array, len(data), decoded.size)
                if original is not None:
                    worst = max(worst, _compare(array, original[part], decoded, seen))
            except Exception as error:  # zarr's codecs raise what they like on damaged bytes
                problems.append(_line(f"{name}/{key}", one_line(error)))
            done += 1
            watch(Progress("verify", done, max(done, total), {"max_abs_error": worst}, clock.left(done)))
        if original is not None and (missed := seen.missed(array)):
            problems.append(f"variable {name!r}: {missed}")
        if asked:
            facts[name] = {"max_abs_error": worst if original is not None else None, "chunks": array.nchunks}
    for sha in sorted({str(a.attrs[PREFIX + "model_sha256"]) for _, a in arrays if PREFIX + "model_sha256" in a.attrs}):
        try:
            models.check(store, sha)
        except VcinrError as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems)), facts


def decompress(path: str | Path, target: str | Path) -> None:
    """Write the archive with its groups as a netCDF file, atomically; raises InputError or CorruptError."""
    target = Path(target)
    if target.suffix not in (".nc", ".nc4"):
        raise InputError(f"{target}: decompress writes netCDF; name the file .nc")
    if target.exists():
        raise InputError(f"{target}: exists already; choose another name or remove it")
    store, root = _open(path)
    needed = max(
        (sum(a.nbytes for n, a in _arrays(root) if n.rpartition("/")[0] == p) for p in _paths(root)), default=0
    )
    if needed > _memory():
        raise InputError(f"{path}: a group of {needed:,} bytes does not fit into memory; read it in parts with xarray")
    here = keys(store)
    problems = _metadata_problems(store) or _file_problems(store, set(here), _manifest(store))
    for name, array in _arrays(root):
        if not problems and PREFIX + "bytes" in array.attrs and _codec(array):
            sums = _sums(root, name, array, len(here))
            for index, key, _ in _chunks(array):
                if problem := _listed(store, f"{name}/{key}", sums[index])[1]:
                    problems.append(_line(f"{name}/{key}", problem))
                    break
    if problems:
        raise CorruptError(f"{path}: {problems[0]}; `vcinr verify` names all")
    temporary = target.with_name(f".{target.name}.part")
    try:
        for i, group in enumerate(_paths(root)):
            _append(_loaded(path, group), temporary, group, "a" if i else "w")
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"{target}: cannot write ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _loaded(path: str | Path, group: str) -> xr.Dataset:
    """A group as it was stored, in memory."""
    try:
        return open_archive(path, group=group, decode=False).load()
    except (ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{path}: cannot read the archive ({one_line(error)}); `vcinr verify` names the chunks"
        ) from None


def _append(dataset: xr.Dataset, file: Path, group: str, mode: Literal["w", "a"]) -> None:
    """Write a group to a netCDF file; raises InputError for what netCDF has no form for."""
    unlimited = dataset.encoding["unlimited_dims"]
    for variable in dataset.variables.values():
        if "_FillValue" not in variable.attrs:
            variable.encoding["_FillValue"] = None  # else xarray adds NaN, which the data did not have
    try:
        dataset.to_netcdf(file, mode=mode, group=group or None, engine="netcdf4", unlimited_dims=unlimited)
    except (ValueError, RuntimeError, TypeError) as error:
        text = f"netCDF cannot hold group {group or '/'!r} ({one_line(error)}); read the archive with xarray"
        raise InputError(f"{file.name.removeprefix('.').removesuffix('.part')}: {text}") from None


def _open(path: str | Path) -> tuple[Store, zarr.Group]:
    """Store and root of an archive whose arrays have none but known codecs; raises InputError or CorruptError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = open_store(path)
            root = zarr.open_group(store, mode="r", zarr_format=3)
            for name, node in root.members(max_depth=None):
                for one in _all_codecs(node.metadata.to_dict().get("codecs", [])):
                    if one["name"] not in _CODECS:
                        raise CorruptError(
                            f"{path}: variable {name!r} has the codec {one['name']!r}, which no archive has"
                        )
    except VcinrError:
        raise
    except Exception as error:  # whatever zarr makes of a damaged zarr.json
        raise InputError(f"{path}: not a Zarr v3 archive ({type(error).__name__}: {one_line(error)})") from None
    return store, root


def _all_codecs(declared: Any) -> Iterator[Any]:
    """Codecs of an array's metadata, those within shards too."""
    for one in declared:
        yield one
        inner = one.get("configuration", {})
        yield from _all_codecs([*inner.get("codecs", []), *inner.get("index_codecs", [])])


def _index_problems(root: zarr.Group) -> list[str]:
    """xarray loads the coordinate of a dimension as soon as it opens a data set: it must not be enormous."""
    for name, array in _arrays(root):
        if array.ndim == 1 and _dims(array) == (name.rpartition("/")[2],) and array.size > MAX_VALUES:
            return [f"coordinate {name!r} declares {array.size:,} values; set VCINR_MAX_CHUNK_VALUES if you trust it"]
    return []


def _dims(array: zarr.Array) -> tuple[str | None, ...] | None:
    return array.metadata.dimension_names  # type: ignore[union-attr]


def _plain_problems(store: Store, root: zarr.Group) -> list[str]:
    """Text and the like, which Zarr's codecs keep: a missing chunk would be read as empty, a hostile one inflate."""
    files = _manifest(store).get("attributes", {}).get("files", {})
    for name, array in _arrays(root):
        if _codec(array) is not None:
            continue
        if array.size > MAX_VALUES or array.nchunks > len(files):
            return [f"variable {name!r} declares {array.size:,} values, more than its files can hold"]
        for _, key, _ in _chunks(array):
            data, problem = _listed(store, f"{name}/{key}", files.get(f"{name}/{key}"))
            if problem := problem or _inflates(data, math.prod(array.chunks)) or _miscounts(data, array):
                return [_line(f"{name}/{key}", problem)]
    return []


def _inflates(data: bytes, values: int) -> str | None:
    """What is wrong with the size that a zstd chunk of so many values declares: at most a megabyte each, a gigabyte."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 10:
        return "it is no zstd frame"
    single, size = data[4] >> 5 & 1, (0, 2, 4, 8)[data[4] >> 6] or (data[4] >> 5 & 1)
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[data[4] & 3]
    declared = int.from_bytes(data[start : start + size], "little") + (256 if size == 2 else 0)
    if not size or declared > min(1 << 30, (max(values, 1) + 8) << 20):
        return "it declares no size, or an enormous one"
    return None


def _miscounts(data: bytes, array: zarr.Array) -> str | None:
    """Whether a chunk of texts, of a size that was checked, begins with another number of them than it has."""
    codecs: Any = array.metadata.to_dict().get("codecs")
    if not any(c["name"].startswith("vlen-") for c in codecs):
        return None
    try:
        count = int.from_bytes(zstd.decompress(data[:-4])[:4], "little")
    except RuntimeError as error:
        return one_line(error)
    return None if count == math.prod(array.chunks) else f"it says that it holds {count:,} texts"


def _arrays(root: zarr.Group) -> Iterator[tuple[str, zarr.Array]]:
    """Full name and array of every variable, sorted; not those of the manifest and the models."""
    for name, node in sorted(root.members(max_depth=None), key=lambda m: m[0]):
        if isinstance(node, zarr.Array) and not name.startswith(RESERVED + "/"):
            yield name, node


def _paths(root: zarr.Group) -> list[str]:
    """Groups of the archive, the root first."""
    below = [n for n, node in root.members(max_depth=None) if isinstance(node, zarr.Group)]
    return ["", *sorted(n for n in below if n != RESERVED and not n.startswith(RESERVED + "/"))]


def _codec(array: zarr.Array) -> VcinrCodec | None:
    codecs = array.metadata.codecs  # type: ignore[union-attr]
    return next((c for c in codecs if isinstance(c, VcinrCodec)), None)


def _size(store: Store, key: str) -> int:
    from zarr.core.sync import sync

    try:
        return int(sync(store.getsize(key)))
    except FileNotFoundError:
        return 0


def _manifest(store: Store) -> Mapping[str, Any]:
    """The manifest's metadata; empty where they are missing or damaged."""
    try:
        found = json.loads(get(store, f"{MANIFEST}/{ROOT}") or b"{}")
        return found if isinstance(found["attributes"]["files"], dict) else {}
    except _MALFORMED:
        return {}


def _metadata_problems(store: Store) -> list[str]:
    """Whether the metadata that readers see are those that were written: attributes, shapes, coordinates, bounds."""
    manifest = _manifest(store)
    if not manifest:
        return ["the manifest is missing or damaged; restore the archive from a sound copy"]
    try:
        text = json.loads(get(store, ROOT) or b"{}")
        copies = text["consolidated_metadata"]
        shown = {f"{k}/{ROOT}": v for k, v in copies["metadata"].items()}
        copy = {k: v for k, v in shown.pop(f"{MANIFEST}/{ROOT}").items() if k != "consolidated_metadata"}
        sound = copy == manifest and copies["kind"] == "inline" and len(copies) == 3
        sound &= metadata_digest(shown | {ROOT: text}) == manifest["attributes"]["metadata_sha256"]
    except _MALFORMED:
        sound = False
    return [] if sound else ["the metadata are not those that were written; restore the archive from a sound copy"]


def _file_problems(store: Store, here: set[str], manifest: Mapping[str, Any]) -> list[str]:
    """Files that are missing or changed, of those the manifest lists by name: metadata and what is kept."""
    listed = manifest.get("attributes", {}).get("files", {}).items()
    found = ((key, _listed(store, key, crc32)[1] if key in here else _MISSING) for key, crc32 in listed)
    return [_line(key, problem) for key, problem in found if problem]


_MISSING = "it is missing; copy the archive whole"
_CHANGED = "these are not the bytes that were written here (manifest)"


def _listed(store: Store, key: str, crc32: Any) -> tuple[bytes, str | None]:
    """A file's bytes, and what is wrong with them by the CRC-32 that the manifest has."""
    try:
        data = get(store, key)
    except CorruptError as error:
        return b"", str(error)
    if data is None:
        return b"", _MISSING
    return data, None if zlib.crc32(data) == crc32 else _CHANGED


def _missing_members(root: zarr.Group, originals: metadata.Groups) -> list[str]:
    here = {name for name, _ in _arrays(root)}
    names = [metadata.join(path, str(n)) for path, group in originals.items() for n in group.variables]
    return [f"variable {name!r} of the original is not in the archive" for name in names if name not in here]


def _sums(root: Any, name: str, array: zarr.Array, most: int) -> np.ndarray:
    """CRC-32 of every chunk as the manifest has them; raises CorruptError where it does not."""
    try:
        sums = root[f"{MANIFEST}/{name}/crc32"]
        if sums.shape != array.cdata_shape or sums.size > most:
            raise ValueError("it is of another shape")
        return np.asarray(sums[...])
    except Exception as error:  # as in `verify`
        raise CorruptError(f"variable {name!r}: its manifest cannot be read ({one_line(error)})") from None


def _chunks(array: zarr.Array) -> Iterator[tuple[tuple[int, ...], str, tuple[slice, ...]]]:
    for index in _indices(tuple(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))):
        part = tuple(
            slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, array.chunks, array.shape, strict=True)
        )
        yield index, array.metadata.encode_chunk_key(index), part


def _indices(counts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Like itertools.product, which would first hold every range in memory, of whatever length is declared."""
    if not counts:
        yield ()
        return
    if 0 in counts:
        return
    for i in range(counts[0]):
        for rest in _indices(counts[1:]):
            yield (i, *rest)


def _line(key: str, problem: str) -> str:
    return problem if key in problem else f"chunk {key}: {problem}"


def _original(originals: metadata.Groups, name: str, array: zarr.Array) -> np.ndarray:
    try:
        values = metadata.member(originals, name).values
    except KeyError:
        raise InputError(f"variable {name!r} is not in the file compared with") from None
    numbers = values.dtype.kind in "fiubc"  # the types of text have no order of bytes, and more than one name
    same = not numbers or values.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    if values.shape != array.shape or not same:
        raise InputError(
            f"variable {name!r}: the archive has {array.dtype}{array.shape}, "
            f"the file compared with {values.dtype}{values.shape}"
        )
    return values


@dataclass
class _Seen:
    """What a PSNR target is checked by, over all chunks of a variable."""

    squared: float = 0.0
    valid: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: np.ndarray, errors: np.ndarray) -> None:
        """Take the valid values of a chunk and their errors."""
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            with np.errstate(over="ignore"):
                self.squared, self.valid = self.squared + float(np.square(errors).sum()), self.valid + values.size

    def missed(self, array: zarr.Array) -> str | None:
        """Whether the variable promises a PSNR that it does not have."""
        if array.attrs.get(PREFIX + "bound") != "psnr" or not 0 < self.squared < math.inf:
            return None
        wanted: Any = array.attrs.get(PREFIX + "bound_value", math.inf)
        found = psnr_db(self.high - self.low, self.squared, self.valid)
        return f"its PSNR is {found:.2f} dB, below the {wanted:g} dB promised" if found < wanted - 1e-6 else None


def _compare(array: zarr.Array, original: np.ndarray, decoded: np.ndarray, seen: _Seen) -> float:
    """The largest error; raises InputError saying what is not as promised."""
    serializer = _codec(array)
    if serializer is None or PREFIX + "bytes" not in array.attrs or array.dtype.kind not in "fiu":
        if not _same(original, decoded):
            raise InputError("differs from the original, though it is kept losslessly")
        return 0.0
    original = original.astype(original.dtype.newbyteorder("="), copy=False)
    kept = valid_values(original, serializer.fill)
    errors = errors_of(original, decoded)
    worst = float(errors[kept].max(initial=0.0))
    seen.add(original[kept], errors[kept])
    bound = serializer.bound
    if bound is None and array.attrs.get(PREFIX + "bound") == "lossless":
        bound = ("absolute", 0.0)
    if bound is not None and bound[0] in ("absolute", "relative"):
        allowed = allowed_errors(original, Bound(bound[0], bound[1]))  # type: ignore[arg-type]
        if missed := int(((errors > allowed) & kept).sum()):
            raise InputError(
                f"{missed} value(s) outside the {bound[0]} bound {bound[1]:g}, the largest error being {worst:g}"
            )
    if original[~kept].tobytes() != decoded[~kept].tobytes():
        raise InputError("masked values (NaN, infinite or fill) differ from the original")
    if not np.array_equal(valid_values(decoded, serializer.fill), kept):
        raise InputError("values of the original have become missing (NaN, infinite or fill)")
    return worst


def _check_rate(array: zarr.Array, size: int, values: int) -> None:
    rate: Any = array.attrs.get(PREFIX + "bound_value", 0.0)
    if 8 * size > rate * values:
        raise CorruptError(f"{8 * size / max(1, values):.3g} bits per value, more than the {rate:g} promised")


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.kind in "fiub":
        return a.astype(a.dtype.newbyteorder("="), copy=False).tobytes() == b.tobytes()
    if a.dtype.kind == "c":
        return bool(np.array_equal(a, b, equal_nan=True))
    return bool(np.array_equal(a, b))


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 1 << 62
