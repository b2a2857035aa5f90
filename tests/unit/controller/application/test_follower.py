"""Late, live and returning readers see the same chunks once, then the end."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from app.application import follower
from app.application.follower import Ended, Followed, StateReached
from app.application.use_cases.record_reports import StateReport
from app.domain.errors import CommandNotFound, OutputDamaged
from app.domain.ids import CommandId
from app.domain.models.agent import Session
from app.domain.models.command import Failure
from app.domain.models.output import Chunk, Stream
from app.domain.models.states import State
from tests.builders import (
    WEB,
    a_beginning,
    a_command,
    a_command_in,
    an_outcome_after,
    chunks_of,
)
from tests.fakes.in_memory_controller import InMemoryController

CHUNKS = chunks_of(b"one", (Stream.STDERR, b"two"), b"three", b"four")
BEGUN = StateReport(State.RUNNING, a_beginning())
LIFE = [BEGUN, *CHUNKS, an_outcome_after(CHUNKS)]
STATES = [State.QUEUED, State.DISPATCHED, State.RUNNING, State.SUCCEEDED]


async def begun(controller: InMemoryController) -> tuple[CommandId, Session]:
    """A queued command, and the session of its agent."""
    command = a_command(offered_epoch=1)
    await controller.keep(command)
    return command.id, await controller.register(WEB, command.id)


def chunks(found: list[Followed]) -> list[Chunk]:
    return [one for one in found if isinstance(one, Chunk)]


def states(found: list[Followed]) -> list[State]:
    return [one.state for one in found if isinstance(one, StateReached)]


async def all_of(
    controller: InMemoryController, command_id: CommandId, from_seq: int = 0
) -> list[Followed]:
    async with asyncio.timeout(20):
        return [one async for one in controller.follower.follow(command_id, from_seq)]


async def next_of(following: AsyncGenerator[Followed, None]) -> Followed:
    async with asyncio.timeout(20):
        return await anext(following)


async def test_a_late_reader_sees_everything(controller: InMemoryController) -> None:
    command_id, session = await begun(controller)
    await controller.report(session, command_id, *LIFE)
    found = await all_of(controller, command_id)
    assert chunks(found) == CHUNKS
    assert states(found) == STATES
    assert found[-1] == Ended(await controller.commands.get(command_id))


async def test_a_live_reader_sees_the_same(controller: InMemoryController) -> None:
    command_id, session = await begun(controller)
    reading = asyncio.create_task(all_of(controller, command_id))
    for report in LIFE:
        await asyncio.sleep(0)
        await controller.report(session, command_id, report)
    live = await reading
    assert chunks(live) == CHUNKS
    assert states(live) == STATES
    assert live[-1] == Ended(await controller.commands.get(command_id))


@pytest.mark.parametrize("from_seq", range(6))
async def test_a_returning_reader_goes_on_at_its_cursor(
    controller: InMemoryController, from_seq: int
) -> None:
    command_id, session = await begun(controller)
    await controller.report(session, command_id, *LIFE)
    found = await all_of(controller, command_id, from_seq)
    assert chunks(found) == CHUNKS[from_seq:]
    assert isinstance(found[-1], Ended)


async def test_each_chunk_is_given_as_soon_as_it_is_stored(
    controller: InMemoryController,
) -> None:
    command_id, session = await begun(controller)
    await controller.report(session, command_id, BEGUN)
    following = controller.follower.follow(command_id)
    assert [(await next_of(following)).state for _ in range(3)] == STATES[:3]
    for chunk in CHUNKS:
        await controller.report(session, command_id, chunk)
        assert await next_of(following) == chunk
    await following.aclose()


async def test_the_end_comes_after_the_last_chunk(controller: InMemoryController) -> None:
    command_id, session = await begun(controller)
    await controller.report(session, command_id, *LIFE)
    *_, last_chunk, end, ended = await all_of(controller, command_id)
    assert last_chunk == CHUNKS[-1]
    assert isinstance(end, StateReached)
    assert isinstance(ended, Ended)


async def test_pauses_are_told_as_they_come(controller: InMemoryController) -> None:
    command_id, session = await begun(controller)
    following = controller.follower.follow(command_id)
    told = [(await next_of(following)).state]
    for state in (State.DISPATCHED, State.RUNNING, State.PAUSED, State.RUNNING, State.PAUSED):
        report = StateReport(state, a_beginning() if state is not State.DISPATCHED else None)
        await controller.report(session, command_id, report)
        told.append((await next_of(following)).state)
    await following.aclose()
    assert [state.value for state in told] == [
        *("queued", "dispatched", "running", "paused", "running", "paused")
    ]


async def test_one_who_comes_while_it_is_paused_hears_how_it_got_there(
    controller: InMemoryController,
) -> None:
    command_id, session = await begun(controller)
    await controller.report(session, command_id, BEGUN, StateReport(State.PAUSED))
    following = controller.follower.follow(command_id)
    told = [(await next_of(following)).state for _ in range(4)]
    await following.aclose()
    assert told == [State.QUEUED, State.DISPATCHED, State.RUNNING, State.PAUSED]


@pytest.mark.parametrize("state", [State.PAUSED, State.RUNNING])
async def test_an_end_without_output_is_told_whatever_was_told_before(
    controller: InMemoryController, state: State
) -> None:
    command_id, session = await begun(controller)
    await controller.report(session, command_id, BEGUN, StateReport(state))
    following = controller.follower.follow(command_id)
    while (await next_of(following)).state is not state:
        pass
    await controller.report(session, command_id, an_outcome_after([], state=State.CANCELLED))
    reached, ended = await next_of(following), await next_of(following)
    assert (reached.state, ended.command.state) == (State.CANCELLED, State.CANCELLED)


async def test_what_never_started_ends_without_having_run(
    controller: InMemoryController,
) -> None:
    command = a_command_in(State.REJECTED, started_at=None)
    await controller.keep(command)
    found = await all_of(controller, command.id)
    assert states(found) == [State.QUEUED, State.DISPATCHED, State.REJECTED]


async def test_a_reader_holds_no_more_than_its_bound(
    controller: InMemoryController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "READ_MAX_BYTES", 6)
    command_id, session = await begun(controller)
    await controller.report(session, command_id, *LIFE)
    assert chunks(await all_of(controller, command_id)) == CHUNKS


async def test_an_unknown_command_is_not_found(controller: InMemoryController) -> None:
    with pytest.raises(CommandNotFound):
        await all_of(controller, CommandId("nobody"))
    with pytest.raises(CommandNotFound):
        await controller.follower.wait(CommandId("nobody"))


async def test_waiting_returns_at_the_end_and_not_before(controller: InMemoryController) -> None:
    command_id, session = await begun(controller)
    waiting = asyncio.create_task(controller.follower.wait(command_id))
    for report in LIFE[:-1]:
        await controller.report(session, command_id, report)
        await asyncio.sleep(0)
        assert not waiting.done()
    await controller.report(session, command_id, LIFE[-1])
    async with asyncio.timeout(20):
        assert (await waiting).state is State.SUCCEEDED
        assert (await controller.follower.wait(command_id)).state is State.SUCCEEDED


@pytest.mark.parametrize("read", ["follow", "wait"])
async def test_what_nobody_told_is_found_all_the_same(
    controller: InMemoryController, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    monkeypatch.setattr(follower, "LOOK_AGAIN_S", 0.01)
    command_id, _ = await begun(controller)
    reading = (
        all_of(controller, command_id) if read == "follow" else controller.follower.wait(command_id)
    )
    task = asyncio.create_task(reading)
    await asyncio.sleep(0)
    lost = Failure("lost", "nobody rings a bell")
    await controller.commands.change(
        command_id, lambda command: command.lose(lost, at=controller.clock.now())
    )
    async with asyncio.timeout(20):
        await task


async def test_a_missing_chunk_ends_the_following_instead_of_spinning(
    controller: InMemoryController,
) -> None:
    command_id, session = await begun(controller)
    await controller.record_reports(session, command_id, LIFE)
    del controller.output._chunks[command_id][1]  # as a damaged disk would
    with pytest.raises(OutputDamaged):
        async with asyncio.timeout(20):
            async for _ in controller.follower.follow(command_id):
                pass
