"""Read archives: open them with xarray, describe them, write them back as netCDF."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vcinr.archive import metadata, models, netcdf
from vcinr.archive.contents import Archive, chunks_of, codec_of, counts_of, open_contents
from vcinr.archive.manifest import line
from vcinr.archive.metadata import PREFIX
from vcinr.archive.store import size_of, total_bytes
from vcinr.errors import NOT_DAMAGE, CorruptError, InputError, VcinrError, one_line
from vcinr.places import written_aside


def open_archive(path: str | Path, *, group: str = "", decode: bool = True) -> xr.Dataset:
    """Open one group of an archive lazily.

    Parameters
    ----------
    path
        The archive: a folder, a zip file or an fsspec URL.
    group
        Which group, the root by default.
    decode
        Whether packed values are unpacked and times decoded; else all is as it was stored.

    Returns
    -------
    xarray.Dataset
        Chunks are decoded when their values are asked for.

    Raises
    ------
    InputError
        When `path` is no archive or has no such group.
    CorruptError
        When its metadata are damaged.

    Notes
    -----
    Unlike plain ``xarray.open_zarr`` this checks the metadata first, and gives attributes their own types back, so that
    values packed by a float32 unpack to float32.
    """
    return opened(sound(path), group, decode)


def sound(path: str | Path) -> Archive:
    """Open an archive whose metadata are those that were written; raises as `open_archive` does."""
    archive = open_contents(path)
    if problems := archive.problems() or archive.index_problems() or archive.text_problems():
        raise CorruptError(f"{path}: {problems[0]}")
    return archive


def opened(archive: Archive, group: str, decode: bool) -> xr.Dataset:
    """Open one group of a sound archive; arguments and errors as of `open_archive`."""
    path = archive.place
    if group and group not in archive.groups():
        have = ", ".join(p for p in archive.groups() if p) or "none"
        raise InputError(f"{path}: no group {group!r}; it has {have}")
    raw: Any = {"mask_and_scale": False, "decode_times": False, "decode_timedelta": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = xr.open_zarr(archive.store, group=group or None, zarr_format=3, chunks=None, **raw)
            opened = metadata.restored(opened)
            return xr.decode_cf(opened) if decode else opened
    except MemoryError:
        raise
    except Exception as error:  # xarray, zarr and the CF decoders each have their own
        raise InputError(f"{path}: cannot be opened ({one_line(error)}); `vcinr verify` names the damage") from None


def raw_groups(path: str | Path) -> dict[str, xr.Dataset]:
    """Open all groups of an archive lazily and undecoded, by their paths; raises as `open_archive` does."""
    archive = sound(path)
    return {group: opened(archive, group, decode=False) for group in archive.groups()}


def info(path: str | Path) -> dict[str, Any]:
    """Describe an archive.

    Parameters
    ----------
    path
        The archive: a folder, a zip file or an fsspec URL.

    Returns
    -------
    dict
        ``variables``: by name the number of values, bytes, bits per value, bound, achieved error and model of each
        that was compressed; ``kept``: the others, with a note where one was to be compressed; ``model``: the first
        model and its bytes; ``models``: bytes by SHA-256; ``total_bytes``: of the whole archive.

    Raises
    ------
    InputError
        When `path` is no archive.
    CorruptError
        When its metadata are damaged.
    """
    archive = open_contents(path)
    if problems := archive.problems():
        raise CorruptError(f"{path}: {problems[0]}")
    variables: dict[str, Any] = {}
    kept: dict[str, str | None] = {}
    used: dict[str, int] = {}
    for name, array in archive.arrays():
        attrs = dict(array.attrs)
        if PREFIX + "bytes" not in attrs:
            kept[name] = str(attrs[PREFIX + "note"]) if PREFIX + "note" in attrs else None
            continue
        stored: Any = attrs[PREFIX + "bytes"]
        if not isinstance(stored, int):
            raise CorruptError(f"{path}: variable {name!r} states {stored!r} as its bytes")
        sha = attrs.get(PREFIX + "model_sha256")
        if sha is not None:
            used[str(sha)] = size_of(archive.store, f"{models.GROUP}/{sha}/c/0")
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
            "iou": attrs.get(PREFIX + "iou"),
            "lowest_iou": attrs.get(PREFIX + "lowest_iou"),
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


Decoder = Callable[[Archive, list[str]], netcdf.Stream]
"""Gives the values of variables of an archive, by their full names, part by part in any order."""


def decompress(path: str | Path, target: str | Path, decoder: Decoder | None = None) -> None:
    """Write an archive with its groups as a netCDF file.

    Parameters
    ----------
    path
        The archive: a folder, a zip file or an fsspec URL.
    target
        The file to write; its name ends in .nc or .nc4. It appears when it is whole.
    decoder
        Who decodes; by default this process, one chunk after another.

    Raises
    ------
    InputError
        When `path` is no archive, `target` exists or cannot be written, or netCDF has no form for something.
    CorruptError
        When anything in the archive is not as it was written.

    Notes
    -----
    Every chunk of numbers is fetched once, compared with the manifest, decoded and written, so memory is bounded by a
    few chunks; text, and the coordinates of dimensions, are held whole.
    """
    target = Path(target)
    if target.suffix not in (".nc", ".nc4"):
        raise InputError(f"{target}: decompress writes netCDF; name the file .nc")
    if target.exists():
        raise InputError(f"{target}: exists already; choose another name or remove it")
    archive = sound(path)
    if problems := archive.manifest.file_problems(archive.store, set(archive.keys())):
        raise CorruptError(f"{path}: {problems[0]}; `vcinr verify` names all")
    try:
        with written_aside(target) as aside:
            for i, group in enumerate(archive.groups()):
                _write_group(archive, group, aside, decoder or _decoded, first=i == 0)
    except OSError as error:
        raise InputError(f"{target}: cannot write ({error.strerror or error})") from None
    except InputError as error:
        raise InputError(str(error).replace(aside.name, target.name)) from None


def _write_group(archive: Archive, group: str, file: Path, decoder: Decoder, *, first: bool) -> None:
    arrays = {name: array for name, array in archive.arrays() if name.rpartition("/")[0] == group}
    streamed = {name.rpartition("/")[2] for name, array in arrays.items() if codec_of(array)}

    def stream(names: list[str]) -> netcdf.Stream:
        for name, part, values in decoder(archive, [metadata.join(group, short) for short in names]):
            yield name.rpartition("/")[2], part, values

    with opened(archive, group, decode=False) as dataset:
        netcdf.write_group(file, group, "w" if first else "a", dataset, streamed, stream)


def _decoded(archive: Archive, names: list[str]) -> netcdf.Stream:
    arrays = dict(archive.arrays())
    for name in names:
        for part, values in parts_of(archive, name, arrays[name]):
            yield name, part, values


def parts_of(
    archive: Archive, name: str, array: Any, start: int = 0, stop: int | None = None
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Decode chunks of a variable of numbers, each compared with the manifest.

    Parameters
    ----------
    archive
        The archive.
    name, array
        One of its variables.
    start, stop
        Number of the first chunk, in C order, and of the one after the last; by default all.

    Yields
    ------
    tuple of slice, numpy.ndarray
        The part of the variable that the chunk holds, and its values.

    Raises
    ------
    CorruptError
        Where a chunk is not as it was written.
    """
    sums = archive.manifest.checksums(name, counts_of(array))
    for chunk in itertools.islice(chunks_of(name, array), start, stop):
        try:
            values, _ = archive.load(array, chunk, int(sums[chunk.number]))
        except VcinrError as error:
            text = line(chunk.key, str(error))
            raise CorruptError(f"{archive.place}: {text}; `vcinr verify` names all") from None
        except NOT_DAMAGE:
            raise
        except Exception as error:  # Zarr's codecs raise what they like on damaged bytes
            text = line(chunk.key, one_line(error))
            raise CorruptError(f"{archive.place}: {text}; `vcinr verify` names all") from None
        yield chunk.part, values
