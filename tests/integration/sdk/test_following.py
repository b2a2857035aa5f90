"""Following over real HTTP, with cuts, repeats and gaps."""

import asyncio
from contextlib import aclosing

import pytest

from ogent.client import Chunk, Client, Finished, StateChange
from ogent.client.errors import CommandNotFound, ConnectionFailed, OutputGap
from tests.fakes.scripted_controller import Script, ScriptedCommand

BINARY = bytes(range(256))


async def collect(client: Client, command_id: str, from_seq: int = 0):
    async with asyncio.timeout(40):
        return [event async for event in client.follow(command_id, from_seq)]


def ended(controller, count: int = 20) -> ScriptedCommand:
    chunks = [("stdout" if n % 3 else "stderr", f"{n} ä\n".encode() + BINARY) for n in range(count)]
    controller.scripts["x"] = Script(chunks)
    return controller.start("x")


def seqs(events) -> list[int]:
    return [event.seq for event in events if isinstance(event, Chunk)]


def stream_bytes(events, stream: str) -> bytes:
    return b"".join(e.data for e in events if isinstance(e, Chunk) and e.stream == stream)


async def test_every_byte_comes_once_and_the_result_last(client, controller):
    command = ended(controller)
    events = await collect(client, "cmd-1")
    assert seqs(events) == list(range(20))
    assert stream_bytes(events, "stdout") == command.of("stdout")
    assert stream_bytes(events, "stderr") == command.of("stderr")
    assert isinstance(events[-1], Finished)
    assert events[-1].result.exit_code == 0


async def test_offsets_count_within_their_stream(client, controller):
    command = ended(controller)
    for event in await collect(client, "cmd-1"):
        if isinstance(event, Chunk):
            assert command.of(event.stream)[event.offset :].startswith(event.data)


async def test_states_are_given_when_they_change(client, controller):
    ended(controller, 1)
    controller.cuts = [5, 420]
    states = [e.state for e in await collect(client, "cmd-1") if isinstance(e, StateChange)]
    assert states == ["dispatched", "running", "succeeded"]


async def test_every_pause_and_resumption_is_given(client, controller):
    command = controller.start("live")
    async with asyncio.timeout(40), aclosing(client.follow("cmd-1")) as events:
        assert [(await anext(events)).state for _ in "12"] == ["dispatched", "running"]
        for state in ("paused", "running", "paused", "running"):
            command.move(state)
            assert (await anext(events)).state == state


async def test_live_output_comes_as_it_is_written(client, controller):
    command = controller.start("live")
    async with asyncio.timeout(40), aclosing(client.follow("cmd-1")) as events:
        assert [(await anext(events)).state for _ in "12"] == ["dispatched", "running"]
        for number in range(5):
            command.write("stdout", b"%d\n" % number)
            event = await anext(events)
            assert isinstance(event, Chunk)
            assert event.data == b"%d\n" % number


async def test_following_may_begin_in_the_middle(client, controller):
    ended(controller)
    assert seqs(await collect(client, "cmd-1", from_seq=15)) == [15, 16, 17, 18, 19]


async def test_cuts_in_the_middle_of_events_lose_and_repeat_nothing(client, controller):
    command = ended(controller)
    controller.cuts = [3, 400, 1000, 3217, 5500]
    events = await collect(client, "cmd-1")
    assert seqs(events) == list(range(20))
    assert stream_bytes(events, "stdout") == command.of("stdout")
    asked = controller.asked("/commands/cmd-1/events")
    assert len(asked) == 6
    assert "last-event-id" not in asked[0]
    assert int(asked[-1]["last-event-id"]) > 0


async def test_chunks_that_come_again_after_a_cut_are_dropped(client, controller):
    ended(controller)
    controller.cuts = [4000]
    controller.repeats = 4
    assert seqs(await collect(client, "cmd-1")) == list(range(20))


async def test_a_gap_is_asked_for_again_and_then_told(client, controller):
    ended(controller)
    controller.skipped = {7, 8}
    with pytest.raises(OutputGap, match="from chunk 7 to 8") as caught:
        await collect(client, "cmd-1")
    assert (caught.value.expected, caught.value.got) == (7, 9)
    asked = controller.asked("/commands/cmd-1/events")
    assert [headers.get("last-event-id") for headers in asked] == [None, "6"]


async def test_interruptions_are_told_before_they_are_resumed(client, controller):
    ended(controller)
    controller.cuts = [500, 500]
    told = []
    async with asyncio.timeout(40):
        async for _ in client.follow("cmd-1", on_interruption=told.append):
            pass
    assert [type(error) for error in told] == [ConnectionFailed, ConnectionFailed]


async def test_a_controller_that_stays_away_is_told_after_resume_for(url, controller):
    ended(controller)
    controller.cuts = [0] * 1000
    async with Client(url, token="good-token", resume_for=0.0) as client:
        with pytest.raises(ConnectionFailed):
            await collect(client, "cmd-1")


async def test_an_unknown_command_is_told_at_once(client):
    with pytest.raises(CommandNotFound):
        await collect(client, "cmd-9")


async def test_a_megabyte_without_a_newline_arrives_whole(client, controller):
    big = b"x" * 250_000
    controller.scripts["big"] = Script([("stdout", big)] * 4)
    controller.start("big")
    controller.cuts = [600_000]
    assert stream_bytes(await collect(client, "cmd-1"), "stdout") == big * 4
