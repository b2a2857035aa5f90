"""GET /commands/{command_id}/events: server-sent events."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import played, submit, taken
from tests.integration.controller.installation import Running

SHAPES = {"progress": shapes.PROGRESS, "state": shapes.REACHED, "result": shapes.RESULT}


@dataclass
class Event:
    name: str
    data: dict[str, Any]
    id: str | None


async def events(answer: httpx2.Response) -> AsyncIterator[Event]:
    """Events as they come, each held against its shape."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    rest = b""
    async for data in answer.aiter_bytes():
        *blocks, rest = (rest + data).split(b"\n\n")
        for block in blocks:
            fields = dict(line.decode().split(": ", 1) for line in block.split(b"\n"))
            event = Event(fields["event"], json.loads(fields["data"]), fields.get("id"))
            shapes.check(event.data, SHAPES[event.name])
            yield event


async def all_events(
    http: httpx2.AsyncClient, command_id: str, last: str | None = None
) -> list[Event]:
    headers = {} if last is None else {"Last-Event-ID": last}
    path = f"/commands/{command_id}/events"
    async with http.stream("GET", path, headers=headers) as answer:
        return [event async for event in events(answer)]


async def test_a_late_reader_gets_everything_and_the_end(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent, b"one\n", ("stderr", b"two\n"), b"three")
    found = await all_events(admin, command_id)
    chunks = [e for e in found if e.name == "progress"]
    assert [e.id for e in chunks] == ["0", "1", "2"]
    assert [(e.data["stream"], e.data["offset"], e.data["data"]) for e in chunks] == [
        ("stdout", 0, "one\n"),
        ("stderr", 0, "two\n"),
        ("stdout", 4, "three"),
    ]
    assert found[-1].name == "result"
    assert found[-1].data["result"]["stdout"] == "one\nthree"
    states = [e.data["state"] for e in found if e.name == "state"]
    assert states == ["queued", "dispatched", "running", "succeeded"]


async def test_a_live_reader_sees_each_chunk_as_it_is_written(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    async with admin.stream("GET", f"/commands/{run.command_id}/events") as answer:
        stream = events(answer)
        for number in range(5):
            await run.write(f"line {number}\n".encode())
            while (event := await anext(stream)).name != "progress":
                pass
            assert (event.id, event.data["data"]) == (str(number), f"line {number}\n")
        await run.end()
        assert [e.name async for e in stream] == ["state", "result"]


async def test_a_reader_that_comes_back_goes_on_after_its_last_event(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent, *[b"%d\n" % i for i in range(6)])
    found = await all_events(admin, command_id, "3")
    assert [e.id for e in found if e.name == "progress"] == ["4", "5"]
    assert found[-1].name == "result"
    assert [e for e in await all_events(admin, command_id, "99") if e.name == "progress"] == []


async def test_a_last_event_id_that_is_no_number_is_refused(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await submit(admin)
    path = f"/commands/{command_id}/events"
    for value in ("-1", "x", "9" * 30):
        answer = await admin.get(path, headers={"Last-Event-ID": value})
        shapes.check_problem(answer, 422, "validation_error")


async def test_bytes_that_are_no_text_are_there_exactly_beside_it(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent, b"\x00\xff\xfe", "grün\n\r\u2028".encode())
    found = [e.data for e in await all_events(admin, command_id) if e.name == "progress"]
    assert base64.b64decode(found[0]["data_base64"]) == b"\x00\xff\xfe"
    assert found[0]["data"] == "\x00\ufffd\ufffd"
    assert found[1]["data"] == "grün\n\r\u2028"
    assert "data_base64" not in found[1]


async def test_a_reader_is_let_go_when_the_controller_stops(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    async with admin.stream("GET", f"/commands/{run.command_id}/events") as answer:
        stream = events(answer)
        await anext(stream)
        controller.controller.lifecycle.drain()
        assert "result" not in [e.name async for e in stream]
