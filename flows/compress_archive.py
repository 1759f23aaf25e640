"""Stage 5 of the pipeline, which compresses data sets to archives, and a flow that does so with a user's own files.

The flow has a task each for the plan, for driving the batches and for the commit. Batches are no tasks: the engine that
runs them (:mod:`vcinr.bulk.engines`) has its own way with workers that die.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
from vcinr.bulk.drive import Outcome
from vcinr.bulk.engines import Engine, engine_of
from vcinr.bulk.plan import BulkPlan
from vcinr.bulk.request import Request
from vcinr.config import Codec, Source
from vcinr.kinds import load


@task(name="plan", cache_policy=NO_CACHE, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=worth_retrying)
def plan(inputs: list[str] | str, output: str, request: Request, options: Mapping[str, Any]) -> BulkPlan:
    """Decide which archive each input becomes, and cut large inputs into batches."""
    from vcinr.bulk.plan import plan

    made = plan(inputs, output, request, **options)
    get_run_logger().info("%d archives to make; %d inputs cannot be read", len(made.items), len(made.failed))
    return made


@task(name="drive", cache_policy=NO_CACHE, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=worth_retrying)
def drive(made: BulkPlan, engine: Engine, stall_s: float) -> Outcome:
    """Have all batches done, by workers that know nothing of Prefect; what is finished is not done again."""
    from vcinr.bulk.drive import drive

    return drive(made, engine, commits=False, stall_s=stall_s, watch=watcher("compress-archive"))


@task(name="commit", cache_policy=NO_CACHE, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=worth_retrying)
def commit(driven: Outcome) -> Outcome:
    """Make archives of the chunks of large inputs; those of small ones are there already."""
    from vcinr.bulk.drive import commit

    if driven.left is None:
        return driven
    last = commit(driven.left, watcher("compress-archive-commit"))
    return replace(last, archives=driven.archives | last.archives)


@flow(name="compress-archive")
def compress_archive(
    inputs: list[str] | str,
    output: str,
    model: str | dict[str, str] | None = None,
    abs_error: float | dict[str, float] | None = None,
    rel_error: float | None = None,
    point_rel_error: float | None = None,
    psnr: float | None = None,
    rate: float | None = None,
    iou: float | None = None,
    variables: list[str] | None = None,
    chunk: int | None = None,
    effort: Literal["best", "fast"] = "best",
    concat: str | None = None,
    engine: str | None = None,
    workers: int | None = None,
    dask: str | None = None,
    batch_seconds: float = 60.0,
    memory_mb: int | None = None,
    stall_seconds: float = 600.0,
) -> dict[str, Any]:
    """Compress files to archives that plain xarray opens.

    Args:
        inputs: a path, a folder, a glob pattern or a URL, or several of them. Relative paths start from the folder in
            which the deployment is served.
        output: a path or an fsspec URL. For a single input that is not a pattern, a name ending in .zarr or .zip is
            the archive. Otherwise it is a folder, which receives an archive STEM.zarr for each input.
        model: a .vcinr model, or one for each pattern of variables' names. Without one, only the residual coders are
            used.
        abs_error: the largest absolute error of a value, for all variables or for each. Without any bound, a model does
            its best, and without a model, values are kept as they are.
        rel_error: the largest error, relative to the range of a variable.
        point_rel_error: the largest error, relative to each value.
        psnr: the least peak signal-to-noise ratio in dB.
        rate: the most bits per value.
        iou: the least intersection over union of shapes.
        variables: the variables to compress (default: all that can be).
        chunk: number of signals in a chunk (default: about a million values).
        effort: best searches for the fewest bytes, fast takes less time; both keep the bound.
        concat: the dimension along which all inputs are joined to one archive, such as time.
        engine: who does the work: processes, threads, serial, dask, or that of another package (default: processes, or
            dask where an address is given).
        workers: how many processes or threads (default: one for each core).
        dask: the address of a Dask scheduler, such as tcp://node1:8786, whose workers do the work.
        batch_seconds: work in a batch, about.
        memory_mb: the most memory of a worker; a plan that needs more is refused.
        stall_seconds: seconds without a sign of life of any worker after which the run fails.
    """
    request = Request(
        model, abs_error, rel_error, point_rel_error, psnr, rate, iou, tuple(variables) if variables else None, chunk,
        effort, concat,
    )  # fmt: skip
    chosen = engine_of(engine or ("dask" if dask else "processes"), workers=workers, address=dask)
    # An archive of another request or of other values is replaced, as running this again is how one changes it.
    options = {"overwrite": True, "batch_seconds": batch_seconds, "memory": memory_mb and memory_mb << 20}
    return archived(inputs, output, request, chosen, options, stall_seconds)


def archived(
    inputs: list[str] | str, output: str, request: Request, engine: Engine, options: Mapping[str, Any], stall_s: float
) -> dict[str, Any]:
    """Plan, drive and commit, as tasks of the flow that calls this.

    Parameters
    ----------
    inputs, output, request
        As in :func:`vcinr.bulk.plan.plan`; `options` are its further arguments.
    engine, stall_s
        As in :func:`vcinr.bulk.drive.drive`.

    Returns
    -------
    dict
        What is known of each archive, by its path or URL.

    Raises
    ------
    InputError
        Where inputs failed, which are named; the archives of the others are there.
    """
    far = [output, *([inputs] if isinstance(inputs, str) else inputs), *([engine.address] if engine.address else [])]
    retries = tries_after_the_first(far)
    made = plan.with_options(retries=retries)(inputs, output, request, options)
    tags = {"vcinr-drive", f"vcinr-{engine.name}"}
    driven = drive.with_options(retries=retries, tags=tags)(made, engine, stall_s)
    outcome = commit.with_options(retries=retries)(driven)
    record("compress-archive", outcome.archives)
    outcome.check(len(made.items) + len(made.failed))
    return outcome.archives


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


if __name__ == "__main__":
    main(stage)
