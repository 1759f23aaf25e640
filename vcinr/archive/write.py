"""Write archives: a data set with its groups to a self-contained Zarr v3 store, chunk by chunk, resumable, atomic.

Every array of numbers is stored by vcinr's codec, those that nobody asked to compress losslessly: its chunks carry a
checksum, and a missing one is an error, where plain Zarr would return fill values. Text and the like are kept as
xarray stores them.
"""

from __future__ import annotations

import errno
import json
import math
import shutil
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

import vcinr
from vcinr.archive import metadata, models, store
from vcinr.archive.blocks import READING, source_digest, text_digest
from vcinr.archive.contents import chunks_of
from vcinr.archive.jobs import Models
from vcinr.archive.manifest import KEY, Manifest, compact, metadata_digest
from vcinr.archive.metadata import PREFIX, RESERVED, Data, Groups
from vcinr.archive.plan import ArrayPlan, plan
from vcinr.archive.read import info, open_archive
from vcinr.archive.spool import Spool, link
from vcinr.archive.work import ChunkFacts, encode_all
from vcinr.codec.chunk import VERSION
from vcinr.codec.promise import Effort
from vcinr.errors import InputError, VcinrError
from vcinr.progress import Watch, silent
from vcinr.quality import psnr_db

_CHECKED = (ZstdCodec(level=5), Crc32cCodec())


def compress(
    dataset: Data,
    target: str | Path,
    *,
    model: Models = None,
    abs_error: float | Mapping[str, float] | None = None,
    rel_error: float | None = None,
    point_rel_error: float | None = None,
    psnr: float | None = None,
    rate: float | None = None,
    iou: float | None = None,
    variables: Sequence[str] | None = None,
    chunk: int | None = None,
    overwrite: bool = False,
    effort: Effort = "best",
    threads: int | None = None,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Compress variables of a data set into a Zarr archive, and keep all else as it is.

    Parameters
    ----------
    dataset
        A Dataset, a DataTree, or data sets by group; best opened undecoded (``vcinr.open_groups``), so that packed
        values, fill values and times survive as stored.
    target
        A folder, a name ending in .zip, or an fsspec URL.
    model
        The model to predict with; without one the residual coders work alone. Several by patterns of the variables'
        names (`vcinr.archive.jobs.model_of`).
    abs_error
        Bound of the error in the variables' units: one for all, or one by name.
    rel_error
        Bound as a fraction of each variable's range.
    point_rel_error
        Bound as a fraction of every value's own magnitude; zeros stay exact.
    psnr
        At least so many dB; the peak is the variable's range.
    rate
        At most so many bits per value in every chunk. A chunk at the edge of an array that is smaller than the others
        may take 64 bytes where that is more. So may signals of files (:mod:`vcinr.kinds.files`) that share an array, so
        that a tiny file among others needs no higher rate; the variable then states that rate as its bound.
    iou
        For truth values, and integers that are all 0 or 1: a mean IoU of at least so much in every chunk, from 0 to 1.
        No shape vanishes. Shapes are the last three axes longer than 1.
    variables
        Full names (``group/name``); by default all of two or more dimensions, bare integers apart; with `iou`, those
        that it is for. What cannot be
        lossy (text, truth values, ...) is stored losslessly, and the result says so.
    chunk
        About how many signals a chunk holds; by default those of a million values, eight at least, and of eight
        million zeros and ones. A chunk is what can be read by itself, and large ones take fewer bits.
    overwrite
        Whether an archive under this name is replaced. Nothing else ever is.
    effort
        ``best`` looks for the fewest bytes; ``fast`` takes many times less time and up to two or three times the
        bytes, with the same promises.
    threads
        How many chunks are encoded at a time at most; by default as many as there are cores.
    watch
        Is told of each chunk.

    Returns
    -------
    dict
        What :func:`vcinr.archive.read.info` returns.

    Raises
    ------
    InputError
        For a request that cannot be met, a source that cannot be read, a place that cannot be written.
    ModelError
        For a model that was not made for these variables.
    BoundError
        For a rate that is too low to reach.

    Notes
    -----
    At most one kind of bound is given. Without any, the result is the best effort of a model, and lossless without
    one. Chunks are encoded on as many threads as there are cores; the bytes do not depend on it.

    The archive appears under its name only when it is whole. An interrupted run leaves its finished chunks beside it
    (``.NAME.part``; for a URL in the user's cache), and the same call again goes on from there. When an error is
    raised nothing is left behind, except where the disk failed.
    """
    occupied(target, overwrite)
    bounds = {"rel_error": rel_error, "point_rel_error": point_rel_error, "psnr": psnr, "rate": rate, "iou": iou}
    groups = {path: metadata.stored(group, path) for path, group in metadata.as_groups(dataset).items()}
    arrays = plan(groups, model=model, abs_error=abs_error, bounds=bounds, variables=variables, chunk=chunk)
    work = store.workplace(target)
    request = json.dumps([VERSION, vcinr.__version__, effort, [a.request() for a in arrays]])
    try:
        with Spool(work, request, lambda: store.restore(work, target)) as spool:
            try:
                facts = encode_all(arrays, spool, effort, watch, threads)
                assemble(groups, arrays, facts, work / "archive", spool.path)
                check_opens(work / "archive", groups)
                occupied(target, overwrite)  # by now, too
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
    return info(target)


def occupied(target: str | Path, overwrite: bool) -> None:
    """Raise InputError where something is that must not be replaced."""
    occupant = store.occupant(target)
    if occupant == "other":
        raise InputError(f"{target}: exists already and is no archive; choose another name")
    if occupant == "archive" and not overwrite:
        raise InputError(f"{target}: exists already; choose another name or pass overwrite (--overwrite)")


def check_opens(tree: Path, groups: Groups) -> None:
    """Raise InputError unless xarray opens every group of the finished archive."""
    for path in groups:
        try:
            open_archive(tree, group=path, decode=False).close()  # times may be beyond decoding, as in the source
        except VcinrError as error:
            raise InputError(f"group {path or '/'!r} cannot be stored so that xarray opens it ({error})") from None


def assemble(
    groups: Groups, arrays: Sequence[ArrayPlan], facts: Mapping[str, ChunkFacts], tree: Path,
    chunk: Callable[[str], Path | None],
) -> None:  # fmt: skip
    """Build an archive in a folder from its finished chunks and from what is kept.

    Parameters
    ----------
    groups
        The data set by groups, as it is stored.
    arrays
        Its plan.
    facts
        The facts of each chunk by its key.
    tree
        The folder. What is in it is removed first.
    chunk
        The file with the bytes of a chunk, by the chunk's key; None for a chunk that is in its place elsewhere.

    Raises
    ------
    InputError
        For what an archive cannot hold.
    OSError
        Where the folder cannot be written.
    """
    shutil.rmtree(tree, ignore_errors=True)
    asked = [a for a in arrays if a.job.asked]
    for path, group in groups.items():
        with READING:
            _write_group(tree, path, group, arrays, "; ".join(f"{a.job.name} {a.job.promise}" for a in asked))
    root = zarr.open_group(tree, mode="r+", zarr_format=3)
    for array in arrays:
        if array.numeric:
            _write_array(root, array, facts, chunk, tree)
    for model in {a.job.model.sha256: a.job.model for a in arrays if a.job.model is not None}.values():
        models.put(root, model)
    nodes = _consolidate(tree)
    manifest = _manifest(root, arrays, facts, tree, metadata_digest(nodes))
    (tree / KEY).parent.mkdir(exist_ok=True)
    (tree / KEY).write_text(compact(manifest.as_node()))


def _consolidate(tree: Path) -> dict[str, Any]:
    """Copy the metadata of all groups and variables into the root's; returns them by key.

    All are written without spaces. What lies under ``vcinr`` is for vcinr alone, and is not copied.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(zarr.storage.LocalStore(tree))
    for file in tree.rglob(store.ROOT):
        file.write_text(compact(_short(json.loads(file.read_text()))))
    text = json.loads((tree / store.ROOT).read_text())
    copies = {name: _short(node) for name, node in text["consolidated_metadata"]["metadata"].items()}
    # Zarr orders them without regard to case and, where T and t are groups, then fails to read what it wrote.
    copies = {k: v for k, v in sorted(copies.items()) if k != RESERVED and not k.startswith(RESERVED + "/")}
    text["consolidated_metadata"]["metadata"] = copies
    (tree / store.ROOT).write_text(compact(text))
    return {store.ROOT: text} | {f"{name}/{store.ROOT}": node for name, node in copies.items()}


def _short(node: dict[str, Any]) -> dict[str, Any]:
    """A node's metadata without what Zarr takes for granted where it is not said."""
    for key in ("storage_transformers", "attributes"):
        if not node.get(key, True):
            del node[key]
    if node.get("chunk_key_encoding") == {"name": "default", "configuration": {"separator": "/"}}:
        node["chunk_key_encoding"] = {"name": "default"}
    return node


def _manifest(
    root: zarr.Group, arrays: Sequence[ArrayPlan], facts: Mapping[str, ChunkFacts], tree: Path, digest: str
) -> Manifest:
    """The manifest of the archive that was built in `tree`."""
    chunks, errors, sources = {}, {}, {}
    for array in sorted(arrays, key=lambda a: a.job.name):
        name = array.job.name
        if not array.numeric:
            stored: Any = root[name]
            chunks[name] = np.array([_crc32(tree / chunk.key) for chunk in chunks_of(name, stored)], np.uint32)
            sources[name] = [text_digest(array.job.values)]
            continue
        of_chunks = [facts[key] for _, key in array.chunks()]
        chunks[name] = np.array([f.crc32 for f in of_chunks], np.uint32)
        sources[name] = [f.values for f in of_chunks]
        if array.job.asked:
            errors[name] = np.array([f.error * array.job.unit for f in of_chunks], np.float64)
    of_models = sorted(p for p in (tree / models.GROUP).rglob("*") if p.is_file())
    files = {file.relative_to(tree).as_posix(): _crc32(file) for file in of_models}
    return Manifest(digest, files, chunks, errors, source_digest(sources))


def _crc32(file: Path) -> int:
    return zlib.crc32(file.read_bytes())


def _write_group(tree: Path, path: str, group: xr.Dataset, arrays: Sequence[ArrayPlan], history: str) -> None:
    """The group, its attributes and those of its variables that are not numbers, as xarray stores them."""
    notes = {a.job.name: a.job.note for a in arrays if not a.numeric and a.job.note}
    numeric = [a.job.name for a in arrays if a.numeric]
    rest = group.drop_vars([n for n in group.variables if metadata.join(path, str(n)) in numeric])
    rest.attrs = metadata.portable(group.attrs, f"group {path!r}" if path else "the file")
    if not path:
        rest.attrs["history"] = "\n".join(
            filter(None, [str(group.attrs.get("history", "")), f"vcinr {vcinr.__version__}: {history}"])
        )
        rest.attrs[PREFIX + "version"] = vcinr.__version__
        rest.attrs[PREFIX + "requires"] = "pip install vcinr"
    for name, variable in rest.variables.items():
        variable.attrs = metadata.portable(variable.attrs, f"variable {name!r}")
        if note := notes.get(metadata.join(path, str(name))):
            variable.attrs |= {PREFIX + "bound": "lossless", PREFIX + "note": note}
    encoding: dict[str, Any] = {str(name): {"compressors": _CHECKED} for name in rest.variables}
    try:
        # Every chunk is stored, also of empty texts: a missing one is lost data.
        with warnings.catch_warnings(), zarr.config.set({"array.write_empty_chunks": True}):
            warnings.simplefilter("ignore")  # strings are an extension to Zarr v3
            rest.to_zarr(tree, group=path or None, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    except (ValueError, TypeError, UnicodeError, NotImplementedError) as error:
        names = ", ".join(repr(str(n)) for n in rest.variables)
        raise InputError(
            f"one of {names or 'its attributes'} in group {path or '/'!r} cannot be stored "
            f"({' '.join(str(error).split())}); drop or convert it"
        ) from None


def _write_array(
    root: zarr.Group, array: ArrayPlan, facts: Mapping[str, ChunkFacts], chunk: Callable[[str], Path | None],
    tree: Path,
) -> None:  # fmt: skip
    """The array's metadata, and its chunks."""
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
        if (file := chunk(key)) is not None:
            link(file, tree / key)


def _provenance(array: ArrayPlan, facts: Sequence[ChunkFacts]) -> dict[str, Any]:
    """What a compressed variable says of itself: codec, bound, achieved error, model."""
    job = array.job
    said: dict[str, Any] = {
        "bound": "lossless" if job.note or (job.bound is None and job.model is None) else "none",
        "max_abs_error": max((f.error for f in facts), default=0.0) * job.unit,
        "bytes": sum(f.bytes for f in facts),
    }
    if job.bound is not None and job.note is None:
        said |= {"bound": job.bound.kind, "bound_value": job.bound.value}
    if job.note is not None:
        said["note"] = job.note
    if shapes := sum(f.shapes for f in facts):
        # Rounded down, because it is a promise.
        said["iou"] = math.floor(1e6 * sum(f.iou for f in facts) / shapes) / 1e6
        said["lowest_iou"] = math.floor(1e6 * min(f.lowest_iou for f in facts if f.shapes)) / 1e6
    if job.model is not None:
        said["model_sha256"] = job.model.sha256
    squared, valid = sum(f.squared for f in facts), sum(f.valid for f in facts)
    spread = max((f.high for f in facts), default=0.0) - min((f.low for f in facts), default=0.0)
    if valid and 0 < squared < math.inf and 0 < spread < math.inf:
        # Peak is the variable's own range, as in every figure of `vcinr info`.
        said["psnr_db"] = math.floor(100 * psnr_db(spread, squared, valid)) / 100  # further digits say nothing
    return {PREFIX + k: v for k, v in said.items()}
