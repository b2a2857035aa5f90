import asyncio
from dataclasses import replace

import pytest

from agent.application import delivery as delivery_module
from agent.application.ports.controller_link import Accepted, Held, Incomplete
from agent.domain.errors import LinkLost, NotAcknowledged, SpoolUnreadable
from agent.domain.ids import CommandId
from agent.domain.models.execution import Ending, Execution, Outcome, Report, State
from agent.domain.models.output import Chunk, Counts, Missing, Piece, Position, Stream
from agent.domain.models.transmission import Written
from agent.infrastructure.storage.in_memory_spool import InMemoryRecording
from tests.fakes.agent_ports import LOCAL, NOW, AgentCore, C, RecordingLink, an_order, settle

D = CommandId("d")


@pytest.fixture
def core() -> AgentCore:
    return AgentCore()


@pytest.fixture
def link() -> RecordingLink:
    return RecordingLink()


def an_execution(command_id: str = "c", stdout: int = 0) -> tuple[Report, Outcome]:
    execution = Execution(order=an_order(command_id))
    report = execution.start(LOCAL, at=NOW)
    written = Written(Counts(stdout, 0), Counts(stdout, 0))
    return report, execution.end(Ending(finished_at=NOW, started_at=NOW, written=written))


def keep(core: AgentCore, count: int, command_id: CommandId = C, size: int = 1) -> None:
    """Open a command, and spool `count` more pieces of it."""
    core.delivery.open(command_id)
    recording = core.recordings.setdefault(command_id, InMemoryRecording())
    offset = recording.size
    for number in range(count):
        piece = Piece(Stream.STDOUT, offset + number * size, b"x" * size, NOW)
        core.spool.write(command_id, piece)
    core.delivery.grown(command_id)


async def test_chunks_are_sent_in_order_and_kept_until_acknowledged(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 3)
    await core.deliver(link)
    assert link.chunks == [0, 1, 2]
    await core.delivery.acknowledge(C, Position(2, 2, 0))
    assert core.spool.acknowledged == [(C, 0), (C, 2)]


async def test_a_new_session_goes_on_from_where_the_controller_says(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 4)
    await core.deliver(link, {C: Position(1, 1, 0)})
    await core.deliver(link, {C: Position(3, 3, 0)})
    assert link.chunks == [1, 2, 3, 3]
    assert core.spool.acknowledged == [(C, 1), (C, 3)]


async def test_a_new_session_without_a_word_of_a_command_goes_on_from_what_was_acknowledged(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 3)
    await core.deliver(link)
    await core.delivery.acknowledge(C, Position(2, 2, 0))
    await core.deliver(link)
    assert link.chunks == [0, 1, 2, 2]


async def test_a_controller_that_was_set_back_gets_it_again(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 2)
    await core.deliver(link)
    await core.delivery.acknowledge(C, Position(2, 2, 0))
    await core.deliver(link, {C: Position(0, 0, 0)})
    assert link.chunks == [0, 1, 0, 1]


async def test_an_outcome_follows_its_chunks_and_ends_the_matter(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 2)
    report, outcome = an_execution(stdout=2)
    core.delivery.report(report)
    core.delivery.settle(outcome)
    await core.deliver(link)
    assert link.chunks == [0, 1]
    assert (link.totals[0].next_seq, link.totals[0].stdout.written) == (2, 2)
    assert link.sent[-1] == outcome
    assert link.reports == []
    assert core.delivery.held() == []
    await core.delivery.flushed()


async def test_a_report_is_sent_where_the_outcome_does_not_come_soon(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 0)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(core.delivery.serve(link, {}))
        await settle()
        report, outcome = an_execution()
        core.delivery.report(report)
        while not link.reports:
            await asyncio.sleep(0.005)  # its delay is real
        core.delivery.settle(outcome)
        await core.delivery.flushed()
        serving.cancel()
    assert link.sent == [report, outcome]


async def test_news_during_the_delay_do_not_end_it(core: AgentCore, link: RecordingLink) -> None:
    keep(core, 1)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(core.delivery.serve(link, {}))
        report, outcome = an_execution()
        core.delivery.report(report)
        await settle()
        core.delivery.report(report)
        await settle()
        core.delivery.settle(outcome)
        await core.delivery.flushed()
        serving.cancel()
    assert link.sent[-1] == outcome


async def test_what_is_not_acknowledged_is_sent_again(core: AgentCore, link: RecordingLink) -> None:
    keep(core, 0)
    report, outcome = an_execution()
    link.report_answers = [NotAcknowledged("late"), Accepted("no such command")]
    link.outcome_answers = [NotAcknowledged("late"), Accepted("no such command", is_unknown=True)]
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(core.delivery.serve(link, {}))
        await settle()
        core.delivery.report(report)
        while len(link.reports) < 2:
            await asyncio.sleep(0.005)
            await core.clock.advance(1)
        core.delivery.settle(outcome)
        await core.clock.advance(3)
        await core.delivery.flushed()
        serving.cancel()
    assert link.sent == [report, report, outcome, outcome]


async def test_an_incomplete_outcome_goes_back_to_what_is_stored(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 3)
    core.delivery.settle(an_execution(stdout=3)[1])
    link.outcome_answers = [Incomplete(Position(1, 1, 0))]
    await core.deliver(link)
    assert link.chunks == [0, 1, 2, 1, 2]
    assert link.totals[0] == link.totals[1]
    assert core.delivery.held() == []


async def test_a_controller_that_has_all_and_disagrees_is_told_that_nothing_is_proven(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 1)
    core.delivery.settle(an_execution(stdout=1)[1])
    link.outcome_answers = [Incomplete(Position(1, 1, 0))]
    await core.deliver(link)
    assert (link.totals[1].stdout.digest, link.totals[1].stderr.digest != "") == ("", True)
    assert link.totals[1].missing == (Missing(Stream.STDOUT, 0, 1),)
    assert core.delivery.held() == []


async def test_a_controller_that_takes_no_account_at_all_ends_the_session(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 1)
    core.delivery.settle(an_execution(stdout=1)[1])
    link.outcome_answers = [Incomplete(Position(1, 1, 0))] * 2
    with pytest.raises(LinkLost, match="settle command c"):
        await core.deliver(link)
    assert core.delivery.held() == []


async def test_an_outcome_refused_for_good_ends_the_session(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 0)
    core.delivery.settle(an_execution()[1])
    link.outcome_answers = [Accepted("not_yours: it is")]
    with pytest.raises(LinkLost, match="settle command c"):
        await core.deliver(link)
    assert core.delivery.held() == []


async def test_an_outcome_that_nobody_waits_for_needs_no_new_session(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 0)
    core.delivery.settle(an_execution()[1])
    link.outcome_answers = [Accepted("command_not_found: no such", is_unknown=True)]
    await core.deliver(link)
    assert core.delivery.held() == []


async def test_commands_take_turns(core: AgentCore, link: RecordingLink) -> None:
    for command_id in (C, D):
        keep(core, 2, command_id, 200_000)
    await core.deliver(link)
    assert link.owners == [C, D, C, D]


async def test_no_more_is_on_its_way_than_the_window_of_a_command(
    core: AgentCore, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "COMMAND_WINDOW_BYTES", 400_000)
    keep(core, 6, size=200_000)
    serving = asyncio.create_task(core.delivery.serve(link, {}))
    await settle()
    assert link.chunks == [0, 1]
    await core.delivery.acknowledge(C, Position(1, 200_000, 0))
    await settle()
    assert link.chunks == [0, 1, 2]
    serving.cancel()
    await asyncio.wait({serving})


async def test_a_full_session_still_lets_a_quiet_command_speak(
    core: AgentCore, link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "SESSION_WINDOW_BYTES", 400_000)
    serving = asyncio.create_task(core.delivery.serve(link, {}))
    await settle()
    keep(core, 6, size=200_000)
    await settle()
    keep(core, 1, D)
    await settle()
    assert link.owners == [C, C, D]
    await core.delivery.drop(C)
    await settle()
    serving.cancel()
    await asyncio.wait({serving})
    assert [held.command_id for held in core.delivery.held()] == [D]


async def test_a_burst_is_given_time_to_leave(core: AgentCore, link: RecordingLink) -> None:
    keep(core, 8, size=262_144)
    await core.deliver(link)
    assert (len(link.chunks), link.drains) == (8, 2)


async def test_it_is_known_whether_a_controller_is_there(
    core: AgentCore, link: RecordingLink
) -> None:
    serving = asyncio.create_task(core.delivery.serve(link, {}))
    await settle()
    assert core.delivery.is_serving
    serving.cancel()
    await asyncio.wait({serving})
    assert not core.delivery.is_serving


async def test_a_lost_link_ends_the_serving(core: AgentCore, link: RecordingLink) -> None:
    keep(core, 1)
    link.lost = LinkLost("cut")
    with pytest.raises(LinkLost):
        await core.deliver(link)


async def test_a_link_that_is_lost_under_an_outcome_ends_the_serving(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 0)
    core.delivery.settle(an_execution()[1])
    link.outcome_answers = [LinkLost("cut")]
    with pytest.raises(LinkLost):
        await core.deliver(link)
    assert core.delivery.held() == [Held(C, State.EXITED, 0)]
    await core.deliver(link)
    assert core.delivery.held() == []


async def test_what_belongs_to_no_held_command_is_ignored(core: AgentCore) -> None:
    core.delivery.report(an_execution()[0])
    core.delivery.grown(C)
    await core.delivery.acknowledge(C, Position(1, 1, 0))
    await core.delivery.drop(C)
    assert (core.delivery.held(), len(core.delivery), core.spool.forgotten) == ([], 0, [])


async def test_acknowledgements_that_say_nothing_new_or_too_much_change_nothing(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 2)
    await core.deliver(link)
    for next_seq in (0, 3):
        await core.delivery.acknowledge(C, Position(next_seq, 0, 0))
    assert core.spool.acknowledged == [(C, 0)]


async def test_the_second_outcome_of_a_command_changes_nothing(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 0)
    outcome = an_execution()[1]
    core.delivery.settle(outcome)
    core.delivery.settle(replace(outcome, state=State.LOST))
    await core.deliver(link)
    assert link.outcomes == [outcome]


async def test_a_dropped_command_is_released_before_its_output_goes(core: AgentCore) -> None:
    keep(core, 1)
    await core.journal.accept(an_order(), keeper=None, now=NOW)
    core.delivery.settle(an_execution(stdout=1)[1])
    await core.delivery.drop(C)
    assert core.journal.unfinished() == []
    assert core.spool.forgotten == [C]
    await core.delivery.flushed()


async def test_the_output_of_a_command_that_is_dropped_while_it_runs_goes_at_its_end(
    core: AgentCore,
) -> None:
    keep(core, 1)
    await core.delivery.drop(C)
    assert core.spool.forgotten == []  # who follows the command is not to lose it
    core.delivery.settle(an_execution(stdout=1)[1])
    assert core.spool.forgotten == [C]


async def test_what_a_slow_link_makes_dropped_is_not_sent_on(core: AgentCore) -> None:
    class DroppingLink(RecordingLink):
        async def send_chunk(self, command_id: CommandId, chunk: Chunk) -> None:
            await super().send_chunk(command_id, chunk)
            await core.delivery.drop(command_id)

    keep(core, 4)
    link = DroppingLink()
    await core.deliver(link)
    assert link.chunks == [0]


async def test_a_report_that_was_overtaken_is_followed_by_the_newer_one(core: AgentCore) -> None:
    report, outcome = an_execution()
    newer = replace(report, state=State.PAUSED)

    class SlowLink(RecordingLink):
        async def send_report(self, report: Report) -> Accepted:
            if not self.reports:
                core.delivery.report(newer)
            return await super().send_report(report)

    link = SlowLink()
    keep(core, 0)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(core.delivery.serve(link, {}))
        core.delivery.report(report)
        while len(link.reports) < 2:
            await asyncio.sleep(0.005)  # its delay is real
        core.delivery.settle(outcome)
        await core.delivery.flushed()
        serving.cancel()
    assert link.reports == [report, newer]


async def test_a_command_that_cannot_be_told_of_costs_itself_and_one_session(
    core: AgentCore, link: RecordingLink
) -> None:
    for name in "cd":
        core.delivery.open(CommandId(name))
        core.delivery.settle(an_execution(name)[1])
    link.outcome_answers = [RuntimeError("a bug")]
    with pytest.raises(LinkLost):
        await core.deliver(link)
    assert C not in [held.command_id for held in core.delivery.held()]


async def test_a_spool_that_cannot_be_read_now_is_read_later(
    core: AgentCore, link: RecordingLink
) -> None:
    keep(core, 1)
    core.spool.failures = [SpoolUnreadable("too many open files")]
    serving = asyncio.create_task(core.delivery.serve(link, {}))
    await settle()
    assert link.chunks == []
    await core.clock.advance(delivery_module.RESEND_DELAY_S)
    assert link.chunks == [0]
    serving.cancel()
    await asyncio.wait({serving})
