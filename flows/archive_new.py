"""A flow that archives what is new in a folder: run on a schedule, or watching for as long as it is left to."""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, get_run_logger

from flows.compress_archive import compress_archive


@flow(name="archive-new")
def archive_new(
    inputs: list[str] | str,
    output: str,
    options: dict[str, Any] | None = None,
    settle_seconds: float = 60.0,
    every_seconds: float | None = None,
    rounds: int | None = None,
) -> dict[str, Any]:
    """Compress the inputs that have no archive yet, or that were changed after it was written.

    Several runs may be at work in the same folders at once: they share the work.

    Args:
        inputs: a folder, a glob pattern or a URL, or several of them.
        output: the folder or URL of the archives; an input STEM.nc becomes STEM.zarr.
        options: further parameters of compress-archive, such as {"abs_error": 0.1}.
        settle_seconds: an input that was changed later than so many seconds ago is left for the next time.
        every_seconds: look again after so many seconds, and so on; without it, look once.
        rounds: how often to look, with every_seconds (default: until the run is cancelled).
    """
    from vcinr.bulk.fresh import fresh

    log, made, number = get_run_logger(), dict[str, Any](), 0
    while True:
        number += 1
        last = every_seconds is None or number == rounds
        found = fresh(inputs, output, settle_seconds)
        log.info("%d inputs are new", len(found))
        if found:
            state = compress_archive(found, f"{output.rstrip('/')}/", **(options or {}), return_state=True)
            result = state.result(raise_on_failure=last)
            if isinstance(result, Exception):
                log.error("%s; the next round tries these again", result)
            else:
                made |= result
        if last:
            return made
        time.sleep(every_seconds or 0.0)
