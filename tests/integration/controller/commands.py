"""What most tests do with commands: submit one, play it through, wait for its state."""

import asyncio
from typing import Any

import httpx2

from tests.fakes.protocol_agent import Execution, ProtocolAgent
from tests.integration.controller.installation import Running
from tests.integration.controller.socket_client import SocketClient

DEADLINE_S = 20.0


async def submit(http: httpx2.AsyncClient, agent_id: str = "web-1", **body: object) -> str:
    """The id of a new command that nobody waits for."""
    wanted = {"command": "anything", "wait": 0, **body}
    answer = await http.post(f"/agents/{agent_id}/execute", json=wanted)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["command_id"])


async def taken(http: httpx2.AsyncClient, agent: ProtocolAgent, **body: object) -> Execution:
    """A new command that its agent has taken up and started."""
    await submit(http, agent.agent_id, **body)
    execution = await agent.execution()
    assert (answer := await execution.start())["ok"], answer
    return execution


async def played(
    http: httpx2.AsyncClient, agent: ProtocolAgent, *pieces: bytes | tuple[str, bytes]
) -> str:
    """The id of a command that wrote `pieces` (stdout, or `(stream, bytes)`) and succeeded."""
    execution = await taken(http, agent)
    for piece in pieces:
        stream, data = piece if isinstance(piece, tuple) else ("stdout", piece)
        await execution.write(data, stream)
    assert (await execution.end())["ok"] is True
    return execution.command_id


async def reaches(http: httpx2.AsyncClient, command_id: str, *states: str) -> dict[str, Any]:
    """The command once it is in one of `states`: its event stream says when to look."""
    async with asyncio.timeout(DEADLINE_S):
        async with http.stream("GET", f"/commands/{command_id}/events") as events:
            async for line in events.aiter_lines():
                if line.startswith(("event: state", "event: result")):
                    command = await seen(http, command_id)
                    if command["state"] in states:
                        return command
    raise AssertionError(f"it never was {states}")


async def leave(controller: Running, agent: ProtocolAgent) -> None:
    """Disconnect the agent, and return when the controller has said so."""
    watcher = SocketClient()
    await watcher.connect(controller.url, controller.installation.users["admin"])
    await watcher.ok("subscribe_agents", {"agent_ids": [agent.agent_id]})
    await watcher.hears("agent_status", kind="full")
    await agent.disconnect()
    await watcher.hears("agent_disconnected")
    await watcher.disconnect()


async def seen(http: httpx2.AsyncClient, command_id: str) -> dict[str, Any]:
    """The command as it is now."""
    answer = await http.get(f"/commands/{command_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
