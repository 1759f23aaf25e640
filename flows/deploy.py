"""`python -m flows.deploy` serves two deployments: compress-archive, for anyone's files, and the pipeline.

It uses the Prefect server whose address PREFECT_API_URL or Prefect's settings give. Without an address, Prefect starts
a temporary server, which ends with this command.
"""

from __future__ import annotations

import os

from prefect import serve
from prefect.settings import get_current_settings
from prefect.types.entrypoint import EntrypointType

from flows.common import server_url
from flows.compress_archive import compress_archive
from flows.pipeline import pipeline


def main() -> None:
    """Serve the deployments until interrupted."""
    if not get_current_settings().api.url:
        os.environ["PREFECT_API_URL"] = server_url()  # runs are separate processes, which have to use this server too
        print(
            "No Prefect server is configured; this is a temporary one. In the shell that starts runs, type\n"
            f"  export PREFECT_API_URL={os.environ['PREFECT_API_URL']}",
            flush=True,
        )
    module = EntrypointType.MODULE_PATH  # flows are found by import, whatever folder this is served from
    serve(
        compress_archive.to_deployment("compress-archive", entrypoint_type=module),  # type: ignore[arg-type]
        pipeline.to_deployment("pipeline", entrypoint_type=module),  # type: ignore[arg-type]
        pause_on_shutdown=False,  # the deployments have no schedules to pause
    )


if __name__ == "__main__":
    main()
