"""`python -m flows.deploy` serves the deployments: compress-archive for anyone's files, and the pipeline.

With PREFECT_API_URL set, or the server's address in Prefect's settings, that server is used. Otherwise
Prefect starts a temporary one, which ends with this command.
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
    """Serve until interrupted."""
    if not get_current_settings().api.url:
        os.environ["PREFECT_API_URL"] = server_url()  # runs are processes: they too use this server
        print(
            "No Prefect server is configured; this is a temporary one. In the shell that starts runs, type\n"
            f"  export PREFECT_API_URL={os.environ['PREFECT_API_URL']}",
            flush=True,
        )
    module = EntrypointType.MODULE_PATH  # found by import, from whatever folder this is served
    serve(
        compress_archive.to_deployment("compress-archive", entrypoint_type=module),  # type: ignore[arg-type]
        pipeline.to_deployment("pipeline", entrypoint_type=module),  # type: ignore[arg-type]
        pause_on_shutdown=False,  # there is no schedule to pause
    )


if __name__ == "__main__":
    main()
