"""What every Executor does, tried with real processes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.application.ports.executor import Executor, RunningProcess
from agent.domain.errors import SpawnFailed
from agent.domain.models.executor import ExecutionType, Exit, Impulse, Place
from agent.domain.models.output import Stream
from agent.infrastructure.executors.accounts import own_account
from agent.infrastructure.executors.local_executor import LocalExecutor
from tests.fakes.agent_ports import an_order

HERE = Place(ExecutionType.LOCAL)


@pytest.fixture
async def executor() -> AsyncIterator[Executor]:
    async with asyncio.timeout(30):
        yield LocalExecutor(own_account())


async def written(process: RunningProcess) -> dict[Stream, bytes]:
    """Everything that is written until the end."""
    streams = dict.fromkeys(Stream, b"")
    while pieces := await process.read():
        for piece in pieces:
            streams[piece.stream] += piece.data
    return streams


async def gone(process: RunningProcess) -> None:
    while (await process.signal(Impulse.PROBE)).pids:
        await asyncio.sleep(0.01)  # nothing tells of the end of a grandchild


async def test_both_streams_and_the_exit_code_arrive(executor: Executor) -> None:
    async with executor.run(an_order(command="echo out; echo err >&2; exit 4"), HERE) as process:
        assert await written(process) == {Stream.STDOUT: b"out\n", Stream.STDERR: b"err\n"}
        assert await process.wait() == Exit(code=4)
        assert await process.wait() == Exit(code=4)


async def test_a_command_that_cannot_start_raises(executor: Executor) -> None:
    with pytest.raises(SpawnFailed):
        async with executor.run(an_order(cwd="/does/not/exist"), HERE):
            pytest.fail("it was started")


async def test_the_input_ends(executor: Executor) -> None:
    async with executor.run(an_order(command="cat; cat", stdin="in"), HERE) as process:
        assert (await written(process))[Stream.STDOUT] == b"in"


async def test_who_does_not_read_slows_the_command_down(executor: Executor, tmp_path: Path) -> None:
    script = f"head -c 5000000 /dev/zero; touch {tmp_path}/done"
    async with executor.run(an_order(command=script), HERE) as process:
        first = await process.read()
        await asyncio.sleep(0.2)  # it would be done by then
        assert not (tmp_path / "done").exists()
        rest = await written(process)
        assert sum(len(p.data) for p in first) + len(rest[Stream.STDOUT]) == 5_000_000
        assert (tmp_path / "done").exists()


async def test_an_impulse_reaches_children_that_left_session_and_parent(executor: Executor) -> None:
    script = "setsid sleep 1000 & (setsid sleep 1001 &); sleep 1002 & echo; wait"
    async with executor.run(an_order("tree", command=script), HERE) as process:
        await process.read()
        assert len((await process.signal(Impulse.PROBE)).pids) == 4
        await process.signal(Impulse.KILL)
        assert await process.wait() == Exit(signal="SIGKILL")
        await gone(process)


async def test_a_paused_tree_lives_and_ends_when_it_continues(executor: Executor) -> None:
    async with executor.run(an_order("paused", command="sleep 1000"), HERE) as process:
        await process.signal(Impulse.PAUSE)
        await process.signal(Impulse.TERMINATE)
        assert (await process.signal(Impulse.CONTINUE)).pids
        assert await process.wait() == Exit(signal="SIGTERM")
        await gone(process)


async def test_another_commands_processes_are_not_touched(executor: Executor) -> None:
    async with (
        executor.run(an_order("one", command="sleep 1000"), HERE) as one,
        executor.run(an_order("onetwo", command="sleep 1000"), HERE) as other,
    ):
        await one.signal(Impulse.KILL)
        await one.wait()
        assert (await other.signal(Impulse.KILL)).pids
        await other.wait()


async def test_abandoned_output_ends_with_what_was_there(executor: Executor) -> None:
    script = "head -c 600000 /dev/zero; (sleep 1000; echo late) & exit 0"
    async with executor.run(an_order("child", command=script), HERE) as process:
        await process.wait()
        process.abandon_output()
        process.abandon_output()
        assert len((await written(process))[Stream.STDOUT]) == 600_000
        await process.signal(Impulse.KILL)
        await gone(process)
