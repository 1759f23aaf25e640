"""Many files to archives, one at a time: what is done already is not done again."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from vcinr.archive import metadata
from vcinr.archive.blocks import read_block, source_digest, text_digest
from vcinr.archive.contents import Archive, chunks_of, codec_of, counts_of, open_contents
from vcinr.archive.jobs import default_variables
from vcinr.archive.manifest import fetch
from vcinr.archive.metadata import Groups
from vcinr.archive.read import info
from vcinr.archive.spool import clear, digest_of
from vcinr.archive.store import workplace
from vcinr.archive.verify import verify
from vcinr.archive.write import compress
from vcinr.codec.promise import Effort
from vcinr.errors import InputError, VcinrError
from vcinr.formats.open import open_groups
from vcinr.models import AnyModel, load_model
from vcinr.places import is_url
from vcinr.progress import Watch, silent


def compress_file(
    path: str, target: str, *, model: str | None = None, abs_error: float | None = None,
    variables: list[str] | None = None, chunk: int | None = None, effort: Effort = "best", watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Compress one file or store, unless its archive is there, newer, sound and of the same request.

    Parameters
    ----------
    path
        The file or store: a path or an fsspec URL.
    target
        The archive.
    model
        Path of a trained model, if any.
    abs_error, variables, chunk, effort, watch
        As in :func:`vcinr.archive.write.compress`.

    Returns
    -------
    dict
        What `compress` returns, and ``skipped`` True where nothing was to do: an archive made with another `effort` or
        `chunk` promises the same.

    Raises
    ------
    InputError, ModelError, BoundError
        As in `compress`.

    Notes
    -----
    To see that nothing is to do, the file is read and the archive's bytes are compared with its manifest; no chunk of
    numbers is decoded. An interrupted call leaves its finished chunks, and the next goes on from them.
    """
    artifact = load_model(model) if model else None
    if not is_url(target) and Path(path).resolve() == Path(target).resolve():
        raise InputError(f"{path}: the archive would replace its own input; choose another output")
    try:
        existing = info(target)
    except VcinrError:
        existing = None
    if existing and _answers(existing, path, artifact, abs_error, variables):
        clear(workplace(target))
        return {**existing, "skipped": True}
    return compress(
        open_groups(path), target, model=artifact, abs_error=abs_error, variables=variables, chunk=chunk, effort=effort,
        overwrite=bool(existing and existing["variables"]), watch=watch,
    )  # fmt: skip


def _answers(
    facts: dict[str, Any], path: str, model: AnyModel | None, abs_error: float | None, variables: list[str] | None
) -> bool:
    """Whether an archive is what compressing `path` now would give: newer, sound, of the same request and values."""
    archive = Path(facts["archive"])
    if is_url(path) or not Path(path).exists() or not archive.exists():
        return False
    written = (archive / "zarr.json" if archive.is_dir() else archive).stat().st_mtime
    if written < max(f.stat().st_mtime for f in [Path(path), *Path(path).rglob("*")]):
        return False
    lossless = abs_error == 0 or (abs_error is None and model is None)
    kind = "lossless" if lossless else "none" if abs_error is None else "absolute"
    sha256 = None if abs_error == 0 or model is None else model.sha256
    promise = ({"kind": kind, "value": None if lossless else abs_error}, sha256)
    stored = facts["variables"]
    groups = metadata.as_groups(open_groups(path))
    if set(variables or default_variables(groups, model)) != set(stored):
        return False
    same = all(v["note"] or (v["bound"], v["model"]) == promise for v in stored.values())
    return same and _is_made_of(open_contents(archive), groups)


def _is_made_of(archive: Archive, groups: Groups) -> bool:
    """Whether every byte of an archive is as it was written, and it was made of these values."""
    if not archive.manifest.source:  # an archive of before
        return not verify(archive.place, groups)[0]
    keys = set(archive.keys())
    if archive.problems() or archive.manifest.file_problems(archive.store, keys):
        return False
    stored = {path: metadata.stored(group, path) for path, group in groups.items()}
    arrays = dict(archive.arrays())
    if set(arrays) != {metadata.join(path, str(n)) for path, group in stored.items() for n in group.variables}:
        return False
    digests: dict[str, list[str]] = {}
    for name, array in arrays.items():
        values = metadata.member(stored, name)
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
