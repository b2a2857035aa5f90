"""An agent that is stopped, killed, started again, or pushed out by another."""

import asyncio
import signal
from pathlib import Path

import pytest

from ogent.client import Client, Finished, State
from tests.e2e.conftest import NewAgent
from tests.e2e.gate import Gate
from tests.e2e.services import (
    DEADLINE_S,
    Agent,
    Controller,
    environment,
    is_alive,
    online,
    runner_pid,
)
from tests.integration.sdk.ogent_process import Ogent, ended

TREE = "echo $$; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait"


async def offline(client: Client, agent_id: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await client.agent(agent_id)).status != "offline":
            await asyncio.sleep(0.02)  # its end and the controller's knowledge of it are two


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_command_goes_on_without_its_agent_and_the_next_start_brings_the_rest(
    controller: Controller,
    client: Client,
    cli: Ogent,
    new_agent: NewAgent,
    gate: Gate,
    number: signal.Signals,
) -> None:
    agent = new_agent(controller, f"leaving-{number.name.lower()}")
    await online(client, agent.id)
    line = f"echo before; {gate.wait('alone')}; seq 200000; {gate.mark('written')}; exit 3"
    process = await cli.start("exec", agent.id, "--", line)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"before\n"
    await agent.service.stop(number)
    gate.open("alone")
    await gate.reached("written")
    agent.service.start()
    end = await ended(process)
    assert (end.code, end.err) == (3, "")
    assert end.out == b"".join(b"%d\n" % n for n in range(1, 200_001))


async def test_what_waits_in_a_killed_agent_runs_once_when_it_is_back(
    controller: Controller, client: Client, new_agent: NewAgent, gate: Gate, tmp_path: Path
) -> None:
    agent = new_agent(controller, "waiting", MAX_CONCURRENT_COMMANDS="1")
    await online(client, agent.id)
    first = await client.execute(agent.id, f"{gate.mark('runs')}; {gate.wait('go')}", wait=0)
    await gate.reached("runs")
    second = await client.execute(agent.id, f"echo ran >> {tmp_path}/ran", wait=0)
    await until_state(client, second.command_id, State.DISPATCHED)
    await agent.service.stop(signal.SIGKILL)
    agent.service.start()
    gate.open("go")
    for command_id in (first.command_id, second.command_id):
        results = [e async for e in client.follow(command_id) if isinstance(e, Finished)]
        assert results[0].state is State.SUCCEEDED
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_stopping_the_commands_leaves_no_process_and_they_are_cancelled(
    controller: Controller, client: Client, cli: Ogent, new_agent: NewAgent
) -> None:
    agent = new_agent(controller, "emptied")
    await online(client, agent.id)
    process = await cli.start("exec", agent.id, "--", TREE)
    assert process.stdout is not None
    pids = [int(await process.stdout.readline()) for _ in range(3)]
    status = await host_command(agent, "--status")
    assert "running" in status
    await host_command(agent, "--stop-commands")
    assert [pid for pid in pids if is_alive(pid)] == []
    assert (await ended(process)).code == 130


async def until_state(client: Client, command_id: str, state: State) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await client.command(command_id)).state is not state:
            await asyncio.sleep(0.02)


async def host_command(agent: Agent, flag: str) -> str:
    """What a person on the agent's host asks for, and its answer."""
    service = agent.service
    asked = await asyncio.create_subprocess_exec(
        *service.argv,
        flag,
        cwd=service.folder,
        env=environment(service.folder) | service.settings,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        out, _ = await asked.communicate()
    assert asked.returncode == 0
    return out.decode()


async def test_a_stopped_agent_is_offline_and_then_back_under_its_name(
    controller: Controller, client: Client, cli: Ogent, new_agent: NewAgent
) -> None:
    agent = new_agent(controller, "returning")
    await online(client, agent.id)
    await agent.service.stop()
    await offline(client, agent.id)
    refused = await cli.run("exec", agent.id, "--", "true")
    assert (refused.code, "not connected" in refused.err) == (125, True), refused.err
    agent.service.start()
    await online(client, agent.id)
    assert (await cli.run("exec", agent.id, "--", "exit 4")).code == 4


async def test_a_queued_command_waits_for_its_agent(
    controller: Controller, client: Client, cli: Ogent, new_agent: NewAgent
) -> None:
    agent = new_agent(controller, "awaited")
    await online(client, agent.id)
    await agent.service.stop()
    await offline(client, agent.id)
    process = await cli.start("exec", agent.id, "--queue", "--", "echo at last; exit 6")
    page = await client.command_page(agent_id=agent.id)
    while not page.items:
        page = await client.command_page(agent_id=agent.id)
    assert page.items[0].state is State.QUEUED
    agent.service.start()
    end = await ended(process)
    assert (end.code, end.out) == (6, b"at last\n")


async def test_a_second_agent_of_the_same_name_pushes_the_first_out(
    controller: Controller, client: Client, new_agent: NewAgent
) -> None:
    first = new_agent(controller, "twin")
    await online(client, first.id)
    second = new_agent(controller, "twin")
    assert await first.service.ended() == 3
    said = [line for line in first.service.log.splitlines() if "superseded" in line]
    assert len(said) == 1
    assert "Traceback" not in first.service.log
    await second.service.logs("registered")
    await online(client, second.id)
    done = await client.execute(second.id, "echo $PPID")
    assert isinstance(done, Finished)
    assert int(done.result.stdout) == runner_pid(Path(second.service.settings["DATA_DIR"]))
