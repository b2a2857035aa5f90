"""Lines arrive while the command runs: it goes on only after its last line was seen."""

import httpx2

from ogent.client import Chunk, Client, Finished, Unfinished
from tests.e2e.gate import Gate
from tests.e2e.services import Agent
from tests.integration.controller.socket_client import SocketClient
from tests.integration.sdk.ogent_process import Ogent, ended

LINES = ["one", "two", "three"]


def gated(gate: Gate) -> str:
    """A command that waits after each line until the test has seen it."""
    return "; ".join(f"echo {line}; {gate.wait(line)}" for line in LINES) + "; exit 4"


async def test_the_command_line_shows_each_line_as_it_is_written(
    cli: Ogent, agent: Agent, gate: Gate
) -> None:
    process = await cli.start("exec", agent.id, "--", gated(gate))
    assert process.stdout is not None
    for line in LINES:
        assert await process.stdout.readline() == f"{line}\n".encode()
        gate.open(line)
    assert (await ended(process)).code == 4


async def test_a_line_without_its_newline_is_shown_as_well(
    cli: Ogent, agent: Agent, gate: Gate
) -> None:
    line = f"printf 'name: '; {gate.wait('seen')}; echo ok"
    process = await cli.start("exec", agent.id, "--", line)
    assert process.stdout is not None
    assert await process.stdout.readexactly(6) == b"name: "
    gate.open("seen")
    assert (await ended(process)).out == b"ok\n"


async def test_the_python_client_gives_each_line_as_it_is_written(
    client: Client, agent: Agent, gate: Gate
) -> None:
    started = await client.execute(agent.id, gated(gate), wait=0)
    assert isinstance(started, Unfinished)
    seen: list[str] = []
    async for event in client.follow(started.command_id):
        if isinstance(event, Chunk):
            seen.append(event.data.decode().strip())
            gate.open(seen[-1])
        elif isinstance(event, Finished):
            assert event.result.exit_code == 4
    assert seen == LINES


async def test_a_socket_hears_each_line_as_it_is_written(
    watcher: SocketClient, agent: Agent, gate: Gate
) -> None:
    order = {"agent_id": agent.id, "command": gated(gate)}
    command_id = (await watcher.ok("execute_command", order))["command_id"]
    for line in LINES:
        await watcher.hears("command_progress", command_id=command_id, data=f"{line}\n")
        gate.open(line)
    result = await watcher.hears("command_result", command_id=command_id)
    assert result["result"]["exit_code"] == 4
    assert [p["seq"] for p in watcher.all("command_progress")] == [0, 1, 2]


async def test_stored_lines_can_be_read_while_the_command_runs(
    http: httpx2.AsyncClient, watcher: SocketClient, agent: Agent, gate: Gate
) -> None:
    order = {"agent_id": agent.id, "command": gated(gate)}
    command_id = (await watcher.ok("execute_command", order))["command_id"]
    await watcher.hears("command_progress", data="one\n")
    page = (await http.get(f"/commands/{command_id}/output")).json()
    assert [line["text"] for line in page["lines"]] == ["one"]
    assert page["complete"] is False
    gate.open_all()
    await watcher.hears("command_result")
    page = (await http.get(f"/commands/{command_id}/output")).json()
    assert ([line["text"] for line in page["lines"]], page["complete"]) == (LINES, True)
