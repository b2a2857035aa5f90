"""Connections that break in the middle, and output over the bound."""

import asyncio
from pathlib import Path

from ogent.client import Finished, State
from tests.e2e.conftest import NewAgent, NewController
from tests.e2e.faulty_proxy import FaultyProxy
from tests.e2e.services import Controller, agent_in, online
from tests.integration.sdk.ogent_process import Ogent

LONG = "for i in $(seq 100); do seq $((i*2000)) $((i*2000+1999)); sleep 0.02; done; exit 7"
LONG_OUTPUT = b"".join(b"%d\n" % n for n in range(2000, 202_000))


async def test_cuts_between_agent_and_controller_cost_no_byte(
    controller: Controller, cli: Ogent, tmp_path: Path
) -> None:
    async with FaultyProxy(controller.url).serving() as proxy:
        with agent_in(tmp_path / "agent", "cut-off", proxy.url) as agent:
            agent.service.start()
            async with controller.client() as client:
                await online(client, agent.id)
            async with asyncio.TaskGroup() as tasks:
                run = tasks.create_task(cli.run("exec", agent.id, "--", LONG))
                for _ in range(4):
                    await proxy.after(100_000)
                    proxy.cut()
            assert (run.result().code, run.result().out == LONG_OUTPUT) == (7, True)


async def test_cuts_between_reader_and_controller_cost_no_byte(
    controller: Controller, token: str, new_agent: NewAgent, tmp_path: Path
) -> None:
    agent = new_agent(controller, "well-connected")
    async with controller.client() as client:
        await online(client, agent.id)
    async with FaultyProxy(controller.url).serving() as proxy:
        environ = {"OGENT_URL": proxy.url, "OGENT_TOKEN": token}
        async with Ogent(tmp_path, environ).open() as cli, asyncio.TaskGroup() as tasks:
            run = tasks.create_task(cli.run("exec", agent.id, "--", LONG))
            for _ in range(4):
                await proxy.after(100_000)
                proxy.cut()
    assert (run.result().code, run.result().out == LONG_OUTPUT) == (7, True)


async def test_output_over_the_bound_is_counted_and_said(
    new_controller: NewController, new_agent: NewAgent, tmp_path: Path
) -> None:
    controller = new_controller(MAX_OUTPUT_BYTES="100000")
    agent = new_agent(controller, "loud")
    environ = {"OGENT_URL": controller.url, "OGENT_TOKEN": controller.token}
    async with controller.client() as client, Ogent(tmp_path, environ).open() as cli:
        await online(client, agent.id)
        done = await client.execute(agent.id, "seq 1000000")
        assert isinstance(done, Finished)
        assert (done.state, done.result.stdout_bytes) == (State.SUCCEEDED, 6_888_896)
        command = await client.command(done.command_id)
        assert command.truncated
        stored = [p async for p in client.output_bytes(done.command_id, "stdout")]
        assert b"".join(stored) == b"".join(b"%d\n" % n for n in range(1, 20_000))[:100_000]
        shown = await cli.run("exec", agent.id, "--", "seq 1000000")
        assert (shown.code, len(shown.out), "not stored" in shown.err) == (0, 100_000, True)
