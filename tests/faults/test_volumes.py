"""Much: of output, of lines, of commands, of faults."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest

from ogent.client import Client, Finished, State
from tests.faults.checker import Checker
from tests.faults.conftest import NewSystem
from tests.faults.plans import Plan, counting
from tests.faults.system import FAULTS, System
from tests.faults.trials import some_moment, trials

IN_FLIGHT = 16


@trials(1)
async def test_200_000_lines_through_kills_and_cuts_are_those_of_a_local_run(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    faults = ["controller"] * 2 + ["agent"] * 2 + ["link"] * 10
    plan = counting(system.key(), bursts=200, lines=1000, code=7, pause_s=0.06)
    await checker.run(plan, readers=True)
    for fault in random.sample(faults, len(faults)):
        await some_moment(random, 0.6)
        await FAULTS[fault](system)
    await checker.check()


@trials(1)
async def test_sixty_commands_through_four_kills_append_a_line_each(
    system: System, checker: Checker, random: Random, trial: int
) -> None:
    async def submissions() -> None:
        for _ in range(60):
            await checker.run(Plan(system.key(), f"sleep {random.choice([0, 0.1])}"))
            await some_moment(random, 0.1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(submissions())
        for fault in ["controller", "agent", "controller", "agent"]:
            await some_moment(random, 1)
            await FAULTS[fault](system)
    await checker.check()


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
async def test_many_commands_as_fast_as_they_go_each_run_once_and_end_true(
    new_system: NewSystem, count: int
) -> None:
    system = await new_system()
    keys = [system.key() for _ in range(count)]
    waiting = iter(keys)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(run_all(system, waiting))
    assert sorted(system.ledger.read_text().splitlines()) == sorted(keys)
    ends = [(c.state, c.exit_code) async for c in system.client.commands()]
    assert ends == [(State.SUCCEEDED, 0)] * count


async def run_all(system: System, keys: Iterator[str]) -> None:
    for key in keys:
        line = f"echo {key} >> {system.ledger}; echo {key}"
        done = await system.client.execute(system.agent.id, line)
        assert isinstance(done, Finished), done
        assert done.result.stdout == f"{key}\n"


@pytest.mark.parametrize("size", [100_000_000, pytest.param(1_000_000_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
async def test_much_output_of_one_command_has_the_digest_of_a_local_run(
    new_system: NewSystem, size: int
) -> None:
    system = await new_system()
    line = f"seq 1000000000 | head -c {size}; exit 3"
    started = await system.client.execute(system.agent.id, line, wait=0)
    ends = [e async for e in system.client.follow(started.command_id) if isinstance(e, Finished)]
    assert (ends[0].state, ends[0].result.stdout_bytes) == (State.FAILED, size)
    assert await digest_of(stored(system.client, started.command_id)) == await local_digest(line)


def stored(client: Client, command_id: str) -> AsyncIterator[bytes]:
    return client.output_bytes(command_id, "stdout")


async def local_digest(line: str) -> str:
    process = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    return await digest_of(iter_pieces(process.stdout))


async def iter_pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(1 << 20):
        yield piece


async def digest_of(pieces: AsyncIterator[bytes]) -> str:
    digest = hashlib.sha256()
    async for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
