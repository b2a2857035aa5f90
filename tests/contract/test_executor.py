"""What every Executor does, tried with a real runner and real processes."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.application.ports.executor import RunningProcess
from agent.domain.errors import CannotStart, NeverStarted, SpawnFailed, StartedBefore
from agent.domain.models.execution import Failure, State, StopFailure
from agent.domain.models.executor import Exit
from agent.domain.models.output import Counts
from agent.domain.stopping import Force
from agent.infrastructure.executors.accounts import own_account
from agent.infrastructure.executors.local_executor import LocalExecutor
from agent.infrastructure.runner import client as client_module
from agent.infrastructure.runner.client import RunnerClient
from agent.infrastructure.storage.file_spool import FileSpool
from tests.fakes.agent_ports import LOCAL, an_order, settle
from tests.fakes.runner_process import (
    LENGTH,
    RunnerProcess,
    commands_in,
    end_everything,
    is_alive,
    kill_runner,
    own_id,
    runner_pid,
    stored,
)

# The client starts runners that outlive it, as they are meant to.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

SPOOL_BYTES = 2 * 1024 * 1024
C = own_id("c")


@dataclass
class Here:
    """An executor, its runner's folder, and what it told."""

    data_dir: Path
    client: RunnerClient
    executor: LocalExecutor
    spool: FileSpool
    failures: list[StopFailure] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    taken: int = 0

    async def start(self, command: str, command_id: str = "c", **fields: object) -> RunningProcess:
        order = an_order(own_id(command_id), command=command, **fields)
        return await self.executor.start(order, LOCAL, self.failures.append)

    async def take_over(self, keeper: str | None = None, command_id: str = "c") -> RunningProcess:
        keeper = self.executor.keeper if keeper is None else keeper
        return await self.executor.take_over(
            an_order(own_id(command_id)), keeper, self.failures.append
        )

    async def printed(self, size: int, command_id: str = "c") -> bytes:
        """What a command has printed, once that is so much."""
        while len(data := stored(self.data_dir, own_id(command_id))) < size:
            await asyncio.sleep(0.01)  # news are hints, and end with the command
        return data


@asynccontextmanager
async def an_agent(data_dir: Path) -> AsyncIterator[Here]:
    """An agent's part of all that: its connection to the runner, which goes on without it."""
    here: Here
    client = RunnerClient(
        data_dir, spool_max_bytes=SPOOL_BYTES, grown=lambda command_id: here.grown.set()
    )
    spool = FileSpool(data_dir / "spool", client)
    here = Here(data_dir, client, LocalExecutor(own_account(), client), spool)
    keeping = asyncio.create_task(client.keep())
    try:
        async with asyncio.timeout(60):
            await client.ready()
            yield here
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        spool.close()


@pytest.fixture
async def data_dir(tmp_path: Path) -> AsyncIterator[Path]:
    runner = RunnerProcess(tmp_path)
    yield tmp_path
    end_everything(tmp_path)
    runner.ended()
    gc.collect()  # while the warnings of runners that a client started are ignored


@pytest.fixture
async def here(data_dir: Path) -> AsyncIterator[Here]:
    async with an_agent(data_dir) as here:
        yield here


async def test_both_streams_and_the_exit_code_arrive(here: Here) -> None:
    process = await here.start("echo out; echo err >&2; exit 4")
    ending = await process.wait()
    assert (ending.exit, ending.stopped_as, ending.failure) == (Exit(code=4), None, None)
    assert ending.written.in_all == ending.written.kept == Counts(4, 4)
    assert ending.started_at == process.started_at <= ending.finished_at
    assert stored(here.data_dir, own_id("c")) == b"out\n"
    assert stored(here.data_dir, own_id("c"), "stderr") == b"err\n"


async def test_the_end_may_be_asked_for_again(here: Here) -> None:
    process = await here.start("exit 4")
    assert await process.wait() == await process.wait()
    waiting = asyncio.create_task(process.wait())
    waiting.cancel()
    assert (await process.wait()).exit == Exit(code=4)


async def test_a_command_that_is_ended_by_a_signal_names_it(here: Here) -> None:
    process = await here.start("kill -SEGV $$")
    assert (await process.wait()).exit == Exit(signal="SIGSEGV")


async def test_growth_is_told(here: Here) -> None:
    process = await here.start("echo one; sleep 1000")
    await here.grown.wait()
    assert stored(here.data_dir, own_id("c")) == b"one\n"
    await process.stop(State.CANCELLED, Force.KILL, None)
    await process.wait()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"cwd": "/does/not/exist"}, "does not exist"),
        ({"cwd": "/etc/passwd"}, "not a folder"),
        ({"command": "echo a\0b"}, "null byte"),
        ({"command": "true " + "x" * 140_000}, "longer than this system allows"),
        ({"command": "echo \ud800"}, "not Unicode"),
        ({"env": {"A=B": "c"}}, "illegal environment"),
    ],
)
async def test_a_command_that_cannot_start_says_why_and_nothing_is_left(
    here: Here, fields: dict[str, object], word: str
) -> None:
    with pytest.raises(SpawnFailed, match=word):
        await here.executor.start(an_order(C, **fields), LOCAL, here.failures.append)
    assert not list((here.data_dir / "spool").glob(f"{C}.*"))


async def test_the_input_is_given_and_ends(here: Here) -> None:
    text = "ä" * 100_000
    await (await here.start("cat; cat", stdin=text)).wait()
    assert stored(here.data_dir, own_id("c")).decode() == text
    await (await here.start("cat", "other")).wait()
    assert stored(here.data_dir, own_id("other")) == b""


async def test_an_order_is_started_once(here: Here) -> None:
    await (await here.start("echo x")).wait()
    with pytest.raises(StartedBefore):
        await here.start("echo y")
    here.spool.forget(C)
    with pytest.raises(StartedBefore):
        await here.start("echo y")


async def test_a_full_spool_makes_the_command_wait_until_there_is_room(here: Here) -> None:
    process = await here.start("head -c 9000000 /dev/zero; echo >&2")
    await here.printed(SPOOL_BYTES)
    other = await here.start("echo hi", "other")  # one of which nothing is kept waits for nobody
    assert (await other.wait()).exit == Exit(code=0)
    held = len(stored(here.data_dir, own_id("c")))
    assert held < SPOOL_BYTES + 2 * 1024 * 1024
    while await _take(here) < 9_000_000:
        await asyncio.sleep(0.01)
    assert (await process.wait()).written.in_all == Counts(9_000_000, 1)


async def _take(here: Here) -> int:
    """Acknowledge all that is there; how much of stdout that is."""
    while (chunk := here.spool.next_chunk(C)) is not None:
        here.spool.acknowledge(C, chunk.after)
        here.taken = max(here.taken, chunk.after.stdout_bytes)
    return here.taken


# --- stops ------------------------------------------------------------------------------------


TREE = (
    "sleep 1000 & echo $!; setsid sleep 1001 & echo $!; (setsid sh -c 'sleep 1002 & echo $!' &); "
    "(env -i setsid sh -c 'sleep 1003 & echo $!' &); "
)


async def tree(
    here: Here, script: str, lines: int, **fields: object
) -> tuple[RunningProcess, list[int]]:
    """A command whose script has printed the numbers of `lines` processes."""
    process = await here.start(script, **fields)
    while stored(here.data_dir, own_id("c")).count(b"\n") < lines:
        await asyncio.sleep(0.01)
    pids = [int(line) for line in stored(here.data_dir, own_id("c")).split()]
    assert all(is_alive(pid) for pid in pids)
    return process, pids


@pytest.mark.parametrize("force", list(Force))
async def test_after_a_stop_nothing_of_the_tree_is_left(here: Here, force: Force) -> None:
    process, pids = await tree(here, TREE + "wait", 4)
    await process.stop(State.CANCELLED, force, Failure("why", "because"))
    ending = await process.wait()
    assert (ending.stopped_as, ending.failure) == (State.CANCELLED, Failure("why", "because"))
    assert ending.exit == Exit(signal="SIGKILL" if force is Force.KILL else "SIGTERM")
    assert not any(is_alive(pid) for pid in pids)


async def test_a_tree_that_ignores_being_asked_is_killed(here: Here) -> None:
    script = "trap '' TERM; env -i setsid sh -c 'sleep 1000 & echo $!; wait' & echo $!; wait; wait"
    process, pids = await tree(here, script, 2)
    for _ in range(2):  # a repeat changes nothing
        await process.stop(State.CANCELLED, Force.ASK, None)
    assert (await process.wait()).exit == Exit(signal="SIGKILL")
    assert not any(is_alive(pid) for pid in pids)


async def test_a_kill_hurries_and_the_first_reason_counts(here: Here) -> None:
    process, _ = await tree(here, "trap '' TERM; echo $$; while :; do sleep 0.1; done", 1)
    await process.stop(State.TIMED_OUT, Force.ASK, None)
    async with asyncio.timeout(4):
        await process.stop(State.CANCELLED, Force.KILL, None)
        assert (await process.wait()).stopped_as is State.TIMED_OUT


async def test_a_deadline_ends_the_tree(here: Here) -> None:
    process, pids = await tree(here, TREE + "wait", 4, timeout_s=1.5)
    ending = await process.wait()
    assert ending.stopped_as is State.TIMED_OUT
    assert ending.failure is not None and "1.5 s" in ending.failure.message
    assert (ending.finished_at - ending.started_at).total_seconds() >= 1.5
    assert not any(is_alive(pid) for pid in pids)


async def test_a_stop_after_the_end_changes_nothing(here: Here) -> None:
    process = await here.start("exit 3")
    await process.wait()
    await process.stop(State.CANCELLED, Force.KILL, None)
    assert (await process.pause(), await process.resume()) == (False, False)
    assert (await process.wait()).exit == Exit(code=3)


async def test_another_commands_processes_are_not_touched(here: Here) -> None:
    one = await here.start("sleep 1000", "one")
    other = await here.start("sleep 1000", "onetwo")
    await one.stop(State.CANCELLED, Force.KILL, None)
    await one.wait()
    assert await other.pause()  # it lives
    await other.stop(State.CANCELLED, Force.KILL, None)
    assert (await other.wait()).stopped_as is State.CANCELLED


async def test_a_paused_tree_stands_still_and_goes_on(here: Here) -> None:
    process = await here.start("while sleep 0.01; do echo x; done")
    await here.printed(3)
    assert await process.pause()
    before = len(stored(here.data_dir, own_id("c")))
    await asyncio.sleep(0.2)  # the time in which it would have written
    assert len(stored(here.data_dir, own_id("c"))) <= before + 4
    assert await process.resume()
    await here.printed(before + 20)
    assert await process.pause()
    await process.stop(State.CANCELLED, Force.ASK, None)  # also where everything stands still
    assert (await process.wait()).exit == Exit(signal="SIGTERM")


async def test_a_command_that_is_being_stopped_cannot_be_paused(here: Here) -> None:
    process, _ = await tree(here, "trap '' TERM; echo $$; while :; do sleep 0.1; done", 1)
    await process.stop(State.CANCELLED, Force.ASK, None)
    assert (await process.pause(), await process.resume()) == (False, False)
    await process.stop(State.CANCELLED, Force.KILL, None)
    await process.wait()


# --- children that live on --------------------------------------------------------------------


async def test_pipes_that_children_hold_are_read_for_a_second_and_the_children_live_on(
    here: Here,
) -> None:
    script = "(while sleep 0.05; do echo x; done) & echo $!"
    process = await here.start(script)
    ending = await process.wait()
    child = int(stored(here.data_dir, own_id("c")).split()[0])
    assert ending.exit == Exit(code=0)
    assert 0.9 < (ending.finished_at - ending.started_at).total_seconds() < 10
    await asyncio.sleep(0.3)  # it writes on, and must not be ended by that
    assert is_alive(child)
    os.kill(child, signal.SIGKILL)


async def test_what_is_in_the_pipe_of_an_ended_process_is_kept(here: Here) -> None:
    process = await here.start("head -c 600000 /dev/zero; sleep 1000 & exit 0")
    assert (await process.wait()).written.kept == Counts(600_000, 0)
    assert len(stored(here.data_dir, own_id("c"))) == 600_000


# --- another agent ----------------------------------------------------------------------------


async def test_what_runs_is_taken_over_and_ends_truly(data_dir: Path) -> None:
    async with an_agent(data_dir) as first:
        started = (await first.start("echo $$; sleep 0.3; exit 7")).started_at
        keeper = first.executor.keeper
    async with an_agent(data_dir) as second:
        process = await second.take_over(keeper)
        assert process.started_at == started
        assert (await process.wait()).exit == Exit(code=7)


async def test_what_ended_while_nobody_was_there_is_taken_over(data_dir: Path) -> None:
    async with an_agent(data_dir) as first:
        process = await first.start("echo out; exit 7")
        ending = await process.wait()
    async with an_agent(data_dir) as second:
        assert await (await second.take_over()).wait() == ending


async def test_a_deadline_holds_while_nobody_is_there(data_dir: Path) -> None:
    async with an_agent(data_dir) as first:
        _, pids = await tree(first, TREE + "wait", 4, timeout_s=1.0)
    async with asyncio.timeout(20):
        while any(is_alive(pid) for pid in pids):
            await asyncio.sleep(0.02)  # nothing tells that somebody else's child has ended
    async with an_agent(data_dir) as second:
        ending = await (await second.take_over()).wait()
    assert ending.stopped_as is State.TIMED_OUT


async def test_a_pause_is_known_to_who_takes_over(data_dir: Path) -> None:
    async with an_agent(data_dir) as first:
        await (await first.start("sleep 1000")).pause()
    async with an_agent(data_dir) as second:
        process = await second.take_over()
        assert process.is_paused
        await process.stop(State.CANCELLED, Force.KILL, None)
        assert (await process.wait()).stopped_as is State.CANCELLED


async def test_what_its_runner_never_heard_of_was_never_started(here: Here) -> None:
    with pytest.raises(NeverStarted):
        await here.take_over()
    with pytest.raises(StartedBefore):
        await here.take_over("another runner")
    assert (await (await here.start("exit 0")).wait()).exit == Exit(code=0)


async def test_a_runner_that_is_not_understood_is_asked_again(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        writer.write(LENGTH.pack(24) + b'{"is":"answer","id":"0"}')
        writer.close()
        server.close()  # the next connection finds nobody: a runner is started

    (tmp_path / "runner").mkdir()
    server = await asyncio.start_unix_server(answer, tmp_path / "runner" / "runner.sock")
    async with an_agent(tmp_path) as here:
        assert (await (await here.start("exit 3")).wait()).exit == Exit(code=3)
    end_everything(tmp_path)


async def test_a_runner_that_stands_still_starts_what_it_was_asked_for_once(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT_S", 0.4)
    pid = runner_pid(here.data_dir)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    starting = asyncio.create_task(here.start(f"echo >> {here.data_dir}/marks; exit 3"))
    await asyncio.sleep(1.5)  # it is given up, and asked again
    os.kill(pid, signal.SIGCONT)
    assert (await (await starting).wait()).exit == Exit(code=3)
    assert (here.data_dir / "marks").read_text() == "\n"


async def test_a_stop_that_a_runner_standing_still_was_asked_for_is_carried_out(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, pids = await tree(here, TREE + "wait", 4)
    monkeypatch.setattr(client_module, "ANSWER_TIMEOUT_S", 0.4)
    pid = runner_pid(here.data_dir)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    stopping = asyncio.create_task(process.stop(State.CANCELLED, Force.KILL, None))
    await asyncio.sleep(1.5)
    os.kill(pid, signal.SIGCONT)
    await stopping
    assert (await process.wait()).stopped_as is State.CANCELLED
    assert not any(is_alive(pid) for pid in pids)


# --- the runner's death -----------------------------------------------------------------------


async def test_when_the_runner_dies_the_tree_is_ended_and_then_lost(here: Here) -> None:
    process, pids = await tree(here, TREE + "trap '' TERM; echo $$; wait", 5)
    kill_runner(here.data_dir)
    ending = await process.wait()
    assert (ending.stopped_as, ending.exit) == (State.LOST, Exit())
    assert ending.failure is not None and ending.failure.code == "runner_died"
    assert ending.written.in_all.stdout == len(stored(here.data_dir, own_id("c")))
    assert not any(is_alive(pid) for pid in pids)


async def test_a_command_that_is_asked_for_as_the_runner_dies_ends_truly_or_never_began(
    here: Here,
) -> None:
    for number in range(3):
        kill_runner(here.data_dir)
        marks = here.data_dir / f"marks-{number}"
        try:
            process = await here.start(f"echo >> {marks}; exit 3", f"c{number}")
        except CannotStart:
            assert not marks.exists()
        else:
            assert (await process.wait()).exit == Exit(code=3)


async def test_a_command_that_waited_for_a_runner_is_followed_to_its_end(tmp_path: Path) -> None:
    client = RunnerClient(tmp_path, spool_max_bytes=SPOOL_BYTES, grown=lambda command_id: None)
    executor = LocalExecutor(own_account(), client)
    failures: list[StopFailure] = []
    starting = asyncio.create_task(
        executor.start(an_order(C, command="exit 3"), LOCAL, failures.append)
    )
    await settle()
    keeping = asyncio.create_task(client.keep())
    async with asyncio.timeout(20):
        assert (await (await starting).wait()).exit == Exit(code=3)
    keeping.cancel()
    await asyncio.wait({keeping})
    end_everything(tmp_path)
    del keeping, client, executor
    gc.collect()


async def test_a_control_while_the_runner_is_gone_reaches_the_next_one(here: Here) -> None:
    process, pids = await tree(here, "echo $$; sleep 1000", 1)
    kill_runner(here.data_dir)
    await process.stop(State.CANCELLED, Force.KILL, None)
    assert (await process.wait()).stopped_as is State.LOST
    assert not any(is_alive(pid) for pid in pids)


async def test_after_its_runners_death_a_command_cannot_be_started_again(here: Here) -> None:
    process = await here.start("sleep 1000")
    keeper = here.executor.keeper
    kill_runner(here.data_dir)
    await process.wait()
    with pytest.raises(StartedBefore):
        await here.start("sleep 1000")
    assert here.executor.keeper != keeper


async def test_what_a_runner_left_and_nobody_knows_is_ended_and_forgotten(data_dir: Path) -> None:
    async with an_agent(data_dir) as first:
        _, pids = await tree(first, "echo $$; sleep 1000", 1)
        await (await first.start("exit 0", "ended")).wait()
        await (await first.start("exit 0", "other")).wait()
        await (await first.start("exit 0", "known")).wait()
    async with an_agent(data_dir) as second:
        await second.executor.discard_strays([own_id("known")])
        while commands_in(data_dir) != {own_id("known")}:
            await asyncio.sleep(0.01)  # nothing tells of the end of what nobody knows
    assert not any(is_alive(pid) for pid in pids)
