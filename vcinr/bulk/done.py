"""What is done already: notes of archives in the staging place, and archives that are what a run would make."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

from vcinr.archive import metadata
from vcinr.archive.blocks import read_block, source_digest, text_digest
from vcinr.archive.contents import Archive, chunks_of, codec_of, counts_of, open_contents
from vcinr.archive.jobs import Models
from vcinr.archive.manifest import MALFORMED, fetch
from vcinr.archive.metadata import PREFIX, Groups
from vcinr.archive.plan import ArrayPlan
from vcinr.archive.read import info
from vcinr.archive.repository import is_repository
from vcinr.archive.spool import clear, digest_of
from vcinr.archive.store import occupant, workplace
from vcinr.archive.verify import verify
from vcinr.bulk.place import Place
from vcinr.bulk.plan import Item, arrays_of
from vcinr.bulk.request import Request
from vcinr.bulk.source import Opened, changed
from vcinr.errors import InputError, VcinrError
from vcinr.places import is_url

_FOLDER = "done"


def read(staging: Place, item: Item) -> dict[str, Any] | None:
    """What was noted of an archive when it was finished; None where it is not, or is no longer there."""
    try:
        note = json.loads(staging.get(f"{_FOLDER}/{item.key}.json") or b"")
        facts: dict[str, Any] = note["facts"]
    except MALFORMED:
        return None
    return facts if is_url(item.target) or is_repository(item.target) or os.path.lexists(item.target) else None


def write(staging: Place, item: Item, facts: dict[str, Any]) -> None:
    """Note that an archive is in its place, with what `vcinr.archive.read.info` says of it."""
    node = {"target": item.target, "source": list(item.source.paths), "facts": facts}
    staging.put(f"{_FOLDER}/{item.key}.json", json.dumps(node, separators=(",", ":")).encode())


def keys(staging: Place) -> set[str]:
    """Keys of the items that are noted as done."""
    return {name.removesuffix(".json") for name in staging.sizes(_FOLDER)}


def standing(item: Item, opened: Opened, request: Request, models: Models, *, overwrite: bool) -> dict[str, Any] | None:
    """Look whether an archive is there already.

    Parameters
    ----------
    item
        The archive.
    opened
        Its input.
    request, models
        What is asked.
    overwrite
        Whether an archive of another request or of other values may be replaced.

    Returns
    -------
    dict or None
        What is there, with ``skipped`` True: every byte is as it was written, the values are those of the input, and it
        promises the same. None where nothing is there, or what may be replaced.

    Raises
    ------
    InputError
        Where something is there that must not be replaced.

    Notes
    -----
    The input is read and the archive's bytes are compared with its manifest; no chunk of numbers is decoded. An archive
    made with another effort or chunk size promises the same.
    """
    what = occupant(item.target)
    if what == "nothing":
        return None
    if what == "other":
        raise InputError(f"{item.target}: exists already and is no archive; choose another name")
    try:
        facts = info(item.target)
        if _newer(item) and _answers(item, opened, request, models):
            clear(workplace(item.target))
            return {**facts, "skipped": True}
    except VcinrError:
        pass  # a damaged archive is one that may be replaced
    if not overwrite:
        raise InputError(
            f"{item.target}: exists already, and is not what this request makes of {item.source.name}; choose another "
            "name or pass overwrite (--overwrite)"
        )
    return None


def _newer(item: Item) -> bool:
    """Whether an archive is newer than its input, as far as this can be seen."""
    if is_url(item.target) or is_repository(item.target) or any(map(is_url, item.source.paths)):
        return True
    target = Path(item.target)
    written = (target / "zarr.json" if target.is_dir() else target).stat().st_mtime
    return all((changed(path) or 0.0) <= written for path in item.source.paths)


def _answers(item: Item, opened: Opened, request: Request, models: Models) -> bool:
    """Whether an archive is sound, of these values, and has the codecs that this request gives its arrays."""
    archive = open_contents(item.target)
    arrays = arrays_of(opened.groups, opened.variables, request, models, item.known_limits)
    stored = dict(archive.arrays())
    for array in arrays:
        if array.job.name not in stored or not _same(array, stored[array.job.name]):
            return False
    return is_made_of(archive, opened.groups)


def _same(array: ArrayPlan, stored: Any) -> bool:
    codec = codec_of(stored)
    asked = PREFIX + "bytes" in stored.attrs if array.numeric else array.job.note is not None or not array.job.asked
    if not array.numeric:
        return asked
    return asked == array.job.asked and codec is not None and codec.to_dict() == array.codec.to_dict()


def is_made_of(archive: Archive, groups: Groups) -> bool:
    """Whether every byte of an archive is as it was written, and it was made of these values."""
    if not archive.manifest.source:  # an archive of before
        return not verify(archive.place, groups)[0]
    present = set(archive.keys())
    if archive.problems() or archive.manifest.file_problems(archive.store, present):
        return False
    arrays = dict(archive.arrays())
    if set(arrays) != {metadata.join(path, str(n)) for path, group in groups.items() for n in group.variables}:
        return False
    digests: dict[str, list[str]] = {}
    for name, array in arrays.items():
        values = metadata.member(groups, name)
        if values.shape != array.shape or (codec_of(array) and metadata.native(values.dtype) != array.dtype):
            return False
        try:
            sums = archive.manifest.checksums(name, counts_of(array))
            for chunk in chunks_of(name, array):
                fetch(archive.store, chunk.key, int(sums[chunk.number]))
        except VcinrError:
            return False
        if codec_of(array) is None:
            digests[name] = [text_digest(values)]
        else:
            indices = itertools.product(*map(range, counts_of(array)))
            digests[name] = [digest_of(read_block(values, index, array.chunks)) for index in indices]
    return source_digest(digests) == archive.manifest.source
