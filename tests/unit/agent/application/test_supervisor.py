import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.application import supervisor as supervisor_module
from agent.domain.errors import AgentBusy, AgentStopping, InvalidState, SpawnFailed
from agent.domain.ids import CommandId
from agent.domain.models.execution import Failure, Outcome, State, StopFailure
from agent.domain.models.executor import Exit
from agent.domain.models.order import Action
from agent.domain.models.output import Counts, Stream
from agent.domain.stopping import Force
from tests.fakes.agent_ports import RUNNER, AgentCore, C, RecordingLink, an_order, settle


@pytest.fixture
async def core() -> AsyncIterator[AgentCore]:
    core = AgentCore()
    async with asyncio.timeout(20), core.supervisor:
        yield core
        await core.end_all()


async def outcome(core: AgentCore, command_id: str = "c") -> Outcome:
    await settle()
    return (await core.outcomes())[command_id]


def ids(core: AgentCore) -> tuple[list[str], list[str]]:
    running = [running.execution.id for running in core.supervisor.running]
    return list(running), [waiting.execution.id for waiting in core.supervisor.waiting]


async def test_a_command_that_exits_is_settled_with_its_code_and_output(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().write(b"out")
    core.process().write(b"err", Stream.STDERR)
    core.process().end(Exit(code=3))
    ended = await outcome(core)
    assert (ended.state, ended.exit) == (State.EXITED, Exit(code=3))
    assert ended.written.in_all == Counts(3, 3)
    assert core.state() is State.EXITED
    assert ids(core) == ([], [])


async def test_a_command_whose_end_nobody_saw_is_lost_and_says_why(core: AgentCore) -> None:
    await core.submit(an_order())
    why = Failure("runner_died", "it died")
    core.process().end(Exit(), stopped_as=State.LOST, failure=why)
    ended = await outcome(core)
    assert (ended.state, ended.failure, ended.exit) == (State.LOST, why, Exit())


async def test_a_command_that_cannot_start_fails_and_that_is_stored(core: AgentCore) -> None:
    core.executor.refusal = SpawnFailed("no shell")
    await core.submit(an_order())
    ended = await outcome(core)
    assert (ended.state, ended.failure) == (State.FAILED, Failure("spawn_failed", "no shell"))
    assert core.journal.stored == [f"accept c {RUNNER}", "settle c failed"]


async def test_a_command_without_an_executor_fails(core: AgentCore) -> None:
    await core.submit(an_order(target="ssh"))
    ended = await outcome(core)
    assert ended.failure is not None
    assert ended.failure.code == "no_executor"


async def test_more_commands_wait_and_start_in_order(core: AgentCore) -> None:
    for name in "abcd":
        await core.submit(an_order(name))
    assert core.executor.started == ["a", "b"]
    assert ids(core) == (["a", "b"], ["c", "d"])
    core.process("b").end()
    await settle()
    assert core.executor.started == ["a", "b", "c"]
    for name in "acd":
        core.process(name).end()
        await settle()
    assert set(await core.outcomes()) == set("abcd")


async def test_who_starts_a_command_that_waited_is_stored_before_its_start(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    core.executor.gate.clear()
    core.process("a").end()
    await settle()
    assert core.journal.stored[2:] == ["accept c None", f"start c {RUNNER}"]
    assert core.executor.started == ["a", "b"]


async def test_a_full_disk_delays_the_start_and_nothing_starts_unmarked(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    core.journal.is_full = True
    core.process("a").end()
    await core.clock.advance(30)
    assert core.executor.started == ["a", "b"]
    core.journal.is_full = False
    await core.clock.advance(2)
    assert core.executor.started == ["a", "b", "c"]


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


async def test_an_order_that_expires_while_the_disk_is_full_never_starts(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    core.journal.is_full = True
    core.process("a").end()
    await core.clock.advance(70)
    core.journal.is_full = False
    await core.clock.advance(2)
    assert (await outcome(core, "c")).state is State.REJECTED
    assert "c" not in core.executor.started


@pytest.mark.parametrize(
    ("action", "force"), [(Action.CANCEL, Force.ASK), (Action.KILL, Force.KILL)]
)
async def test_a_stop_is_passed_on_and_ends_as_cancelled(
    core: AgentCore, action: Action, force: Force
) -> None:
    await core.submit(an_order())
    await core.supervisor.control(C, action)
    assert core.process().asked == [(State.CANCELLED, force)]
    ended = await outcome(core)
    assert (ended.state, ended.exit) == (State.CANCELLED, Exit(signal="SIGTERM"))


async def test_a_kill_hurries_a_cancel(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().obeys = False
    await core.supervisor.control(C, Action.CANCEL)
    core.process().obeys = True
    await core.supervisor.control(C, Action.KILL)
    assert (await outcome(core)).state is State.CANCELLED


async def test_what_outlives_a_kill_is_reported_and_told_with_the_outcome(core: AgentCore) -> None:
    await core.submit(an_order())
    left = StopFailure("stop_incomplete", "still there", (7,))
    core.process().failed(left)
    async with asyncio.timeout(10):
        link = RecordingLink()
        serving = asyncio.create_task(core.delivery.serve(link, {}))
        while not link.reports:
            await asyncio.sleep(0.005)  # its delay is real
        serving.cancel()
        await asyncio.wait({serving})
    assert (link.reports[-1].state, link.reports[-1].stop_failure) == (State.RUNNING, left)
    core.process().end(Exit(signal="SIGKILL"), stopped_as=State.CANCELLED, stop_failure=left)
    assert (await outcome(core)).stop_failure == left


async def test_a_stop_failure_after_the_end_changes_nothing(core: AgentCore) -> None:
    await core.submit(an_order())
    process = core.process()
    process.end()
    await settle()
    process.failed(StopFailure("stop_incomplete", "still there", (7,)))
    assert (await outcome(core)).stop_failure is None


async def test_a_control_of_what_is_not_here_changes_nothing(core: AgentCore) -> None:
    await core.supervisor.control(CommandId("unknown"), Action.KILL)
    core.supervisor.discard(CommandId("unknown"))
    assert core.executor.started == []


async def test_a_command_is_paused_and_resumed_once_each(core: AgentCore) -> None:
    await core.submit(an_order())
    for action in (Action.RESUME, Action.PAUSE, Action.PAUSE):
        await core.supervisor.control(C, action)
    assert core.state() is State.PAUSED
    await core.supervisor.control(C, Action.RESUME)
    assert core.state() is State.RUNNING
    assert core.process().asked == ["pause", "resume"]


async def test_a_pause_that_comes_too_late_is_not_noted(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().shifts = False
    await core.supervisor.control(C, Action.PAUSE)
    assert core.state() is State.RUNNING


async def test_a_command_that_ends_while_it_is_paused_is_not_paused(core: AgentCore) -> None:
    await core.submit(an_order())
    process = core.process()

    async def end_and_wait() -> bool:
        process.end()
        await settle()
        return True

    process.pause = end_and_wait  # type: ignore[method-assign]
    await core.supervisor.control(C, Action.PAUSE)
    assert (await outcome(core)).state is State.EXITED


async def test_a_control_during_the_start_takes_effect_after_it(core: AgentCore) -> None:
    core.executor.gate.clear()
    await core.submit(an_order())
    controlling = asyncio.create_task(core.supervisor.control(C, Action.CANCEL))
    await settle()
    assert not controlling.done()
    core.executor.gate.set()
    await controlling
    assert (await outcome(core)).state is State.CANCELLED


async def test_a_control_of_a_command_that_then_cannot_start_returns(core: AgentCore) -> None:
    core.executor.gate.clear()
    core.executor.refusal = SpawnFailed("no shell")
    await core.submit(an_order())
    controls = [
        asyncio.create_task(core.supervisor.control(C, action))
        for action in (Action.KILL, Action.PAUSE)
    ]
    await settle()
    core.executor.gate.set()
    await asyncio.gather(*controls)
    assert (await outcome(core)).state is State.FAILED


async def test_a_command_that_waits_is_cancelled_without_a_process(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    await core.supervisor.control(C, Action.CANCEL)
    ended = await outcome(core, "c")
    assert (ended.state, ended.started_at) == (State.CANCELLED, None)
    assert core.journal.stored[-1] == "settle c cancelled"
    assert "c" not in core.executor.started


async def test_a_cancel_on_a_full_disk_is_stored_once_there_is_room(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    core.journal.is_full = True
    cancelling = asyncio.create_task(core.supervisor.control(C, Action.CANCEL))
    await core.clock.advance(5)
    assert not cancelling.done()
    core.journal.is_full = False
    await core.clock.advance(2)
    await cancelling
    assert (await outcome(core)).state is State.CANCELLED


async def test_a_command_that_waits_cannot_be_paused(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    with pytest.raises(InvalidState):
        await core.supervisor.control(C, Action.PAUSE)


async def test_a_discarded_command_is_stopped_or_never_started(core: AgentCore) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    for name in "ac":
        core.supervisor.discard(CommandId(name))
    await settle()
    outcomes = await core.outcomes()
    assert {name: outcomes[name].state for name in outcomes} == {"a": State.CANCELLED}
    assert outcomes["a"].failure is not None
    assert ids(core) == (["b"], [])


async def test_a_cancel_of_what_waits_is_carried_out_although_who_asked_is_gone(
    core: AgentCore,
) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    core.journal.is_full = True
    asking = asyncio.create_task(core.supervisor.control(CommandId("c"), Action.CANCEL))
    await settle()
    asking.cancel()
    again = asyncio.create_task(core.supervisor.control(CommandId("c"), Action.CANCEL))
    await settle()
    assert not again.done()  # it is not acknowledged before it is stored
    core.journal.is_full = False
    await core.clock.advance(1)
    await again
    assert (await core.outcomes())["c"].state is State.CANCELLED


async def test_stopping_the_commands_ends_what_runs_and_what_waits(core: AgentCore) -> None:
    for name in "abcd":
        await core.submit(an_order(name))
    await core.supervisor.stop_commands()
    assert ids(core) == ([], [])
    outcomes = await core.outcomes()
    assert {outcomes[name].state for name in "abcd"} == {State.CANCELLED}
    assert {outcomes[name].failure.code for name in "abcd"} == {"stopped_on_host"}  # type: ignore[union-attr]
    assert core.executor.started == ["a", "b"]


async def test_stopping_the_commands_passes_over_one_that_ends_meanwhile(core: AgentCore) -> None:
    for name in "ab":
        await core.submit(an_order(name))
    first = core.process("a").stop

    async def end_the_other(*args: Any) -> None:
        core.process("b").end()
        await settle()
        await first(*args)

    core.process("a").stop = end_the_other  # type: ignore[method-assign]
    await core.supervisor.stop_commands()
    outcomes = await core.outcomes()
    assert [outcomes[name].state for name in "ab"] == [State.CANCELLED, State.EXITED]


async def test_stopping_the_commands_waits_for_a_cancel_that_waits_for_the_disk(
    core: AgentCore,
) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    core.journal.is_full = True
    cancelling = asyncio.create_task(core.supervisor.control(C, Action.CANCEL))
    await settle()
    stopping = asyncio.create_task(core.supervisor.stop_commands())
    await core.clock.advance(5)
    assert not stopping.done()
    core.journal.is_full = False
    await core.clock.advance(2)
    await asyncio.gather(cancelling, stopping)


async def test_a_cancel_that_waits_for_the_disk_does_not_keep_the_agent_from_ending() -> None:
    core = AgentCore()
    async with asyncio.timeout(20), core.supervisor:
        for name in "abc":
            await core.submit(an_order(name))
        core.journal.is_full = True
        cancelling = asyncio.create_task(core.supervisor.control(C, Action.CANCEL))
        await settle()
    await asyncio.wait({cancelling})
    assert cancelling.cancelled()
    assert core.state() is State.ACCEPTED  # nobody was told anything else


async def test_stopping_no_commands_is_done_at_once(core: AgentCore) -> None:
    await core.supervisor.stop_commands()


async def test_stopping_the_commands_waits_until_nothing_of_them_is_left(core: AgentCore) -> None:
    await core.submit(an_order())
    core.process().obeys = False
    stopping = asyncio.create_task(core.supervisor.stop_commands())
    await settle()
    assert not stopping.done()
    core.process().end(Exit(signal="SIGKILL"), stopped_as=State.CANCELLED)
    await stopping
    assert ids(core) == ([], [])


async def test_a_command_that_gets_its_turn_while_all_are_stopped_is_stopped(
    core: AgentCore,
) -> None:
    for name in "abcd":
        await core.submit(an_order(name))
    core.journal.is_full = True  # so that the stop of c waits, and d can get its turn
    stopping = asyncio.create_task(core.supervisor.stop_commands())
    await settle()
    core.process("a").end()
    await settle()
    core.journal.is_full = False
    await core.clock.advance(5)
    await stopping
    outcomes = await core.outcomes()
    assert {outcomes[name].state for name in "bcd"} == {State.CANCELLED}
    assert ids(core) == ([], [])


async def test_stopping_the_agent_leaves_commands_alone_and_starts_nothing(
    core: AgentCore,
) -> None:
    for name in "abc":
        await core.submit(an_order(name))
    await core.supervisor.stop()
    core.process("a").end()
    await settle()
    assert core.process("b").asked == []
    assert core.executor.started == ["a", "b"]
    with pytest.raises(AgentStopping):
        core.supervisor.require_room()


async def test_stopping_the_agent_waits_for_what_is_about_to_be_started(core: AgentCore) -> None:
    core.executor.gate.clear()
    await core.submit(an_order())
    stopping = asyncio.create_task(core.supervisor.stop())
    await settle()
    assert not stopping.done()
    core.executor.gate.set()
    await stopping
    assert core.executor.started == ["c"]


async def test_an_agent_that_holds_too_many_takes_no_more(
    core: AgentCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "HELD_MAX", 3)
    for name in "ab":
        await core.submit(an_order(name))
    core.supervisor.require_room()
    core.supervisor.reserve(an_order("c"))
    with pytest.raises(AgentBusy):
        core.supervisor.require_room()
    core.supervisor.give_back()
    core.supervisor.require_room()


async def test_an_agent_that_holds_too_much_text_takes_no_more(
    core: AgentCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "HELD_MAX_CHARS", 1000)
    await core.submit(an_order("a"))
    core.supervisor.require_room()
    await core.submit(an_order("b", stdin="x" * 1000))
    with pytest.raises(AgentBusy):
        core.supervisor.require_room()
    core.process("b").end()
    await settle()
    await core.outcomes()
    core.supervisor.require_room()


async def test_an_agent_that_could_only_forget_what_may_still_come_takes_no_more(
    core: AgentCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.supervisor.require_room()
    monkeypatch.setattr(core.journal, "may_forget_none", lambda: True)
    with pytest.raises(AgentBusy):
        core.supervisor.require_room()


async def test_a_reservation_keeps_the_turn_of_who_made_it() -> None:
    core = AgentCore(max_concurrent=1)
    async with asyncio.timeout(20), core.supervisor:
        assert core.supervisor.reserve(an_order("a")) == RUNNER
        assert core.supervisor.reserve(an_order("b")) is None
        core.supervisor.submit(an_order("b"), None)
        await settle()
        assert core.executor.started == []
        core.supervisor.give_back()
        await settle()
        assert core.executor.started == ["b"]
        core.process("b").end()


async def test_a_bug_costs_only_its_own_command(core: AgentCore) -> None:
    core.executor.refusal = RuntimeError("a bug")
    await core.submit(an_order("a"))
    core.executor.refusal = None
    await core.submit(an_order("b"))
    ended = await outcome(core, "a")
    assert (ended.state, ended.failure and ended.failure.code) == (State.LOST, "internal_error")
    assert ids(core) == (["b"], [])


async def test_a_bug_after_the_end_leaves_the_end_as_it_was(
    core: AgentCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await core.submit(an_order())

    def broken(outcome: Outcome) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(core.delivery, "settle", broken)
    core.process().end()
    await settle()
    assert ids(core) == ([], [])
    assert core.state() is State.EXITED


async def test_leaving_follows_nothing_any_more_and_touches_no_command() -> None:
    core = AgentCore(max_concurrent=1)
    async with asyncio.timeout(20), core.supervisor:
        await core.submit(an_order("a"))
        await core.submit(an_order("b"))
    assert core.process("a").asked == []
    assert core.executor.started == ["a"]
    assert not core.process("a").has_ended


async def test_being_cancelled_touches_no_command() -> None:
    core = AgentCore()

    async def live() -> None:
        async with core.supervisor:
            await core.submit(an_order())
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    await settle()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert core.process().asked == []


async def test_an_error_where_the_supervisor_is_open_is_passed_on() -> None:
    core = AgentCore()
    with pytest.raises(ZeroDivisionError):
        async with core.supervisor:
            await core.submit(an_order())
            raise ZeroDivisionError
    assert core.process().asked == []
