"""`python -m flows.deploy` serves compress-archive and archive-new, for anyone's files, and the pipeline.

It uses the Prefect server whose address PREFECT_API_URL or Prefect's settings give. Without an address, Prefect starts
a temporary server, which ends with this command. Given what to watch, it runs archive-new on a schedule.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from prefect import serve
from prefect.settings import get_current_settings
from prefect.types.entrypoint import EntrypointType

from flows.archive_new import archive_new
from flows.common import server_url
from flows.compress_archive import compress_archive
from flows.pipeline import pipeline


def main() -> None:
    """Serve the deployments until interrupted."""
    given = _arguments()
    if not get_current_settings().api.url:
        os.environ["PREFECT_API_URL"] = server_url()  # runs are separate processes, which have to use this server too
        print(
            "No Prefect server is configured; this is a temporary one. In the shell that starts runs, type\n"
            f"  export PREFECT_API_URL={os.environ['PREFECT_API_URL']}",
            flush=True,
        )
    module = EntrypointType.MODULE_PATH  # flows are found by import, whatever folder this is served from
    new: dict[str, Any] = {}
    if given.watch:
        new["parameters"] = {"inputs": given.watch, "output": given.output, "options": json.loads(given.options)}
        new["interval"] = given.every
    serve(
        compress_archive.to_deployment("compress-archive", entrypoint_type=module),  # type: ignore[arg-type]
        archive_new.to_deployment("archive-new", entrypoint_type=module, **new),  # type: ignore[arg-type]
        pipeline.to_deployment("pipeline", entrypoint_type=module),  # type: ignore[arg-type]
        pause_on_shutdown=bool(given.watch),  # without a schedule there is nothing to pause
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument(
        "--watch", nargs="+", metavar="INPUT", help="Folders, patterns or URLs that archive-new watches."
    )
    parser.add_argument("--output", help="The folder or URL of its archives.")
    parser.add_argument(
        "--every", type=float, default=600.0, metavar="SECONDS", help="How often it looks. Default: 600."
    )
    parser.add_argument("--options", default="{}", metavar="JSON", help="Its further parameters for compress-archive.")
    given = parser.parse_args()
    if bool(given.watch) != bool(given.output):
        parser.error("--watch and --output go together")
    return given


if __name__ == "__main__":
    main()
