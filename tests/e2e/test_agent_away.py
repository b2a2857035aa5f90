"""An agent that is stopped, killed, started again, or pushed out by another."""

import asyncio
import os
import signal

from ogent.client import Client, Finished, State
from tests.e2e.conftest import NewAgent
from tests.e2e.services import DEADLINE_S, Controller, is_alive, online
from tests.integration.sdk.ogent_process import Ogent, ended

TREE = "echo $$; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait"


async def offline(client: Client, agent_id: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await client.agent(agent_id)).status != "offline":
            await asyncio.sleep(0.02)  # its end and the controller's knowledge of it are two


async def test_a_stopped_agent_leaves_no_process_and_its_command_is_lost(
    controller: Controller, client: Client, cli: Ogent, new_agent: NewAgent
) -> None:
    agent = new_agent(controller, "stopped")
    await online(client, agent.id)
    process = await cli.start("exec", agent.id, "--", TREE)
    assert process.stdout is not None
    pids = [int(await process.stdout.readline()) for _ in range(3)]
    assert await agent.service.stop() == 0
    end = await ended(process)
    assert (end.code, "agent_stopped" in end.err) == (125, True)
    assert [pid for pid in pids if is_alive(pid)] == []
    command = (await client.command_page(agent_id=agent.id)).items[0]
    assert (command.state, command.stdout_bytes > 0) == (State.LOST, True)


async def test_a_command_of_a_killed_agent_is_lost_when_the_next_one_registers(
    controller: Controller, client: Client, cli: Ogent, new_agent: NewAgent
) -> None:
    agent = new_agent(controller, "killed")
    await online(client, agent.id)
    process = await cli.start("exec", agent.id, "--", "echo $$; exec sleep 1000")
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    try:
        await agent.service.stop(signal.SIGKILL)
        agent.service.start()
        end = await ended(process)
    finally:
        os.kill(pid, signal.SIGKILL)  # a killed agent ends nothing
    assert (end.code, "agent_state_lost" in end.err) == (125, True)
    await online(client, agent.id)
    done = await client.execute(agent.id, "echo again")
    assert isinstance(done, Finished)
    assert done.result.stdout == "again\n"


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
    assert int(done.result.stdout) == second.service.pid
