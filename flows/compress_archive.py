"""Stage 5, and the same work on a user's own files: data sets to archives."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.common import (
    PARAMS,
    RETRY_DELAYS,
    main,
    places_of,
    record,
    tries_after_the_first,
    watcher,
    worth_retrying,
)
from vcinr.config import Codec, Source
from vcinr.errors import InputError, VcinrError
from vcinr.kinds import load
from vcinr.places import is_url, stem


@task(
    name="compress",
    cache_policy=NO_CACHE,
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=worth_retrying,
)
def compress_file(
    path: str, target: str, model: str | None, abs_error: float | None, variables: list[str] | None,
    chunk: int | None, effort: Literal["best", "fast"],
) -> dict[str, Any]:  # fmt: skip
    """Compress one file or store, unless its archive is there, newer than it and of the same request."""
    from vcinr.archive.bulk import compress_file as run

    facts = run(
        path, target, model=model, abs_error=abs_error, variables=variables, chunk=chunk, effort=effort,
        watch=watcher("compress"),
    )  # fmt: skip
    if facts.get("skipped"):
        get_run_logger().info("%s: complete, verified and newer than %s; not compressed again", target, path)
    return facts


@flow(name="compress-archive")
def compress_archive(
    inputs: list[str] | str,
    output: str,
    model: str | None = None,
    abs_error: float | None = None,
    variables: list[str] | None = None,
    chunk: int | None = None,
    effort: Literal["best", "fast"] = "best",
) -> dict[str, Any]:
    """Compress files to archives that plain xarray opens.

    Args:
        inputs: a path, glob pattern or URL, or several of them. Relative paths are relative to the folder
            that the deployment is served from.
        output: for one input (no pattern), a name ending in .zarr or .zip is the archive; else it is a folder
            that receives one STEM.zarr for each input. Paths or fsspec URLs.
        model: a .vcinr model; without one the fallback coders work alone.
        abs_error: largest absolute error of every value; best effort without.
        variables: those to compress (default: all that can be).
        chunk: signals a chunk; about a million values by default.
        effort: best takes the fewest bytes, fast less time; both keep the bound.
    """
    jobs = plan(inputs, output)
    summary: dict[str, Any] = {}
    failed: list[str] = []
    for path, target in jobs:
        state = compress_file.with_options(retries=tries_after_the_first([path]))(
            path, target, model, abs_error, variables, chunk, effort, return_state=True
        )
        result = state.result(raise_on_failure=False)
        if not isinstance(result, Exception):
            summary[target] = result
        elif isinstance(result, VcinrError) and len(jobs) > 1:
            failed.append(f"{path}: {result}")  # the others can still be done
        else:
            raise result
    record("compress-archive", summary)
    if failed:
        raise InputError(f"{len(failed)} of {len(jobs)} inputs failed: {'; '.join(failed)}")
    return summary


@task(name="compress", cache_policy=NO_CACHE)
def compress_source(source: Source, raw: Path, target: Path, model: Path, options: Codec) -> dict[str, Any]:
    """Compress a source's archive data: one data set is the archive `target`, several are STEM.zarr in it."""
    from vcinr.archive.write import compress
    from vcinr.datasets.ingest import archive_variables, open_archive
    from vcinr.inr.model import load_model

    artifact, watch = load_model(model), watcher("compress-archive")
    members = open_archive(source, raw, watch)
    targets = [target] if len(members) == 1 else [target / f"{name}.zarr" for name, _ in members]
    summary: dict[str, Any] = {}
    for (name, dataset), path in zip(members, targets, strict=True):
        variables = archive_variables(source, dataset)
        facts = compress(
            dataset, path, model=artifact, abs_error=options.abs_error, rel_error=options.rel_error,
            variables=variables, chunk=options.chunk, effort=options.effort, overwrite=True, watch=watch,
        )  # fmt: skip
        # Metrics are compared between runs: names that change with every model have no place among them.
        summary[name] = {key: value for key, value in facts.items() if key not in ("archive", "models")}
    return summary


@flow(name="compress-archive-stage")
def stage(params: str = PARAMS) -> dict[str, Any]:
    """Compress the active source's archive data with its model."""
    p = load(params)
    places = places_of(p)
    summary = compress_source(p.active, places.raw, places.archive, places.model, p.codec)
    record("compress_archive", summary, places.metrics / "compress_archive.json")
    return summary


def plan(inputs: Iterable[str] | str, output: str) -> list[tuple[str, str]]:
    """(input, archive) of every file that `inputs` names; InputError where there is none, or a clash."""
    given = [_at_home(i) for i in ([inputs] if isinstance(inputs, str) else inputs)]
    output = _at_home(output)
    paths = [path for pattern in given for path in _expand(pattern)]
    if not paths:
        raise InputError("inputs: no file named; give a path, a pattern or a URL")
    if len(given) == 1 and not _is_pattern(given[0]) and output.endswith((".zarr", ".zip")):
        return [(paths[0], output)]
    jobs: dict[str, str] = {}
    for path in paths:
        target = f"{output.rstrip('/')}/{stem(path)}.zarr"
        if jobs.setdefault(target, path) != path:
            raise InputError(f"{jobs[target]} and {path} would both become {target}; use two folders")
    return [(path, target) for target, path in jobs.items()]


def _is_pattern(path: str) -> bool:
    if is_url(path):
        return "*" in path  # other wildcards are at home in URLs
    return any(c in path for c in "*?[") and not Path(path).exists()


def _expand(path: str) -> list[str]:
    if not _is_pattern(path):
        return [path]
    if is_url(path):
        import fsspec

        system, inner = fsspec.core.url_to_fs(path)
        found = [system.unstrip_protocol(name) for name in system.glob(inner)]
    else:
        found = glob.glob(path, recursive=True)
    if not found:
        raise InputError(f"{path}: no file matches this pattern")
    return sorted(found)


def _at_home(path: str) -> str:
    return path if is_url(path) else os.path.expanduser(path)


if __name__ == "__main__":
    main(stage)
