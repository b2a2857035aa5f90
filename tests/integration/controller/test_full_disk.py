"""Without room new work is refused, output waits at its agent, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from app.infrastructure.database.sqlite_database import SqliteDatabase, open_sqlite_database
from app.infrastructure.in_memory_room import InMemoryRoom
from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import seen, submit, taken

Open = Callable[..., Any]
MIB = 1024 * 1024


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> InMemoryRoom:
    """The room of the controller, asked for before it."""
    made = InMemoryRoom()
    monkeypatch.setattr("app.bootstrap.DiskRoom", lambda *_arguments, **_settings: made)
    monkeypatch.setattr("app.presentation.socketio.agent_namespace.LOOK_FOR_ROOM_S", 0.02)
    return made


async def test_submissions_are_refused_at_every_door_and_accepted_again(
    room: InMemoryRoom, admin: httpx2.AsyncClient, agent: ProtocolAgent, open_socket: Open
) -> None:
    room.is_there = False
    body = {"command": "echo hi", "wait": 0}
    problem = await admin.post("/agents/web-1/execute", json=body)
    shapes.check_problem(problem, 503, "storage_full")
    assert "MIN_FREE_BYTES" in problem.json()["detail"]
    socket = await open_socket()
    answer = await socket.call("execute_command", {"command": "echo hi", "agent_id": "web-1"})
    assert (answer["ok"], answer["error"]["code"]) == (False, "storage_full")
    assert (await admin.get("/commands")).json()["items"] == []
    room.is_there = True
    await submit(admin)
    await agent.next_order()


async def test_output_is_neither_stored_nor_acknowledged_until_there_is_room(
    room: InMemoryRoom, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run, other = await taken(admin, agent), await taken(admin, agent)
    await run.write(b"before ")
    await run.stored()
    room.is_there = False
    await run.write(b"meanwhile ")
    ending = asyncio.create_task(run.end())
    assert (await other.state("paused"))["ok"] is True  # came later, and passes
    assert (await other.end("failed", exit_code=3))["ok"] is True
    assert (await seen(admin, other.command_id))["state"] == "failed"
    command = await seen(admin, run.command_id)
    assert (command["state"], command["stdout_bytes"]) == ("running", 7)
    assert not ending.done()
    room.is_there = True
    assert (await ending)["ok"] is True
    output = await admin.get(f"/commands/{run.command_id}/output/stdout")
    assert output.content == b"before meanwhile "
    assert not agent.closed.is_set()


async def test_a_command_can_be_stopped_without_room(
    room: InMemoryRoom, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    room.is_there = False
    answer = await admin.post(f"/commands/{run.command_id}/control", json={"action": "cancel"})
    assert answer.status_code == 202
    assert (await agent.next_order("control"))["action"] == "cancel"
    assert (await run.end("cancelled", signal="SIGTERM"))["ok"] is True


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> list[SqliteDatabase]:
    """Every database that a controller opens; asked for before it."""
    opened: list[SqliteDatabase] = []

    @asynccontextmanager
    async def noted(path: Path) -> AsyncIterator[SqliteDatabase]:
        async with open_sqlite_database(path) as database:
            opened.append(database)
            yield database

    monkeypatch.setattr("app.bootstrap.open_sqlite_database", noted)
    namespace = "app.presentation.socketio.agent_namespace"
    monkeypatch.setattr(f"{namespace}.FULL_PAUSE_S", 0.2)
    monkeypatch.setattr(f"{namespace}.LOOK_FOR_ROOM_S", 0.02)
    return opened


async def fill(database: SqliteDatabase) -> None:
    """Let the next write find no room; SQLite then says what it says of a full disk."""
    pages = await database.write(lambda c: c.execute(text("PRAGMA page_count")).scalar_one())
    limit = text(f"PRAGMA max_page_count = {pages}")
    await database.write(lambda connection: connection.execute(limit).close())


async def test_a_disk_that_is_full_in_the_middle_of_output_ends_no_session(
    databases: list[SqliteDatabase],
    admin: httpx2.AsyncClient,
    agent: ProtocolAgent,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = await taken(admin, agent)
    data = b"0123456789abcdef" * 16 * 1024
    await run.write(data)
    await run.stored()
    await fill(databases[-1])
    for _ in range(3):
        await run.write(data)
    assert (await run.end())["ok"] is True
    assert "full" in "".join(capfd.readouterr())
    output = await admin.get(f"/commands/{run.command_id}/output/stdout")
    assert output.content == data * 4
    assert not agent.closed.is_set()


async def test_a_full_disk_does_not_hold_up_what_has_room_in_it(
    databases: list[SqliteDatabase],
    admin: httpx2.AsyncClient,
    agent: ProtocolAgent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.presentation.socketio.agent_namespace.FULL_PAUSE_S", 600)
    run, other = await taken(admin, agent), await taken(admin, agent)
    await fill(databases[-1])
    await run.write(b"0123456789abcdef" * 16 * 1024)
    ending = asyncio.create_task(run.end())
    assert (await other.end())["ok"] is True
    assert (await seen(admin, other.command_id))["state"] == "succeeded"
    assert not ending.done()
    ending.cancel()
