"""What an agent reports of one command is stored in order, once, and announced."""

import pytest

from app.application.use_cases.record_reports import Recorded, StateReport
from app.domain.errors import StaleSession
from app.domain.events import CommandMoved, OutputAppended
from app.domain.ids import CommandId
from app.domain.models.agent import Session
from app.domain.models.command import Command, StopFailure
from app.domain.models.output import OutputTotals, Stream
from app.domain.models.states import State
from tests.builders import (
    DB,
    WEB,
    a_beginning,
    a_chunk,
    a_command,
    a_command_in,
    an_outcome,
    an_outcome_after,
    chunks_of,
)
from tests.fakes.in_memory_controller import InMemoryController

CHUNKS = chunks_of(b"one", (Stream.STDERR, b"two"), b"three")


async def opened(controller: InMemoryController, command: Command) -> Session:
    """A session whose agent holds `command`; what was announced until then is forgotten."""
    await controller.keep(command)
    session = await controller.register(WEB, command.id)
    controller.events.clear()
    return session


async def test_a_whole_life_in_one_report(controller: InMemoryController) -> None:
    session = await controller.register(WEB)
    command = a_command(offered_epoch=session.epoch)
    await controller.keep(command)
    controller.events.clear()
    begun = StateReport(State.RUNNING, a_beginning())
    recorded = await controller.record_reports(
        session, command.id, [begun, *CHUNKS, an_outcome_after(CHUNKS)]
    )
    assert recorded == Recorded(OutputTotals(3, 8, 3), is_settled=True)
    assert (await controller.commands.get(command.id)).state is State.SUCCEEDED
    assert await controller.output.read(command.id, from_seq=0, max_bytes=99) == CHUNKS
    told = [e.state if isinstance(e, CommandMoved) else type(e) for e in controller.events]
    assert told == [State.DISPATCHED, State.RUNNING, OutputAppended, State.SUCCEEDED]


async def test_repeats_change_nothing(controller: InMemoryController) -> None:
    command = a_command_in(State.RUNNING)
    session = await opened(controller, command)
    reports = [*CHUNKS, an_outcome_after(CHUNKS)]
    first = await controller.record_reports(session, command.id, reports)
    stored = await controller.commands.get(command.id)
    controller.events.clear()
    assert await controller.record_reports(session, command.id, reports) == first
    assert await controller.commands.get(command.id) == stored
    assert controller.events == []
    assert await controller.output.read(command.id, from_seq=0, max_bytes=99) == CHUNKS


async def test_a_gap_ends_the_taking_and_says_what_is_stored(
    controller: InMemoryController,
) -> None:
    command = a_command_in(State.RUNNING)
    session = await opened(controller, command)
    recorded = await controller.record_reports(
        session, command.id, [CHUNKS[0], CHUNKS[2], CHUNKS[1], an_outcome_after(CHUNKS)]
    )
    assert recorded == Recorded(OutputTotals(1, 3, 0), is_settled=False, has_gap=True)
    assert (await controller.commands.get(command.id)).state is State.RUNNING
    assert await controller.output.read(command.id, from_seq=0, max_bytes=99) == CHUNKS[:1]


async def test_what_goes_beyond_the_order_ends_the_taking_and_at_last_the_command(
    controller: InMemoryController,
) -> None:
    command = a_command_in(State.RUNNING, max_output_bytes=6)
    session = await opened(controller, command)
    reports = [*CHUNKS, an_outcome_after(CHUNKS)]
    recorded = await controller.record_reports(session, command.id, reports)
    assert recorded == Recorded(OutputTotals(2, 3, 3), is_settled=False, is_overrun=True)
    assert (await controller.commands.get(command.id)).state is State.RUNNING
    recorded = await controller.record_reports(session, command.id, reports)
    assert recorded == Recorded(OutputTotals(2, 3, 3), is_settled=True, is_overrun=True)
    lost = await controller.commands.get(command.id)
    assert lost.failure is not None
    assert (lost.state, lost.failure.code) == (State.LOST, "impossible_result")
    assert await controller.output.read(command.id, from_seq=0, max_bytes=99) == CHUNKS[:2]
    recorded = await controller.record_reports(session, command.id, reports)
    assert recorded == Recorded(OutputTotals(2, 3, 3), is_settled=True)


async def test_an_outcome_waits_for_the_output_that_it_counts(
    controller: InMemoryController,
) -> None:
    command = a_command_in(State.RUNNING)
    session = await opened(controller, command)
    outcome = an_outcome_after(CHUNKS)
    early = await controller.record_reports(session, command.id, [CHUNKS[0], outcome])
    assert early == Recorded(OutputTotals(1, 3, 0), is_settled=False)
    late = await controller.record_reports(session, command.id, [*CHUNKS[1:], outcome])
    assert late == Recorded(OutputTotals(3, 8, 3), is_settled=True)


async def test_an_outcome_of_other_bytes_is_refused_and_says_so(
    controller: InMemoryController,
) -> None:
    command = a_command_in(State.RUNNING)
    session = await opened(controller, command)
    other = an_outcome_after(chunks_of(b"One", (Stream.STDERR, b"two"), b"three"))
    recorded = await controller.record_reports(session, command.id, [*CHUNKS, other])
    assert recorded == Recorded(OutputTotals(3, 8, 3), is_settled=False, is_different=True)
    outcome = an_outcome_after(CHUNKS)
    recorded = await controller.record_reports(session, command.id, [outcome])
    assert recorded == Recorded(OutputTotals(3, 8, 3), is_settled=True)


async def test_an_older_session_is_refused_and_nothing_taken(
    controller: InMemoryController,
) -> None:
    command = a_command_in(State.RUNNING)
    old = await opened(controller, command)
    await controller.register(WEB, command.id)
    controller.events.clear()
    with pytest.raises(StaleSession):
        await controller.record_reports(old, command.id, [a_chunk()])
    assert await controller.commands.get(command.id) == command
    assert controller.events == []


async def test_unknown_and_foreign_commands_are_not_known(controller: InMemoryController) -> None:
    foreign = a_command_in(State.RUNNING, agent_id=DB)
    await controller.keep(foreign)
    for _ in range(2):  # whatever the numbers of the two agents' sessions
        session = await controller.register(WEB)
        for command_id in (foreign.id, CommandId("nobody")):
            recorded = await controller.record_reports(session, command_id, [a_chunk()])
            assert recorded == Recorded(OutputTotals(), is_settled=False, is_known=False)
    assert await controller.commands.get(foreign.id) == foreign


async def test_an_impossible_result_settles_its_command_as_lost(
    controller: InMemoryController,
) -> None:
    command = a_command_in(State.DISPATCHED)
    session = await opened(controller, command)
    outcome = an_outcome(beginning=None)
    recorded = await controller.record_reports(session, command.id, [outcome])
    assert recorded.is_settled
    assert (await controller.commands.get(command.id)).state is State.LOST


@pytest.mark.parametrize(
    ("here", "report", "there"),
    [
        (State.QUEUED, StateReport(State.DISPATCHED), State.DISPATCHED),
        (State.QUEUED, StateReport(State.RUNNING, a_beginning()), State.RUNNING),
        (State.DISPATCHED, StateReport(State.RUNNING), State.DISPATCHED),
        (State.RUNNING, StateReport(State.PAUSED, a_beginning()), State.PAUSED),
        (State.DISPATCHED, StateReport(State.PAUSED, a_beginning()), State.PAUSED),
        (State.PAUSED, StateReport(State.RUNNING), State.RUNNING),
        (State.RUNNING, StateReport(State.RUNNING, a_beginning()), State.RUNNING),
        (State.RUNNING, StateReport(State.DISPATCHED), State.RUNNING),
        (State.RUNNING, StateReport(State.SUCCEEDED), State.RUNNING),
        (State.SUCCEEDED, StateReport(State.RUNNING, a_beginning()), State.SUCCEEDED),
    ],
)
async def test_a_state_that_is_reported_is_entered_where_it_may_be(
    controller: InMemoryController, here: State, report: StateReport, there: State
) -> None:
    command = a_command_in(here)
    session = await opened(controller, command)
    await controller.report(session, command.id, report)
    assert (await controller.commands.get(command.id)).state is there


async def test_a_stop_that_failed_is_kept(controller: InMemoryController) -> None:
    command = a_command_in(State.RUNNING)
    session = await opened(controller, command)
    failure = StopFailure("stop_not_permitted", "one is left", (4711,))
    await controller.report(session, command.id, StateReport(State.RUNNING, None, failure))
    assert (await controller.commands.get(command.id)).stop_failure == failure
