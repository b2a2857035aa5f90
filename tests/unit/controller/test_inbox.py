"""Frames of one session wait in order, also when they come back because nothing was stored."""

import asyncio

from app.application.use_cases.record_reports import StateReport
from app.domain.ids import CommandId
from app.domain.models.states import State
from app.presentation.socketio.inbox import Inbox, Waiting

ONE, OTHER = CommandId("one"), CommandId("other")


def frame(command_id: CommandId, size: int = 0) -> Waiting:
    recorded = asyncio.get_running_loop().create_future()
    return Waiting(command_id, StateReport(State.RUNNING), size, recorded)


async def test_without_room_for_output_what_follows_it_waits_as_well() -> None:
    inbox = Inbox()
    frames = [frame(ONE), frame(ONE, 7), frame(OTHER), frame(ONE), frame(OTHER)]
    for waiting in frames:
        inbox.put(waiting)
    assert inbox.take_without_output() == [frames[2], frames[4]]
    assert inbox.take_without_output() == []
    assert await inbox.take() == [frames[0], frames[1], frames[3]]


async def test_an_inbox_that_is_emptied_waits_for_the_next_frame() -> None:
    inbox = Inbox()
    inbox.put(frame(ONE))
    inbox.take_without_output()
    arrived = asyncio.create_task(inbox.arrived())
    await asyncio.sleep(0)
    assert not arrived.done()
    inbox.put(frame(ONE))
    async with asyncio.timeout(20):
        await arrived


async def test_what_comes_back_is_before_what_came_since() -> None:
    inbox = Inbox()
    first = [frame(ONE), frame(ONE, 7)]
    for waiting in first:
        inbox.put(waiting)
    taken = await inbox.take()
    since = frame(ONE)
    inbox.put(since)
    inbox.put_back(taken)
    assert await inbox.take() == [*first, since]


async def test_what_comes_back_to_a_session_that_is_over_is_told_so() -> None:
    inbox = Inbox()
    waiting = frame(ONE)
    inbox.put(waiting)
    taken = await inbox.take()
    inbox.close()
    inbox.put_back(taken)
    assert waiting.recorded is not None
    assert waiting.recorded.cancelled()
