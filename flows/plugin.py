"""A start-up hook of Prefect: `prefect deployment run NAME` works without the flow's name if NAME is unambiguous.

Prefect itself expects FLOW/DEPLOYMENT. It imports this module whenever it starts in a folder whose pyproject.toml
enables plugins, so the hook does nothing unless a `prefect deployment` command is running.
"""

from __future__ import annotations

import sys
from typing import Any

from prefect.plugins import register_hook


@register_hook
def setup_environment(*, ctx: Any) -> None:
    """Make the command's client find deployments by their bare names too."""
    if not {"deployment", "deployments"} & set(sys.argv[1:]):
        return
    from prefect.client.orchestration import PrefectClient

    by_name = PrefectClient.read_deployment_by_name

    async def read_deployment_by_name(self: PrefectClient, name: str) -> Any:
        return await by_name(self, name if "/" in name else await full_name(self, name))

    PrefectClient.read_deployment_by_name = read_deployment_by_name  # type: ignore[assignment, method-assign]


async def full_name(client: Any, name: str) -> str:
    """FLOW/NAME of the only deployment called `name`; the command ends with a message where there is not just one."""
    from prefect.cli._utilities import exit_with_error
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    wanted = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
    deployments = await client.read_deployments(deployment_filter=wanted)
    names = sorted([f"{(await client.read_flow(d.flow_id)).name}/{name}" for d in deployments])
    if len(names) == 1:
        return names[0]
    if not names:
        exit_with_error(f"No deployment is called {name!r}; `prefect deployment ls` lists them.")
    exit_with_error(f"{name!r} is the name of several deployments: {', '.join(names)}; give one of these.")
