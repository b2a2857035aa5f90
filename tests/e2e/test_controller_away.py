"""A controller that is not there yet, goes away and comes back, or is killed."""

import signal
from pathlib import Path

import pytest

from ogent.client import Client, Finished, State
from tests.e2e.conftest import NewAgent, NewController
from tests.e2e.gate import Gate
from tests.e2e.services import AGENT_ACCOUNT, AGENT_PASSWORD, Controller, online
from tests.integration.sdk.ogent_process import Ended, Ogent, ended

#: 300 000 lines in bursts, for some seconds: whatever happens meets them in the middle.
BURSTS = 150
LONG = f"for i in $(seq {BURSTS}); do seq $((i*2000)) $((i*2000+1999)); sleep 0.02; done; exit 7"
LONG_OUTPUT = b"".join(b"%d\n" % n for n in range(2000, 2000 * BURSTS + 2000))


def ogent_for(controller: Controller, home: Path) -> Ogent:
    return Ogent(home, {"OGENT_URL": controller.url, "OGENT_TOKEN": controller.token})


async def newest(client: Client) -> str:
    return (await client.command_page(limit=1)).items[0].command_id


async def stored(client: Client, command_id: str) -> bytes:
    return b"".join([piece async for piece in client.output_bytes(command_id, "stdout")])


async def test_an_agent_that_was_there_first_comes_on_line_with_its_controller(
    new_controller: NewController, new_agent: NewAgent
) -> None:
    controller = new_controller(started=False)
    agent = new_agent(controller, "early")
    await agent.service.logs("cannot be reached")
    controller.start()
    controller.make_account(AGENT_ACCOUNT, AGENT_PASSWORD)
    async with controller.client() as client:
        await online(client, agent.id)
        done = await client.execute(agent.id, "echo hi")
    assert isinstance(done, Finished)
    assert done.result.stdout == "hi\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
async def test_a_reader_gets_every_byte_once_over_a_restart_of_the_controller(
    new_controller: NewController,
    new_agent: NewAgent,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
) -> None:
    controller = new_controller()
    agent = new_agent(controller, "steady")
    async with controller.client() as client, ogent_for(controller, tmp_path).open() as cli:
        await online(client, agent.id)
        process = await cli.start("exec", agent.id, "--", LONG)
        assert process.stdout is not None
        seen = await process.stdout.readexactly(100_000)
        assert await controller.service.stop(number) == status
        controller.start()
        end = await ended(process)
        assert (end.code, seen + end.out == LONG_OUTPUT) == (7, True)
        command = await client.command(await newest(client))
        assert (command.state, command.exit_code) == (State.FAILED, 7)
        assert await stored(client, command.command_id) == LONG_OUTPUT


async def test_what_is_written_and_ends_without_a_controller_is_stored_later(
    new_controller: NewController, new_agent: NewAgent, gate: Gate
) -> None:
    controller = new_controller()
    agent = new_agent(controller, "patient")
    line = f"echo before; {gate.wait('away')}; seq 200000; {gate.mark('written')}; exit 3"
    async with controller.client() as client:
        await online(client, agent.id)
        command_id = (await client.execute(agent.id, line, wait=0)).command_id
        assert await controller.service.stop() == 0
        gate.open("away")
        await gate.reached("written")
        controller.start()
        results = [e async for e in client.follow(command_id) if isinstance(e, Finished)]
        assert (results[0].state, results[0].result.exit_code) == (State.FAILED, 3)
        expected = b"before\n" + b"".join(b"%d\n" % n for n in range(1, 200_001))
        assert await stored(client, command_id) == expected


async def test_a_cancel_is_carried_out_although_the_controller_was_killed_after_it(
    new_controller: NewController, new_agent: NewAgent, gate: Gate
) -> None:
    controller = new_controller()
    agent = new_agent(controller, "obedient")
    async with controller.client() as client:
        await online(client, agent.id)
        line = f"trap '' TERM; {gate.mark('deaf')}; sleep 1000"
        command_id = (await client.execute(agent.id, line, wait=0)).command_id
        await gate.reached("deaf")
        await client.control(command_id, "cancel")
        await controller.service.stop(signal.SIGKILL)
        controller.start()
        results = [e async for e in client.follow(command_id) if isinstance(e, Finished)]
        assert results[0].state is State.CANCELLED


async def test_users_tokens_and_commands_outlive_a_restart(
    new_controller: NewController, tmp_path: Path
) -> None:
    controller = new_controller()
    async with ogent_for(controller, tmp_path).open() as cli:
        before = await cli.run("whoami", "--json")
        await controller.service.stop()
        controller.start()
        after: Ended = await cli.run("whoami", "--json")
    assert (after.code, after.out) == (0, before.out)
