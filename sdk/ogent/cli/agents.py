"""`ogent agents`."""

from ogent.cli import exit_codes
from ogent.cli.render import as_json, labels
from ogent.cli.session import open_client, say
from ogent.cli.tables import moment, show_rows
from ogent.protocol.resources import Agent


async def agents(selector: str | None, *, machine: bool) -> int:
    """Show the agents that the account may see."""
    async with open_client() as client:
        found = await client.agents(selector)
    if machine:
        print(as_json([agent.model_dump(mode="json") for agent in found]))
    elif found:
        show_rows(
            ("agent", "status", "running", "host", "executors", "labels", "last seen"),
            [_row(agent) for agent in found],
            flexible="labels",
        )
    else:
        say("no agents" + (" match the selector" if selector else "; `ogent doctor` helps"))
    return exit_codes.OK


def _row(agent: Agent) -> tuple[str, ...]:
    return (
        agent.agent_id,
        agent.status,
        str(agent.running),
        agent.agent_info.hostname,
        ",".join(agent.agent_info.executors),
        labels(agent.labels),
        moment(agent.last_seen_at),
    )
