"""Many files to archives, one at a time: what is done already is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vcinr.archive.metadata import as_groups
from vcinr.archive.plan import default_variables
from vcinr.archive.read import info
from vcinr.archive.spool import clear
from vcinr.archive.store import workplace
from vcinr.archive.verify import verify
from vcinr.archive.write import compress
from vcinr.codec import Effort
from vcinr.datasets.readers import open_groups
from vcinr.errors import InputError, VcinrError
from vcinr.inr.model import Model, load_model
from vcinr.places import is_url
from vcinr.progress import Watch, silent


def compress_file(
    path: str, target: str, *, model: str | None = None, abs_error: float | None = None,
    variables: list[str] | None = None, chunk: int | None = None, effort: Effort = "best", watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Compress one file or store to the archive `target`, unless it is there, newer, sound and of the same request.

    Returns what `compress` does, with ``skipped`` True where nothing was to do: an archive made with another `effort`
    promises the same. An interrupted call leaves its finished chunks, and the next goes on from them. Raises
    InputError, ModelError and BoundError like `compress`.
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
    facts: dict[str, Any], path: str, model: Model | None, abs_error: float | None, variables: list[str] | None
) -> bool:
    """Whether an archive is what compressing `path` now would give: newer, same request, and it verifies against it."""
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
    groups = as_groups(open_groups(path))
    if set(variables or default_variables(groups, model)) != set(stored):
        return False
    same = all(v["note"] or (v["bound"], v["model"]) == promise for v in stored.values())
    return same and not verify(archive, groups)[0]
