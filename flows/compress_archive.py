"""Stage 5 of the pipeline, which compresses data sets to archives, and a flow that does so with a user's own files."""

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
    """Compress one file or store, unless there is an archive that is newer than it and comes from the same request."""
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
        inputs: a path, a glob pattern or a URL, or several of them. Relative paths start from the folder in which
            the deployment is served.
        output: a path or an fsspec URL. For a single input that is not a pattern, a name ending in .zarr or .zip is
            the archive. Otherwise it is a folder, which receives an archive STEM.zarr for each input.
        model: a .vcinr model. Without one, only the residual coders are used.
        abs_error: the largest absolute error of a value. Without it, there is no bound.
        variables: the variables to compress (default: all that can be).
        chunk: number of signals in a chunk (default: about a million values).
        effort: best searches for the fewest bytes, fast takes less time; both keep the bound.
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
            failed.append(f"{path}: {result}")  # the other inputs can still be compressed
        else:
            raise result
    record("compress-archive", summary)
    if failed:
        raise InputError(f"{len(failed)} of {len(jobs)} inputs failed: {'; '.join(failed)}")
    return summary


@task(name="compress", cache_policy=NO_CACHE)
def compress_source(source: Source, raw: Path, target: Path, model: Path, options: Codec) -> dict[str, Any]:
    """Compress a source's archive data: a single data set to `target`, several to NAME.zarr in the folder `target`."""
    from vcinr.archive.write import compress
    from vcinr.datasets.ingest import archive_variables, open_archive
    from vcinr.models import load_model

    artifact, watch = load_model(model), watcher("compress-archive")
    members = open_archive(source, raw, watch)
    targets = [target] if len(members) == 1 else [target / f"{name}.zarr" for name, _ in members]
    summary: dict[str, Any] = {}
    for (name, dataset), path in zip(members, targets, strict=True):
        variables = archive_variables(source, dataset)
        facts = compress(
            dataset, path, model=artifact, abs_error=options.abs_error, rel_error=options.rel_error,
            psnr=options.psnr, rate=options.rate, variables=variables, chunk=options.chunk, effort=options.effort,
            overwrite=True, watch=watch,
        )  # fmt: skip
        # Metrics are compared between runs, so they must not contain names that change with each model.
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
    """Decide which archive each input becomes.

    Parameters
    ----------
    inputs, output
        As in `compress_archive`.

    Returns
    -------
    list of (str, str)
        Input and archive of each file.

    Raises
    ------
    InputError
        Where there is no input, or where two inputs would become the same archive.
    """
    given = [_with_home(i) for i in ([inputs] if isinstance(inputs, str) else inputs)]
    output = _with_home(output)
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
    """Whether a path or URL is a glob pattern."""
    if is_url(path):
        return "*" in path  # URLs contain other wildcards, such as "?", with a meaning of their own
    return any(c in path for c in "*?[") and not Path(path).exists()


def _expand(path: str) -> list[str]:
    """The files that a path, URL or pattern stands for, sorted."""
    if not _is_pattern(path):
        return [path]
    if is_url(path):
        import fsspec

        system, inner = fsspec.core.url_to_fs(path)
        matches = [system.unstrip_protocol(name) for name in system.glob(inner)]
    else:
        matches = glob.glob(path, recursive=True)
    if not matches:
        raise InputError(f"{path}: no file matches this pattern")
    return sorted(matches)


def _with_home(path: str) -> str:
    """A path with ``~`` replaced by the home folder; URLs are unchanged."""
    return path if is_url(path) else os.path.expanduser(path)


if __name__ == "__main__":
    main(stage)
