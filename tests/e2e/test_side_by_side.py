"""What goes on beside a command costs it nothing."""

import asyncio

import httpx2

from ogent.client import Chunk, Client, Finished, Unfinished
from tests.e2e.gate import Gate
from tests.e2e.services import DEADLINE_S, Agent
from tests.integration.controller.socket_client import SocketClient
from tests.integration.sdk.ogent_process import Ogent, ended


def counting(letter: str, count: int) -> str:
    return f"i=0; while [ $i -lt {count} ]; do echo {letter}$i; i=$((i+1)); done"


def counted(letter: str, count: int) -> bytes:
    return b"".join(f"{letter}{i}\n".encode() for i in range(count))


async def test_two_commands_do_not_mix_their_output(cli: Ogent, agent: Agent) -> None:
    async with asyncio.timeout(2 * DEADLINE_S), asyncio.TaskGroup() as tasks:
        runs = {
            letter: tasks.create_task(cli.run("exec", agent.id, "--", counting(letter, 20_000)))
            for letter in "ab"
        }
    for letter, run in runs.items():
        assert (run.result().code, run.result().out) == (0, counted(letter, 20_000))


async def test_sixty_commands_at_once_each_have_their_own_result(
    client: Client, agent: Agent
) -> None:
    async with asyncio.timeout(2 * DEADLINE_S), asyncio.TaskGroup() as tasks:
        runs = [
            tasks.create_task(client.execute(agent.id, f"echo {i}; exit {i}")) for i in range(60)
        ]
    for number, run in enumerate(runs):
        done = run.result()
        assert isinstance(done, Finished)
        assert (done.result.stdout, done.result.exit_code) == (f"{number}\n", number)


async def test_many_command_lines_at_once_each_have_their_own_result(
    cli: Ogent, agent: Agent
) -> None:
    async with asyncio.timeout(2 * DEADLINE_S), asyncio.TaskGroup() as tasks:
        runs = [
            tasks.create_task(cli.run("exec", agent.id, "--", f"echo {i}; exit {i}"))
            for i in range(8)
        ]
    assert [(run.result().code, run.result().out) for run in runs] == [
        (i, f"{i}\n".encode()) for i in range(8)
    ]


async def test_a_reader_that_is_killed_costs_the_other_and_the_command_nothing(
    cli: Ogent, client: Client, agent: Agent, gate: Gate
) -> None:
    line = f"echo first; {gate.wait('go')}; {counting('a', 5000)}; exit 5"
    leaving = await cli.start("exec", agent.id, "--", line)
    assert leaving.stdout is not None
    await leaving.stdout.readline()
    command = (await client.command_page(agent_id=agent.id, limit=1)).items[0]
    staying = await cli.start("logs", "-f", command.command_id)
    assert staying.stdout is not None
    assert await staying.stdout.readline() == b"first\n"
    leaving.kill()
    await leaving.wait()
    gate.open("go")
    end = await ended(staying)
    assert (end.code, end.out) == (0, counted("a", 5000))
    assert (await client.command(command.command_id)).exit_code == 5


async def test_a_socket_that_is_closed_in_the_middle_comes_back_to_everything(
    watcher: SocketClient, client: Client, agent: Agent, gate: Gate
) -> None:
    line = f"echo first; {gate.wait('go')}; echo last"
    order = {"agent_id": agent.id, "command": line}
    command_id = (await watcher.ok("execute_command", order))["command_id"]
    await watcher.hears("command_progress", command_id=command_id)
    await watcher.disconnect()
    gate.open("go")
    chunks = [e async for e in client.follow(command_id) if isinstance(e, Chunk)]
    assert b"".join(chunk.data for chunk in chunks) == b"first\nlast\n"


async def test_a_caller_that_goes_away_does_not_stop_its_command(
    http: httpx2.AsyncClient, client: Client, agent: Agent, gate: Gate
) -> None:
    line = f"{gate.mark('began')}; {gate.wait('go')}; echo still here"
    asked = asyncio.create_task(http.post(f"/agents/{agent.id}/execute", json={"command": line}))
    await gate.reached("began")
    asked.cancel()
    await asyncio.wait({asked})
    command = (await client.command_page(agent_id=agent.id, limit=1)).items[0]
    gate.open("go")
    results = [e async for e in client.follow(command.command_id) if isinstance(e, Finished)]
    assert (results[0].command, results[0].result.stdout) == (line, "still here\n")


async def test_a_loud_command_does_not_hold_up_a_quiet_one(client: Client, agent: Agent) -> None:
    loud = await client.execute(agent.id, "yes", wait=0)
    assert isinstance(loud, Unfinished)
    for _ in range(5):
        quiet = await client.execute(agent.id, "echo hi")
        assert isinstance(quiet, Finished)
        assert quiet.result.stdout == "hi\n"
    assert (await client.command(loud.command_id)).state == "running"
    await client.control(loud.command_id, "kill")
    results = [e async for e in client.follow(loud.command_id) if isinstance(e, Finished)]
    assert results[0].state == "cancelled"
