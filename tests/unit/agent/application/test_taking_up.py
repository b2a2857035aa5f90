"""What a new agent does with what an earlier one has left."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.domain.models.execution import State, StopFailure
from agent.domain.models.executor import Exit
from agent.domain.models.order import Action
from tests.fakes.agent_ports import NOW, RUNNER, AgentCore, C, RecordingLink, an_order, settle


@pytest.fixture
async def before() -> AsyncIterator[AgentCore]:
    """An agent that has died with two running commands, and two that waited."""
    core = AgentCore()
    async with asyncio.timeout(20):
        async with core.supervisor:
            for name in "abcd":
                await core.submit(an_order(name))
        yield core


@pytest.fixture
async def core(before: AgentCore) -> AsyncIterator[AgentCore]:
    core = before.after_a_restart()
    async with core.supervisor:
        yield core
        await core.end_all()


async def test_what_runs_is_followed_to_its_true_end(core: AgentCore) -> None:
    await core.take_up()
    assert core.executor.started == ["a", "b"]
    core.process("a").end(Exit(code=7))
    await settle()
    ended = (await core.outcomes())["a"]
    assert (ended.state, ended.exit, ended.started_at) == (State.EXITED, Exit(code=7), NOW)


async def test_what_ended_meanwhile_is_settled_with_its_output(core: AgentCore) -> None:
    core.process("a").write(b"out")
    core.process("a").end(Exit(code=7))
    await core.take_up()
    link = RecordingLink()
    await core.deliver(link)
    assert (link.outcomes[0].exit, link.totals[0].stdout.sent) == (Exit(code=7), 3)


async def test_what_waited_waits_on_in_order(core: AgentCore) -> None:
    await core.take_up()
    core.process("b").end()
    await settle()
    assert core.executor.started == ["a", "b", "c"]
    core.process("c").end()
    await settle()
    assert core.executor.started == ["a", "b", "c", "d"]


async def test_what_waited_is_not_started_before_the_controller_has_spoken(
    core: AgentCore,
) -> None:
    await core.take_up(is_confirmed=False)
    core.process("a").end()
    core.process("b").end()
    await core.submit(an_order("new"))
    assert core.executor.started == ["a", "b"]
    core.supervisor.discard(an_order("c").id)  # it ran long ago, says the controller
    core.supervisor.confirm()
    await settle()
    assert core.executor.started == ["a", "b", "d", "new"]


async def test_what_is_paused_is_still_paused(core: AgentCore) -> None:
    core.process("a").is_paused = True
    await core.take_up()
    assert core.state("a") is State.PAUSED
    await core.supervisor.control(an_order("a").id, Action.RESUME)
    assert (core.state("a"), core.process("a").asked) == (State.RUNNING, ["resume"])


async def test_a_stop_that_had_failed_is_told_again(core: AgentCore) -> None:
    left = StopFailure("stop_incomplete", "still there", (7,))
    core.executor.stop_failures[an_order("a").id] = left
    await core.take_up()
    failures = {
        running.execution.id: running.execution.stop_failure for running in core.supervisor.running
    }
    assert failures == {"a": left, "b": None}


async def test_what_its_runner_never_heard_of_is_started_before_what_waits(
    before: AgentCore,
) -> None:
    await before.journal.accept(an_order("e"), keeper=RUNNER, now=NOW)
    core = before.after_a_restart()
    async with core.supervisor:
        await core.take_up()
        core.process("a").end()
        await settle()
        assert core.executor.started == ["a", "b", "e"]
        await core.end_all()


async def test_what_a_dead_runner_was_to_start_is_lost_and_never_started(
    before: AgentCore,
) -> None:
    await before.journal.accept(an_order("e"), keeper="a dead runner", now=NOW)
    core = before.after_a_restart()
    async with core.supervisor:
        await core.take_up()
        ended = (await core.outcomes())["e"]
        assert (ended.state, ended.failure and ended.failure.code) == (
            State.LOST,
            "agent_state_lost",
        )
        assert "e" not in core.executor.started
        await core.end_all()


async def test_what_the_runner_says_was_started_before_is_lost(core: AgentCore) -> None:
    core.executor.started.append(an_order("c").id)
    await core.take_up()
    core.process("a").end()
    await settle()
    assert (await core.outcomes())["c"].state is State.LOST


async def test_a_command_whose_executor_is_gone_is_lost(before: AgentCore) -> None:
    await before.journal.accept(an_order("e", target="ssh"), keeper=RUNNER, now=NOW)
    core = before.after_a_restart()
    async with core.supervisor:
        await core.take_up()
        assert (await core.outcomes())["e"].state is State.LOST
        await core.end_all()


async def test_an_outcome_that_was_not_told_is_told_by_the_next_agent() -> None:
    core = AgentCore()
    async with core.supervisor:
        await core.submit(an_order(target="ssh"))
    after = core.after_a_restart()
    async with after.supervisor:
        await after.take_up()
        assert (await after.outcomes())[C].state is State.FAILED
        assert after.journal.unfinished() == []


async def test_what_is_left_can_be_stopped_without_anything_being_started(
    before: AgentCore,
) -> None:
    await before.journal.accept(an_order("e"), keeper=RUNNER, now=NOW)
    core = before.after_a_restart()
    async with core.supervisor:
        await core.supervisor.stop()
        await core.take_up()
        await core.supervisor.stop_commands()
        assert {o.state for o in (await core.outcomes()).values()} == {State.CANCELLED}
        assert core.executor.started == ["a", "b"]
