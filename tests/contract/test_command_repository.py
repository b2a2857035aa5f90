"""Every CommandRepository keeps commands, orders and idempotency keys as the port says."""

import asyncio
import tracemalloc

import pytest

from app.application.ports.repositories import CommandFilter, IdempotencyKey, Standing
from app.domain.errors import (
    CommandNotFound,
    IdempotencyConflict,
    OutputGap,
    StaleSession,
    TooManyCommands,
)
from app.domain.events import CommandMoved
from app.domain.ids import AgentId, CommandId, ControlId, UserName
from app.domain.models.command import Command, Failure, StopFailure
from app.domain.models.order import SealedOrder
from app.domain.models.output import Missing, OutputTotals, Stream
from app.domain.models.states import Action, State
from tests.builders import (
    ALICE,
    DB,
    NOW,
    SEALED,
    WEB,
    a_chunk,
    a_command,
    a_command_in,
    a_control,
    a_session,
    an_outcome_after,
    chunks_of,
    later,
    some_facts,
)
from tests.contract.conftest import Storage

BOB = UserName("bob")


async def added(storage: Storage, *commands: Command) -> list[CommandId]:
    return [await storage.commands.add(command, SEALED) for command in commands]


async def session_of(storage: Storage, epoch: int) -> None:
    """Register the agent until its newest session is `epoch`."""
    for number in range(epoch):
        await storage.agents.change(
            WEB,
            lambda agent: agent.register("sid", some_facts(), {}, at=NOW) and None,
            create=number == 0,
        )


def key(
    word: str = "once", fingerprint: str = "same", requester: UserName = ALICE
) -> IdempotencyKey:
    return IdempotencyKey(requester, word, fingerprint)


async def test_a_command_comes_back_as_it_was_added(storage: Storage) -> None:
    command = a_command(timeout_s=1.5, offered_epoch=3, max_output_bytes=1 << 40)
    assert await storage.commands.add(command, SEALED) == command.id
    assert await storage.commands.get(command.id) == command


async def test_everything_that_may_change_comes_back(storage: Storage) -> None:
    command = a_command(offered_epoch=1)
    await added(storage, command)
    chunks = chunks_of(b"out", (Stream.STDERR, b"err"))
    outcome = an_outcome_after(
        chunks,
        state=State.FAILED,
        exit_code=None,
        signal="SIGKILL",
        stdout_written=10,
        missing=[Missing(Stream.STDOUT, 3, 7)],
        failure=Failure("killed", "it was killed"),
        stop_failure=StopFailure("stop_not_permitted", "one is left", (4711,)),
    )

    def live(found: Command) -> None:
        found.note_overrun(at=later(1))
        found.request(Action.KILL, at=later(1))
        for chunk in chunks:
            found.append(chunk)
        found.settle(outcome, at=later(9))

    changed = await storage.commands.change(command.id, live)
    assert changed.is_truncated
    assert await storage.commands.get(command.id) == changed


async def test_an_unknown_command_is_not_found(storage: Storage) -> None:
    with pytest.raises(CommandNotFound):
        await storage.commands.get(CommandId("nobody"))
    with pytest.raises(CommandNotFound):
        await storage.commands.change(CommandId("nobody"), lambda command: None)
    with pytest.raises(CommandNotFound):
        control = a_control(a_command())
        await storage.commands.request(CommandId("nobody"), control, lambda command: True)


async def test_a_change_gives_its_events_to_the_caller_alone(storage: Storage) -> None:
    command = a_command()
    await added(storage, command)
    changed = await storage.commands.change(command.id, lambda c: c.acknowledge(at=NOW))
    assert changed.pull_events() == [CommandMoved(command.id, WEB, NOW, State.DISPATCHED)]
    assert (await storage.commands.get(command.id)).pull_events() == []


async def test_what_a_change_raises_undoes_it_and_reaches_the_caller(storage: Storage) -> None:
    command = a_command()
    await added(storage, command)

    def half(found: Command) -> None:
        found.acknowledge(at=NOW)
        found.append(a_chunk())
        found.append(a_chunk(seq=7))

    with pytest.raises(OutputGap):
        await storage.commands.change(command.id, half)
    assert await storage.commands.get(command.id) == command
    assert await storage.output.read(command.id, from_seq=0, max_bytes=100) == []


async def test_nobody_changes_what_is_stored_from_outside(storage: Storage) -> None:
    command = a_command()
    await added(storage, command)
    command.acknowledge(at=NOW)
    for given in (
        await storage.commands.get(command.id),
        await storage.commands.change(command.id, lambda c: None),
        (await storage.commands.page(CommandFilter(), before=None, limit=1))[0],
        (await storage.commands.page(CommandFilter(), before=None, limit=1))[0],
    ):
        given.acknowledge(at=NOW)
    stored = await storage.commands.change(command.id, lambda c: None)
    assert stored.state is State.QUEUED


async def test_changes_happen_in_the_order_of_their_calls(storage: Storage) -> None:
    command = a_command()
    await added(storage, command)
    chunks = chunks_of(*(b"%d\n" % n for n in range(50)))

    async def append(number: int) -> None:
        await storage.commands.change(command.id, lambda c: c.append(chunks[number]) and None)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for number in range(50):
            tasks.create_task(append(number))
    assert await storage.output.read(command.id, from_seq=0, max_bytes=10_000) == chunks


async def test_a_change_for_the_newest_session_is_made(storage: Storage) -> None:
    command = a_command()
    await added(storage, command)
    await session_of(storage, 2)
    changed = await storage.commands.change(
        command.id, lambda c: c.acknowledge(at=NOW), session=a_session(2)
    )
    assert changed.state is State.DISPATCHED


@pytest.mark.parametrize("epoch", [1, 3])
async def test_a_change_for_another_session_is_not_even_tried(storage: Storage, epoch: int) -> None:
    command = a_command()
    await added(storage, command)
    await session_of(storage, 2)
    tried: list[Command] = []
    with pytest.raises(StaleSession):
        await storage.commands.change(command.id, tried.append, session=a_session(epoch))
    assert tried == []


async def test_a_change_for_a_removed_agent_is_stale(storage: Storage) -> None:
    command = a_command()
    await added(storage, command)
    with pytest.raises(StaleSession):
        await storage.commands.change(command.id, lambda c: None, session=a_session())


async def test_another_agents_command_is_not_found_whatever_the_epoch(storage: Storage) -> None:
    command = a_command(agent_id=DB)
    await added(storage, command)
    await session_of(storage, 2)
    for epoch in (1, 2):
        with pytest.raises(CommandNotFound):
            await storage.commands.change(command.id, lambda c: None, session=a_session(epoch))


async def test_a_used_key_gives_the_first_command_and_stores_nothing(storage: Storage) -> None:
    first, second = a_command(), a_command()
    await storage.commands.add(first, SEALED, key())
    assert await storage.commands.add(second, SEALED, key()) == first.id
    with pytest.raises(CommandNotFound):
        await storage.commands.get(second.id)


async def test_a_used_key_with_another_request_is_a_conflict(storage: Storage) -> None:
    first, second = a_command(), a_command()
    await storage.commands.add(first, SEALED, key())
    with pytest.raises(IdempotencyConflict):
        await storage.commands.add(second, SEALED, key(fingerprint="other"))
    with pytest.raises(CommandNotFound):
        await storage.commands.get(second.id)


async def test_the_first_of_a_key_is_found_without_storing_anything(storage: Storage) -> None:
    assert await storage.commands.first_of(key(), NOW) is None
    first = a_command()
    await storage.commands.add(first, SEALED, key())
    assert await storage.commands.first_of(key(), NOW) == first.id
    assert await storage.commands.first_of(key(requester=BOB), NOW) is None
    assert await storage.commands.first_of(key(fingerprint="other"), later(24 * 3600 + 1)) is None
    with pytest.raises(IdempotencyConflict):
        await storage.commands.first_of(key(fingerprint="other"), NOW)


async def test_keys_are_their_requesters_own(storage: Storage) -> None:
    first, second, third = a_command(), a_command(), a_command()
    await storage.commands.add(first, SEALED, key())
    assert await storage.commands.add(second, SEALED, key(requester=BOB)) == second.id
    assert await storage.commands.add(third, SEALED, key("another word")) == third.id


async def test_a_key_is_forgotten_after_a_day(storage: Storage) -> None:
    day = 24 * 3600
    first = a_command()
    await storage.commands.add(first, SEALED, key())
    within, after = a_command(created_at=later(day)), a_command(created_at=later(day + 1))
    assert await storage.commands.add(within, SEALED, key()) == first.id
    assert await storage.commands.add(after, SEALED, key(fingerprint="other")) == after.id


async def test_of_two_submissions_at_once_with_one_key_the_first_wins(storage: Storage) -> None:
    commands = [a_command() for _ in range(8)]
    async with asyncio.timeout(20):
        given = await asyncio.gather(
            *(storage.commands.add(command, SEALED, key()) for command in commands)
        )
    assert given == [commands[0].id] * 8
    assert len(await storage.commands.standings(WEB)) == 1


async def test_no_more_are_queued_for_an_agent_than_may_be(storage: Storage) -> None:
    await added(storage, a_command(), a_command_in(State.RUNNING), a_command(agent_id=DB))
    second, third = a_command(), a_command()
    await storage.commands.add(second, SEALED, key(), waiting_max=2)
    with pytest.raises(TooManyCommands):
        await storage.commands.add(third, SEALED, key("other"), waiting_max=2)
    with pytest.raises(CommandNotFound):
        await storage.commands.get(third.id)
    assert await storage.commands.add(a_command(), SEALED, key(), waiting_max=2) == second.id
    assert await storage.commands.add(third, SEALED, key("other"), waiting_max=3) == third.id


async def test_a_page_is_newest_first_and_continues_before_its_last(storage: Storage) -> None:
    ids = await added(storage, *(a_command() for _ in range(5)))
    first = await storage.commands.page(CommandFilter(), before=None, limit=3)
    second = await storage.commands.page(CommandFilter(), before=first[-1].id, limit=3)
    assert [command.id for command in first + second] == ids[::-1]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (CommandFilter(), [0, 1, 2]),
        (CommandFilter(agent_ids=[WEB]), [0, 2]),
        (CommandFilter(agent_ids=[WEB, DB]), [0, 1, 2]),
        (CommandFilter(agent_ids=[]), []),
        (CommandFilter(states=[State.SUCCEEDED, State.LOST]), [2]),
        (CommandFilter(states=[]), []),
        (CommandFilter(requester=BOB), [1]),
        (CommandFilter(agent_ids=[WEB], requester=BOB), []),
    ],
)
async def test_a_page_holds_what_is_wanted(
    storage: Storage, wanted: CommandFilter, found: list[int]
) -> None:
    ids = await added(
        storage,
        a_command(),
        a_command(agent_id=DB, requester=BOB),
        a_command_in(State.SUCCEEDED),
    )
    page = await storage.commands.page(wanted, before=None, limit=10)
    assert [command.id for command in page] == [ids[n] for n in reversed(found)]


async def test_the_largest_id_is_that_of_the_last_command_whatever_its_state(
    storage: Storage,
) -> None:
    assert await storage.commands.largest_id() is None
    first, last = a_command(), a_command_in(State.SUCCEEDED)
    await added(storage, last, first)
    assert await storage.commands.largest_id() == last.id


async def test_it_is_told_where_all_stand_that_are_not_final_oldest_first(
    storage: Storage,
) -> None:
    commands = [a_command_in(state, stored=OutputTotals(2, 3, 4)) for state in State]
    commands[0].request(Action.CANCEL, at=NOW)
    await added(storage, *commands, a_command(agent_id=DB))
    assert await storage.commands.standings(WEB) == [
        Standing(
            command.id,
            command.state,
            1,
            Action.CANCEL if command is commands[0] else None,
            OutputTotals(2, 3, 4),
        )
        for command in commands[:4]
    ]
    (other,) = await storage.commands.standings(DB)
    assert (other.offered_epoch, other.stored) == (None, OutputTotals())


async def test_where_commands_stand_is_told_without_their_texts(storage: Storage) -> None:
    await added(storage, *(a_command(text=f"{number}" + "x" * 65_000) for number in range(50)))
    tracemalloc.start()
    try:
        assert len(await storage.commands.standings(WEB)) == 50
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


async def test_unfinished_commands_are_counted_by_agent(storage: Storage) -> None:
    await added(storage, a_command(), a_command_in(State.PAUSED), a_command(agent_id=DB))
    await added(storage, a_command_in(State.FAILED, agent_id=AgentId("idle")))
    assert await storage.commands.count_unfinished() == {WEB: 2, DB: 1}


async def test_queued_runs_are_the_agents_in_order_with_their_orders(storage: Storage) -> None:
    sealed = SealedOrder(b"\x00\xff", b"\x01", "key")
    first, second = a_command(offered_epoch=1), a_command()
    await storage.commands.add(first, sealed)
    await added(storage, second, a_command(agent_id=DB), a_command_in(State.DISPATCHED))
    runs = await storage.commands.queued_runs(WEB, after=None, limit=10)
    assert [(run.command_id, run.offered_epoch) for run in runs] == [
        (first.id, 1),
        (second.id, None),
    ]
    assert runs[0].sealed == sealed


async def test_queued_runs_are_read_on_from_the_last(storage: Storage) -> None:
    ids = await added(storage, *(a_command() for _ in range(5)))
    first = await storage.commands.queued_runs(WEB, after=None, limit=2)
    rest = await storage.commands.queued_runs(WEB, after=first[-1].command_id, limit=10)
    assert [run.command_id for run in first] == ids[:2]
    assert [run.command_id for run in rest] == ids[2:]


async def test_a_control_is_pending_with_the_state_its_command_has_now(storage: Storage) -> None:
    command = a_command(offered_epoch=1)
    await added(storage, command)
    control = a_control(command)
    await storage.commands.request(command.id, control, lambda c: c.request(Action.CANCEL, at=NOW))
    assert await storage.commands.pending_controls(WEB) == [control]
    await storage.commands.change(command.id, lambda c: c.acknowledge(at=NOW))
    (pending,) = await storage.commands.pending_controls(WEB)
    assert pending.state is State.DISPATCHED


async def test_pending_controls_are_the_agents_own_oldest_first(storage: Storage) -> None:
    mine, also = a_command(offered_epoch=1), a_command(offered_epoch=1)
    other = a_command(agent_id=DB, offered_epoch=1)
    await added(storage, mine, also, other)
    controls = [a_control(mine), a_control(other), a_control(also)]
    for control in controls:
        await storage.commands.request(control.command_id, control, lambda c: True)
    assert await storage.commands.pending_controls(WEB) == [controls[0], controls[2]]


async def test_a_newer_control_takes_the_place_of_one_that_waits(storage: Storage) -> None:
    command = a_command(offered_epoch=1)
    await added(storage, command)
    controls = [a_control(command) for _ in range(5)]
    for control in controls:
        await storage.commands.request(command.id, control, lambda c: True)
    assert await storage.commands.pending_controls(WEB) == [controls[-1]]


async def test_overdue_are_the_queued_ones_that_nobody_was_offered(storage: Storage) -> None:
    late = [a_command(expires_at=NOW) for _ in range(3)]
    offered = a_command(expires_at=NOW, offered_epoch=1)
    await added(storage, *late, offered, a_command(), a_command_in(State.REJECTED, expires_at=NOW))
    assert await storage.commands.overdue(NOW, limit=2) == [command.id for command in late[:2]]
    assert await storage.commands.overdue(NOW, limit=9) == [command.id for command in late]


async def test_a_request_that_needs_no_telling_keeps_no_control(storage: Storage) -> None:
    command = a_command()
    await added(storage, command)
    changed = await storage.commands.request(
        command.id, a_control(command), lambda c: c.request(Action.CANCEL, at=NOW)
    )
    assert changed.state is State.CANCELLED
    assert await storage.commands.pending_controls(WEB) == []


async def test_a_request_that_raises_keeps_nothing(storage: Storage) -> None:
    command = a_command()
    await added(storage, command)

    def refuse(found: Command) -> bool:
        found.requested_action = Action.PAUSE
        raise OutputGap("no")

    with pytest.raises(OutputGap):
        await storage.commands.request(command.id, a_control(command), refuse)
    assert await storage.commands.pending_controls(WEB) == []
    assert (await storage.commands.get(command.id)).requested_action is None


async def test_a_dropped_control_is_gone_and_dropping_it_again_harmless(storage: Storage) -> None:
    one, other = a_command(offered_epoch=1), a_command(offered_epoch=1)
    await added(storage, one, other)
    controls = [a_control(one), a_control(other)]
    for control in controls:
        await storage.commands.request(control.command_id, control, lambda c: True)
    await storage.commands.drop_control(controls[0].control_id)
    await storage.commands.drop_control(controls[0].control_id)
    await storage.commands.drop_control(ControlId("nobody"))
    assert await storage.commands.pending_controls(WEB) == [controls[1]]


async def test_a_final_commands_controls_are_dropped_with_it(storage: Storage) -> None:
    command, other = a_command(offered_epoch=1), a_command(offered_epoch=1)
    await added(storage, command, other)
    for found in (command, other):
        await storage.commands.request(
            found.id, a_control(found), lambda c: c.request(Action.CANCEL, at=NOW)
        )
    await storage.commands.change(command.id, lambda c: c.lose(Failure("x", "y"), at=NOW))
    (pending,) = await storage.commands.pending_controls(WEB)
    assert pending.command_id == other.id
