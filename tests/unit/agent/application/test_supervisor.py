import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.application import supervisor as supervisor_module
from agent.application.stopping import KILL_GRACE_S, LOOK_LATE_S, TERM_GRACE_S
from agent.domain.errors import AgentBusy, AgentStopping, EndUnknown, InvalidState, SpawnFailed
from agent.domain.ids import CommandId
from agent.domain.models.execution import Outcome, State
from agent.domain.models.executor import Exit, Impulse, Survivors
from agent.domain.models.order import Action
from agent.domain.models.output import Stream
from tests.fakes.agent_ports import AgentCore, RecordingLink, an_order, settle

C = CommandId("c")


@pytest.fixture
async def core() -> AsyncIterator[AgentCore]:
    core = AgentCore()
    async with asyncio.timeout(20), core.supervisor:
        yield core
        await core.end_all()


async def outcome(core: AgentCore, command_id: str = "c") -> Outcome:
    await settle()
    return (await core.outcomes())[command_id]


async def test_a_command_that_exits_is_settled_with_its_code_and_output(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().write(b"out")
    core.process().write(b"err", Stream.STDERR)
    core.process().end(Exit(code=3))
    ended = await outcome(core)
    assert (ended.state, ended.exit) == (State.EXITED, Exit(code=3))
    assert (ended.output.stdout.kept, ended.output.stderr.kept) == (3, 3)
    assert await core.journal.state_of(C) is State.EXITED
    assert core.supervisor.running == 0


async def test_a_command_whose_end_is_unknown_is_lost_and_says_why(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().write(b"out")
    core.process().end_unknown(EndUnknown("reaped by another"))
    ended = await outcome(core)
    assert (ended.state, ended.output.stdout.kept) == (State.LOST, 3)
    assert ended.failure is not None
    assert (ended.failure.code, ended.failure.message) == ("end_unknown", "reaped by another")
    assert core.process().impulses == []


async def test_a_command_that_cannot_start_fails_and_says_why(core: AgentCore) -> None:
    core.executor.refusal = SpawnFailed("no shell")
    await core.submit(an_order())
    ended = await outcome(core)
    assert ended.state is State.FAILED
    assert ended.failure is not None
    assert (ended.failure.code, ended.failure.message) == ("spawn_failed", "no shell")


async def test_a_command_without_an_executor_fails(core: AgentCore) -> None:
    await core.submit(an_order(target="ssh"))
    ended = await outcome(core)
    assert ended.failure is not None
    assert ended.failure.code == "no_executor"


async def test_more_commands_wait_and_start_in_order(core: AgentCore) -> None:
    for name in "abcd":
        await core.submit(an_order(name))
    assert list(core.executor.processes) == ["a", "b"]
    core.process("b").end()
    await settle()
    assert list(core.executor.processes) == ["a", "b", "c"]
    for name in "acd":
        core.process(name).end()
        await settle()
    assert set(await core.outcomes()) == set("abcd")


async def test_an_order_whose_time_has_passed_while_it_waited_never_starts(
    core: AgentCore,
) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    await core.clock.advance(61)
    core.process("a").end()
    ended = await outcome(core, "c")
    assert ended.state is State.REJECTED
    assert ended.failure is not None
    assert ended.failure.code == "expired"


async def test_a_cancel_asks_and_is_done_when_nothing_is_left(core: AgentCore) -> None:
    await core.submit(an_order())
    core.supervisor.control(C, Action.CANCEL)
    ended = await outcome(core)
    assert (ended.state, ended.exit) == (State.CANCELLED, Exit(signal="SIGTERM"))
    assert core.process().impulses == [Impulse.TERMINATE, Impulse.CONTINUE, Impulse.PROBE]


async def test_a_cancel_kills_after_its_grace(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().fatal = {Impulse.KILL}
    core.supervisor.control(C, Action.CANCEL)
    await core.clock.advance(TERM_GRACE_S - 0.3)
    assert Impulse.KILL not in core.process().impulses
    await core.clock.advance(1)
    assert (await outcome(core)).exit == Exit(signal="SIGKILL")


async def test_a_kill_hurries_a_cancel(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().fatal = {Impulse.KILL}
    core.supervisor.control(C, Action.CANCEL)
    await settle()
    core.supervisor.control(C, Action.KILL)
    await core.clock.advance(0.5)
    assert (await outcome(core)).state is State.CANCELLED


async def test_the_first_reason_to_stop_counts(core: AgentCore) -> None:
    await core.submit(an_order(timeout_s=5))
    core.process().fatal = {Impulse.KILL}
    await core.clock.advance(5.1)
    core.supervisor.control(C, Action.KILL)
    await core.clock.advance(1)
    ended = await outcome(core)
    assert ended.state is State.TIMED_OUT
    assert ended.failure is not None
    assert "5 s" in ended.failure.message


async def test_a_command_that_ends_in_time_is_not_stopped(core: AgentCore) -> None:
    await core.submit(an_order(timeout_s=5))
    core.process().end()
    assert (await outcome(core)).state is State.EXITED
    await core.clock.advance(10)
    assert core.process().impulses == []


async def test_a_stop_that_finds_nothing_alive_did_not_end_it(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().alive = ()
    core.supervisor.control(C, Action.KILL)
    await settle()
    core.process().end(Exit(code=0))
    assert (await outcome(core)).state is State.EXITED


@pytest.mark.parametrize(
    ("denied", "code"), [((7,), "stop_not_permitted"), ((), "stop_incomplete")]
)
async def test_what_outlives_a_kill_is_reported_and_waited_for(
    core: AgentCore, denied: tuple[int, ...], code: str
) -> None:
    await core.submit(an_order())
    core.process().fatal = set()
    core.process().alive, core.process().denied = (7,), denied
    core.supervisor.control(C, Action.KILL)
    await core.clock.advance(KILL_GRACE_S + 1)
    link = RecordingLink()
    async with asyncio.timeout(10):
        while not link.reports:
            await core.deliver(link)
            await asyncio.sleep(0.02)  # a state waits some milliseconds for an outcome
            serving = asyncio.create_task(core.delivery.serve(link, {}))
            await asyncio.sleep(0.05)
            serving.cancel()
            await asyncio.wait({serving})
    failure = link.reports[-1].stop_failure
    assert failure is not None
    assert (link.reports[-1].state, failure.code, failure.pids) == (State.RUNNING, code, (7,))
    core.process().end(Exit(signal="SIGKILL"))
    await core.clock.advance(2 * LOOK_LATE_S)
    assert (await outcome(core)).state is State.CANCELLED


async def test_a_control_after_the_end_changes_nothing(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().end(keeps_pipes=True)
    await settle()
    core.supervisor.control(C, Action.KILL)
    core.supervisor.control(C, Action.PAUSE)
    core.supervisor.control(CommandId("unknown"), Action.KILL)
    core.process().write(b"late")
    while core.supervisor.running:
        await asyncio.sleep(0.02)  # the second in which children may still write
    ended = await outcome(core)
    assert (ended.state, ended.output.stdout.kept) == (State.EXITED, 4)
    assert core.process().is_abandoned
    assert core.process().impulses == []


async def test_a_command_is_paused_and_resumed_once_each(core: AgentCore) -> None:
    await core.submit(an_order())
    for action in (Action.RESUME, Action.PAUSE, Action.PAUSE):
        core.supervisor.control(C, action)
        await settle()
    assert await core.journal.state_of(C) is State.PAUSED
    core.supervisor.control(C, Action.RESUME)
    await settle()
    assert await core.journal.state_of(C) is State.RUNNING
    assert core.process().impulses == [Impulse.PAUSE, Impulse.CONTINUE]


async def test_a_pause_that_comes_too_late_is_not_noted(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().fatal = {Impulse.PAUSE}
    core.process().end(keeps_pipes=True)
    core.supervisor.control(C, Action.PAUSE)
    core.process().abandon_output()
    assert (await outcome(core)).state is State.EXITED


async def test_a_command_that_ends_of_its_pause_is_not_paused(core: AgentCore) -> None:
    await core.submit(an_order())
    process = core.process()
    signal = process.signal

    async def end_and_wait(impulse: Impulse) -> Survivors:
        seen = await signal(impulse)
        process.end()
        await settle()
        return seen

    process.signal = end_and_wait  # type: ignore[method-assign]
    core.supervisor.control(C, Action.PAUSE)
    assert (await outcome(core)).state is State.EXITED
    assert process.impulses == [Impulse.PAUSE]


async def test_a_pause_behind_a_stop_does_nothing(core: AgentCore) -> None:
    await core.submit(an_order())
    core.supervisor.control(C, Action.CANCEL)
    core.supervisor.control(C, Action.PAUSE)
    assert (await outcome(core)).state is State.CANCELLED
    assert Impulse.PAUSE not in core.process().impulses


async def test_a_journal_that_breaks_at_the_end_is_only_logged(
    core: AgentCore, caplog: pytest.LogCaptureFixture
) -> None:
    await core.submit(an_order())

    async def broken(command_id: CommandId, state: State) -> None:
        raise OSError("no space")

    core.journal.move = broken  # type: ignore[method-assign]
    core.process().end()
    await settle()
    assert core.supervisor.running == 0
    assert "no space" in caplog.text


async def test_a_command_that_waits_is_cancelled_without_a_process(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    core.supervisor.control(CommandId("c"), Action.CANCEL)
    ended = await outcome(core, "c")
    assert (ended.state, ended.started_at) == (State.CANCELLED, None)
    assert "c" not in core.executor.processes


async def test_a_command_that_waits_cannot_be_paused(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    with pytest.raises(InvalidState):
        core.supervisor.control(CommandId("c"), Action.PAUSE)


async def test_a_discarded_command_is_stopped_wherever_it_stands(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    for name in ("a", "c", "unknown"):
        core.supervisor.discard(CommandId(name))
    await settle()
    outcomes = await core.outcomes()
    assert {name: outcomes[name].state for name in outcomes} == {
        "a": State.CANCELLED,
        "c": State.CANCELLED,
    }


async def test_stopping_ends_what_runs_and_rejects_what_waits(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    await core.supervisor.stop()
    outcomes = await core.outcomes()
    assert [outcomes[name].state for name in "abc"] == [State.LOST, State.LOST, State.REJECTED]
    with pytest.raises(AgentStopping):
        core.supervisor.require_room()


async def test_stopping_without_work_is_done_at_once(core: AgentCore) -> None:
    await core.supervisor.stop()


async def test_an_agent_with_too_many_waiting_takes_no_more(
    core: AgentCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "MAX_WAITING", 1)
    for name in "abc":
        core.supervisor.require_room()
        await core.submit(an_order(name))
    with pytest.raises(AgentBusy):
        core.supervisor.require_room()


async def test_a_bug_costs_only_its_own_command(core: AgentCore) -> None:
    core.executor.refusal = RuntimeError("a bug")
    await core.submit(an_order("a"))
    core.executor.refusal = None
    await core.submit(an_order("b"))
    core.process("b").breaks_on_read = True
    core.process("b").write(b"x")
    await core.clock.advance(1)
    outcomes = await core.outcomes()
    assert (outcomes["a"].state, outcomes["b"].state) == (State.FAILED, State.LOST)
    assert Impulse.KILL in core.process("b").impulses


async def test_a_stop_during_the_start_takes_effect_after_it(core: AgentCore) -> None:
    assert await core.journal.accept(an_order(), now=core.clock.now())
    core.supervisor.submit(an_order())
    core.supervisor.control(C, Action.PAUSE)  # before there is a process: nothing to pause
    core.supervisor.control(C, Action.KILL)
    core.supervisor.control(C, Action.KILL)
    await core.clock.advance(1)
    assert (await outcome(core)).state is State.CANCELLED


async def test_leaving_kills_what_runs_and_starts_nothing() -> None:
    core = AgentCore(max_concurrent=1)

    async def live() -> None:
        async with core.supervisor:
            await core.submit(an_order("a"))
            await core.submit(an_order("b"))

    task = asyncio.create_task(live())
    await core.clock.advance(1)
    await task
    assert core.process("a").impulses[0] is Impulse.KILL
    assert "b" not in core.executor.processes


async def test_being_cancelled_kills_what_runs_even_if_it_resists() -> None:
    core = AgentCore()

    async def live() -> None:
        async with core.supervisor:
            await core.submit(an_order())
            core.process().fatal = set()
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    await settle()
    task.cancel()
    await core.clock.advance(30)
    await asyncio.wait({task})
    assert task.cancelled()
    assert Impulse.KILL in core.process().impulses
