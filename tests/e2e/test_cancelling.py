"""A stopped command is gone with its whole tree, and its state is true."""

import asyncio
import os
import signal

import httpx2

from ogent.client import Client, Finished, State, Unfinished
from tests.e2e.conftest import NewAgent
from tests.e2e.gate import Gate
from tests.e2e.services import Agent, Controller, is_alive, online, until
from tests.integration.controller import shapes
from tests.integration.sdk.ogent_process import Ogent, ended

#: A shell, a child in the background and one in a session of its own, all deaf to being asked.
DEAF_TREE = "trap '' TERM HUP; echo $$; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait"


async def result_of(client: Client, command_id: str) -> Finished:
    results = [e async for e in client.follow(command_id) if isinstance(e, Finished)]
    return results[0]


async def test_a_cancel_ends_a_tree_that_ignores_being_asked(
    cli: Ogent, client: Client, agent: Agent
) -> None:
    process = await cli.start("exec", agent.id, "--", DEAF_TREE)
    assert process.stdout is not None
    pids = [int(await process.stdout.readline()) for _ in range(3)]
    assert all(is_alive(pid) for pid in pids)
    command = (await client.command_page(agent_id=agent.id, limit=1)).items[0]
    assert (await cli.run("cancel", command.command_id)).code == 0
    assert (await ended(process)).code == 130
    assert [pid for pid in pids if is_alive(pid)] == []
    shown = await client.command(command.command_id)
    assert (shown.state, shown.requested_action) == (State.CANCELLED, "cancel")


async def test_a_kill_ends_the_same_tree_at_once(client: Client, agent: Agent) -> None:
    started = await client.execute(agent.id, DEAF_TREE, wait=0)
    pids: list[int] = []
    async with asyncio.timeout(20):
        while len(pids) < 3:
            pids = [int(line.text) for line in (await client.output(started.command_id)).lines]
    await client.control(started.command_id, "kill")
    done = await result_of(client, started.command_id)
    assert done.state is State.CANCELLED
    assert [pid for pid in pids if is_alive(pid)] == []


async def test_ctrl_c_twice_cancels(cli: Ogent, agent: Agent) -> None:
    process = await cli.start("exec", agent.id, "--", "echo $$; exec sleep 1000")
    assert process.stdout is not None and process.stderr is not None
    pid = int(await process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert b"again within 2 s cancels" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130
    assert not is_alive(pid)


async def test_ctrl_c_once_leaves_the_command_and_says_how_to_come_back(
    cli: Ogent, client: Client, agent: Agent, gate: Gate
) -> None:
    line = f"echo begun; {gate.wait('go')}; echo done"
    process = await cli.start("exec", agent.id, "--", line)
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    left = await ended(process)
    command = (await client.command_page(agent_id=agent.id, limit=1)).items[0]
    assert left.code == 3
    assert f"ogent logs -f {command.command_id}" in left.err
    gate.open("go")
    back = await cli.run("logs", "-f", command.command_id)
    assert back.out == b"begun\ndone\n"


async def test_a_command_that_waits_for_its_turn_is_cancelled_without_having_run(
    client: Client, controller: Controller, new_agent: NewAgent, gate: Gate
) -> None:
    agent = new_agent(controller, "narrow", MAX_CONCURRENT_COMMANDS="1")
    await online(client, agent.id)
    first = await client.execute(agent.id, gate.wait("go"), wait=0)
    second = await client.execute(agent.id, gate.mark("ran"), wait=0)
    assert isinstance(second, Unfinished)
    await client.control(second.command_id, "cancel")
    assert (await result_of(client, second.command_id)).state is State.CANCELLED
    gate.open("go")
    assert (await result_of(client, first.command_id)).state is State.SUCCEEDED
    assert (await client.command(second.command_id)).started_at is None
    assert not gate.is_marked("ran")


async def test_what_has_ended_can_not_be_stopped(
    http: httpx2.AsyncClient, cli: Ogent, agent: Agent
) -> None:
    body = {"command": "true"}
    command_id = (await http.post(f"/agents/{agent.id}/execute", json=body)).json()["command_id"]
    for action in ("cancel", "kill"):
        answer = await http.post(f"/commands/{command_id}/control", json={"action": action})
        shapes.check_problem(answer, 409, "invalid_state")
    refused = await cli.run("cancel", command_id)
    assert refused.code == 1
    assert "succeeded" in refused.err


async def test_what_a_command_leaves_behind_on_purpose_lives_on(
    client: Client, agent: Agent
) -> None:
    done = await client.execute(agent.id, "sleep 1000 >/dev/null 2>&1 & echo $!")
    assert isinstance(done, Finished)
    pid = int(done.result.stdout)
    try:
        assert (done.state, is_alive(pid)) == (State.SUCCEEDED, True)
    finally:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not is_alive(pid))
