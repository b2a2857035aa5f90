import asyncio
from dataclasses import replace

import pytest

from agent.application import delivery as delivery_module
from agent.application.ports.controller_link import Accepted, Held, Incomplete
from agent.domain.errors import LinkLost, NotAcknowledged
from agent.domain.ids import CommandId
from agent.domain.models.execution import Execution, Outcome, Report, State
from agent.domain.models.executor import ExecutionType, Place
from agent.domain.models.output import Chunk, Position, Transcript
from agent.infrastructure.storage.in_memory_spool import InMemorySpool
from tests.fakes.agent_ports import NOW, AgentCore, C, RecordingLink, a_chunk, an_order, settle

D = CommandId("d")
LOCAL = Place(ExecutionType.LOCAL)


@pytest.fixture
def core() -> AgentCore:
    return AgentCore()


@pytest.fixture
def link() -> RecordingLink:
    return RecordingLink()


def an_execution(command_id: str = "c") -> tuple[Report, Outcome]:
    execution = Execution(order=an_order(command_id))
    report = execution.start(LOCAL, at=NOW)
    return report, execution.end(State.EXITED, Transcript(0).totals(), at=NOW)


async def keep(core: AgentCore, count: int, command_id: CommandId = C) -> None:
    core.delivery.open(command_id)
    for seq in range(count):
        await core.delivery.append(command_id, a_chunk(seq))


async def test_chunks_are_sent_in_order_and_kept_until_acknowledged(
    core: AgentCore, link: RecordingLink
) -> None:
    await keep(core, 3)
    await core.deliver(link)
    assert link.chunks == [0, 1, 2]
    assert core.spool.size == 3
    await core.delivery.acknowledge(C, Position(2, 2, 0))
    assert core.spool.size == 1


async def test_a_new_session_goes_on_from_where_the_controller_says(
    core: AgentCore, link: RecordingLink
) -> None:
    await keep(core, 4)
    await core.delivery.acknowledge(C, Position(1, 1, 0))
    await core.deliver(link)
    await core.deliver(link, {C: Position(3, 3, 0)})
    assert link.chunks == [1, 2, 3, 3]
    assert core.spool.size == 1


async def test_a_controller_that_has_less_than_it_acknowledged_cannot_be_served(
    core: AgentCore, link: RecordingLink
) -> None:
    await keep(core, 2)
    await core.delivery.acknowledge(C, Position(2, 2, 0))
    with pytest.raises(LinkLost, match="settle command c"):
        await core.deliver(link, {C: Position(0, 0, 0)})
    assert (link.sent, core.delivery.held()) == ([], [])


async def test_an_outcome_follows_its_chunks_and_ends_the_matter(
    core: AgentCore, link: RecordingLink
) -> None:
    await keep(core, 2)
    report, outcome = an_execution()
    core.delivery.report(report)
    core.delivery.settle(outcome)
    await core.deliver(link)
    assert link.chunks == [0, 1]
    assert link.sent[-1] == outcome
    assert link.reports == []
    assert core.delivery.held() == []
    await core.delivery.flushed()


async def test_a_report_is_sent_where_the_outcome_does_not_come_soon(
    core: AgentCore, link: RecordingLink
) -> None:
    await keep(core, 0)
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
    await keep(core, 1)
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
    await keep(core, 0)
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
    await keep(core, 3)
    core.delivery.settle(an_execution()[1])
    link.outcome_answers = [Incomplete(Position(1, 1, 0))]
    await core.deliver(link)
    assert link.chunks == [0, 1, 2, 1, 2]
    assert core.delivery.held() == []


async def test_a_controller_that_has_all_and_disagrees_ends_the_matter(
    core: AgentCore, link: RecordingLink
) -> None:
    await keep(core, 1)
    core.delivery.settle(an_execution()[1])
    link.outcome_answers = [Incomplete(Position(1, 1, 0))]
    with pytest.raises(LinkLost, match="settle command c"):
        await core.deliver(link)
    assert core.delivery.held() == []


async def test_an_outcome_refused_for_good_ends_the_session(
    core: AgentCore, link: RecordingLink
) -> None:
    await keep(core, 0)
    core.delivery.settle(an_execution()[1])
    link.outcome_answers = [Accepted("not_yours: it is")]
    with pytest.raises(LinkLost, match="settle command c"):
        await core.deliver(link)
    assert core.delivery.held() == []


async def test_an_outcome_that_nobody_waits_for_needs_no_new_session(
    core: AgentCore, link: RecordingLink
) -> None:
    await keep(core, 0)
    core.delivery.settle(an_execution()[1])
    link.outcome_answers = [Accepted("command_not_found: no such", is_unknown=True)]
    await core.deliver(link)
    assert core.delivery.held() == []


async def test_commands_take_turns(core: AgentCore, link: RecordingLink) -> None:
    big = b"x" * 200_000
    for command_id in (C, D):
        core.delivery.open(command_id)
        for seq in range(2):
            await core.delivery.append(command_id, a_chunk(seq, big, seq * len(big)))
    await core.deliver(link)
    assert link.owners == [C, D, C, D]


async def test_no_more_is_on_its_way_than_the_window_of_a_command(
    link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "COMMAND_WINDOW_BYTES", 400_000)
    core = AgentCore(spool=InMemorySpool(1 << 24))
    core.delivery.open(C)
    for seq in range(6):
        await core.delivery.append(C, a_chunk(seq, b"x" * 200_000, seq * 200_000))
    serving = asyncio.create_task(core.delivery.serve(link, {}))
    await settle()
    assert link.chunks == [0, 1]
    await core.delivery.acknowledge(C, Position(1, 200_000, 0))
    await settle()
    assert link.chunks == [0, 1, 2]
    serving.cancel()
    await asyncio.wait({serving})


async def test_a_full_session_still_lets_a_quiet_command_speak(
    link: RecordingLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "SESSION_WINDOW_BYTES", 400_000)
    core = AgentCore(spool=InMemorySpool(1 << 24))
    serving = asyncio.create_task(core.delivery.serve(link, {}))
    await settle()
    core.delivery.open(C)
    for seq in range(6):
        await core.delivery.append(C, a_chunk(seq, b"x" * 200_000, seq * 200_000))
    await settle()
    await keep(core, 1, D)
    await settle()
    assert link.owners == [C, C, D]
    await core.delivery.drop(C)
    await settle()
    serving.cancel()
    await asyncio.wait({serving})
    assert [held.command_id for held in core.delivery.held()] == [D]


async def test_a_burst_is_given_time_to_leave(link: RecordingLink) -> None:
    core = AgentCore(spool=InMemorySpool(1 << 24))
    core.delivery.open(C)
    for seq in range(8):
        await core.delivery.append(C, a_chunk(seq, b"x" * 262_144, seq * 262_144))
    await core.deliver(link)
    assert (len(link.chunks), link.drains) == (8, 2)


async def test_a_lost_link_ends_the_serving(core: AgentCore, link: RecordingLink) -> None:
    await keep(core, 1)
    link.lost = LinkLost("cut")
    with pytest.raises(LinkLost):
        await core.deliver(link)


async def test_a_link_that_is_lost_under_an_outcome_ends_the_serving(
    core: AgentCore, link: RecordingLink
) -> None:
    await keep(core, 0)
    core.delivery.settle(an_execution()[1])
    link.outcome_answers = [LinkLost("cut")]
    with pytest.raises(LinkLost):
        await core.deliver(link)
    assert core.delivery.held() == [Held(C, State.EXITED, 0)]
    await core.deliver(link)
    assert core.delivery.held() == []


async def test_what_belongs_to_no_held_command_is_ignored(core: AgentCore) -> None:
    report, outcome = an_execution()
    core.delivery.report(report)
    core.delivery.settle(outcome)
    await core.delivery.append(C, a_chunk(0))
    await core.delivery.acknowledge(C, Position(1, 1, 0))
    await core.delivery.drop(C)
    assert (core.delivery.held(), core.spool.size) == ([], 0)


async def test_acknowledgements_that_say_nothing_new_or_too_much_change_nothing(
    core: AgentCore,
) -> None:
    await keep(core, 2)
    for next_seq in (0, 3):
        await core.delivery.acknowledge(C, Position(next_seq, 0, 0))
    assert core.spool.size == 2


async def test_a_drop_frees_who_waits_for_room() -> None:
    core = AgentCore(spool=InMemorySpool(1))
    core.delivery.open(D)
    await keep(core, 1)
    waiting = asyncio.create_task(core.delivery.append(C, a_chunk(1)))
    await settle()
    assert not waiting.done()
    await core.delivery.drop(C)
    await waiting
    assert [held.command_id for held in core.delivery.held()] == [D]
    assert core.spool.size == 0


async def test_what_was_acknowledged_while_it_was_read_is_not_sent(core: AgentCore) -> None:
    class AcknowledgingLink(RecordingLink):
        async def send_chunk(self, command_id: CommandId, chunk: Chunk) -> None:
            await super().send_chunk(command_id, chunk)
            await core.delivery.acknowledge(command_id, Position(3, 3, 0))

    await keep(core, 4)
    link = AcknowledgingLink()
    await core.deliver(link)
    assert link.chunks == [0, 3]


async def test_a_report_that_was_overtaken_is_followed_by_the_newer_one(core: AgentCore) -> None:
    report, outcome = an_execution()
    newer = replace(report, state=State.PAUSED)

    class SlowLink(RecordingLink):
        async def send_report(self, report: Report) -> Accepted:
            if not self.reports:
                core.delivery.report(newer)
            return await super().send_report(report)

    link = SlowLink()
    await keep(core, 0)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(core.delivery.serve(link, {}))
        core.delivery.report(report)
        while len(link.reports) < 2:
            await asyncio.sleep(0.005)  # its delay is real
        core.delivery.settle(outcome)
        await core.delivery.flushed()
        serving.cancel()
    assert link.reports == [report, newer]
