"""The commit: what lies in the staging place is checked, and becomes an archive of which readers see all or nothing."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vcinr.archive import store
from vcinr.archive.plan import ArrayPlan
from vcinr.archive.read import info
from vcinr.archive.work import ChunkFacts
from vcinr.archive.write import assemble, check_opens, occupied
from vcinr.bulk import done
from vcinr.bulk.batch import CHUNKS, RECEIPTS, Receipt, chunks_place, prepared
from vcinr.bulk.place import Place, patiently
from vcinr.bulk.plan import Batch, BulkPlan, Item
from vcinr.bulk.source import check_unchanged
from vcinr.errors import CorruptError, InputError
from vcinr.places import is_url

PLAN = "plan.json"
"""The plan in the staging place."""


def commit_item(made: BulkPlan, item: Item) -> dict[str, Any]:
    """Make an archive of the chunks that its batches have written.

    Parameters
    ----------
    made
        The plan of the run.
    item
        One of its items that was opened.

    Returns
    -------
    dict
        What :func:`vcinr.archive.read.info` says of it.

    Raises
    ------
    InputError
        Where batches are missing, something else has taken the archive's place, or the place cannot be written.
    CorruptError
        Where a receipt or a chunk is damaged: the batch is named, and will be done again by the next run.
    """
    staging = Place(made.place)
    check_unchanged(item.source)
    batches = made.of_item(item)
    receipts = _receipts(batches, staging)
    facts = {key: found for receipt in receipts for key, found in receipt.facts().items()}
    groups, arrays = prepared(item, made.request, made.place, made.models)
    keys = [key for array in arrays if array.numeric for _, key in array.chunks()]
    if set(keys) != set(facts):
        raise CorruptError(f"{item.target}: the receipts are of other chunks than the plan; run the command again")
    chunks = chunks_place(item, made.place)
    _check_chunks(item.target, receipts, facts, staging, chunks)
    patiently(lambda: occupied(item.target, made.overwrite))
    remote, in_place = is_url(made.place), chunks.root == item.target
    work = Path(tempfile.mkdtemp(prefix="vcinr-commit-") if remote else staging.path(f"work/{item.key}"))
    needed = _indices(arrays) if in_place else set(keys)  # xarray opens an archive only with these

    def chunk(key: str) -> Path | None:
        if not remote:
            return Path(chunks.path(key))
        return _fetched(chunks, key, work / "chunks") if key in needed else None

    try:
        store.restore(work, item.target)
        assemble(groups, arrays, facts, work / "archive", chunk)
        check_opens(work / "archive", groups)
        patiently(lambda: store.publish(work / "archive", item.target, keys if in_place else ()))
    except OSError as error:
        raise InputError(
            f"{item.target}: cannot write the archive ({error.strerror or error}); free some space or choose another "
            f"place. Finished chunks are kept in {made.place}: the same command goes on from there"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found = patiently(lambda: info(item.target))
    done.write(staging, item, found)
    staging.remove(f"{CHUNKS}/{item.key}")
    return found


def _indices(arrays: Sequence[ArrayPlan]) -> set[str]:
    """Keys of the chunks of coordinates of dimensions."""
    own = [a for a in arrays if a.numeric and a.job.values.dims == (a.job.name.rpartition("/")[2],)]
    return {key for array in own for _, key in array.chunks()}


def _fetched(chunks: Place, key: str, folder: Path) -> Path:
    """A local copy of a chunk."""
    file = folder / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(chunks.get(key) or b"")
    return file


def _receipts(batches: list[Batch], staging: Place) -> list[Receipt]:
    """The receipts of all batches of an item; raises where one is missing or damaged."""
    receipts = []
    missing = []
    for batch in batches:
        data = staging.get(f"{RECEIPTS}/{batch.id}.json")
        if data is None:
            missing.append(batch.id)
            continue
        receipt = Receipt.read(data, batch.id)
        if receipt is None:
            staging.remove(f"{RECEIPTS}/{batch.id}.json")
            raise CorruptError(f"receipt of batch {batch.name} is damaged; run the command again, which redoes it")
        receipts.append(receipt)
    if missing:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise InputError(
            f"{batches[0].items[0].target}: {len(missing)} of {len(batches)} batches are missing ({some}); run the "
            "command again, which does them"
        )
    return receipts


def _check_chunks(
    target: str, receipts: list[Receipt], facts: dict[str, ChunkFacts], staging: Place, chunks: Place
) -> None:
    """Raise CorruptError where a chunk is not as its receipt says; the receipt is removed then.

    Of chunks behind a URL whose ETag is the MD5 of what was written, nothing is fetched.
    """
    listed = chunks.listing() if is_url(chunks.root) else {}
    for receipt in receipts:
        for key in receipt.chunks:
            if listed.get(key) == (facts[key].bytes, receipt.md5.get(key, "-")):
                continue
            data = chunks.get(key)
            if data is None or len(data) != facts[key].bytes or zlib.crc32(data) != facts[key].crc32:
                staging.remove(f"{RECEIPTS}/{receipt.batch}.json")
                what = "is missing" if data is None else "was damaged after it was written"
                raise CorruptError(
                    f"{target}: chunk {key} of batch {receipt.batch} {what}; run the command again, which "
                    "redoes this batch"
                )
