"""Writes share transactions without sharing their failures, and a full disk is told to all."""

import asyncio
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from app.domain.errors import StorageFull, StorageUnavailable
from app.infrastructure.database import sqlite_database
from app.infrastructure.database.sqlite_database import SqliteDatabase, open_sqlite_database

ROOM_PAGES = 4


class Refused(Exception):
    """What a work raises of itself."""


def insert(name: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(text(f"INSERT INTO notes (name) VALUES ('{name}')"))
        return name

    return work


def refuse(name: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        insert(name)(connection)
        raise Refused(name)

    return work


def names(connection: Connection) -> list[str]:
    return [row.name for row in connection.execute(text("SELECT name FROM notes ORDER BY rowid"))]


def committed(path: Path) -> list[str]:
    """What another connection finds in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM notes ORDER BY rowid")]


@pytest.fixture
async def notes(database: SqliteDatabase) -> SqliteDatabase:
    """A database with a table of notes."""
    create = text("CREATE TABLE notes (name TEXT UNIQUE NOT NULL, body BLOB)")
    await database.write(lambda connection: connection.execute(create).close())
    return database


class Gate:
    """A work that holds the writer, so that what follows waits and becomes one group."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, _connection: Connection) -> None:
        self.entered.set()
        assert self.open.wait(20)

    async def group(
        self, database: SqliteDatabase, works: list[Callable[[Connection], object]]
    ) -> list[object]:
        """Outcomes of `works`, all of which waited before the first began."""
        async with asyncio.timeout(20):
            held = asyncio.create_task(database.write(self))
            await asyncio.to_thread(self.entered.wait, 20)
            tasks = [asyncio.create_task(database.write(work)) for work in works]
            await asyncio.sleep(0)  # each of them puts its work into the queue
            self.open.set()
            await held
            return await asyncio.gather(*tasks, return_exceptions=True)


async def test_works_run_in_the_order_of_their_calls(notes: SqliteDatabase) -> None:
    words = [f"note {number}" for number in range(500)]
    assert await Gate().group(notes, [insert(word) for word in words]) == words
    assert await notes.read(names) == words


async def test_a_work_that_raises_undoes_itself_alone(notes: SqliteDatabase) -> None:
    works = [insert("one"), refuse("two"), insert("three")]
    one, two, three = await Gate().group(notes, works)
    assert (one, three) == ("one", "three")
    assert isinstance(two, Refused)
    assert await notes.read(names) == ["one", "three"]


async def test_an_exception_that_a_work_returns_is_a_value(notes: SqliteDatabase) -> None:
    value = Refused("only a value")
    assert await notes.write(lambda connection: value) is value


async def test_what_waited_shares_one_transaction(
    notes: SqliteDatabase, database_path: Path
) -> None:
    seen: list[list[str]] = []

    def look(_connection: Connection) -> None:
        seen.append(committed(database_path))

    await Gate().group(notes, [insert("one"), look, insert("two")])
    assert seen == [[]]
    assert await notes.read(names) == ["one", "two"]


async def test_a_write_is_on_disk_when_it_returns(
    notes: SqliteDatabase, database_path: Path
) -> None:
    await notes.write(insert("kept"))
    assert committed(database_path) == ["kept"]


async def test_a_cancelled_write_that_waits_is_not_run(notes: SqliteDatabase) -> None:
    gate = Gate()

    async def given_up() -> None:
        async with asyncio.timeout(0):
            await notes.write(insert("never"))

    async with asyncio.timeout(20):
        held = asyncio.create_task(notes.write(gate))
        await asyncio.to_thread(gate.entered.wait, 20)
        with pytest.raises(TimeoutError):
            await given_up()
        gate.open.set()
        await held
    assert await notes.read(names) == []


async def test_a_closing_database_finishes_what_waits(database_path: Path) -> None:
    words = [f"note {number}" for number in range(300)]
    async with asyncio.timeout(20):
        async with open_sqlite_database(database_path) as database:
            await database.write(lambda c: c.execute(text("CREATE TABLE notes (name)")).close())
            tasks = [asyncio.create_task(database.write(insert(word))) for word in words]
            await asyncio.sleep(0)
        assert await asyncio.gather(*tasks) == words
    async with open_sqlite_database(database_path) as database:
        assert await database.read(names) == words


async def test_a_read_changes_nothing(notes: SqliteDatabase) -> None:
    with pytest.raises(StorageUnavailable):
        await notes.read(insert("sneaked in"))
    assert await notes.read(names) == []


async def test_a_reader_is_not_held_up_by_a_writer(notes: SqliteDatabase) -> None:
    gate = Gate()
    async with asyncio.timeout(20):
        held = asyncio.create_task(notes.write(gate))
        await asyncio.to_thread(gate.entered.wait, 20)
        assert await notes.read(names) == []
        gate.open.set()
        await held


def limit_size(connection: Connection) -> None:
    """Make the file full, but for a few pages: SQLite then says what it says of a full disk."""
    pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    connection.execute(text(f"PRAGMA max_page_count = {pages + ROOM_PAGES}")).close()


def fill(connection: Connection) -> None:
    connection.execute(text("INSERT INTO notes VALUES ('big', zeroblob(1000000))"))


async def test_a_full_disk_is_told_to_everybody_in_the_group(notes: SqliteDatabase) -> None:
    await notes.write(limit_size)
    outcomes = await Gate().group(notes, [insert("before"), fill, insert("after")])
    assert [type(outcome) for outcome in outcomes] == [StorageFull] * 3
    assert await notes.read(names) == []


async def test_there_is_life_after_a_full_disk(notes: SqliteDatabase) -> None:
    await notes.write(limit_size)
    with pytest.raises(StorageFull):
        await notes.write(fill)
    assert await notes.write(insert("small")) == "small"
    assert await notes.read(names) == ["small"]


async def test_a_database_that_another_process_damaged_is_unavailable(
    notes: SqliteDatabase,
) -> None:
    drop = text("DROP TABLE notes")
    await notes.write(lambda connection: connection.execute(drop).close())
    with pytest.raises(StorageUnavailable):
        await notes.write(insert("where to"))
    with pytest.raises(StorageUnavailable):
        await notes.read(names)


async def test_a_broken_constraint_undoes_its_own_work_alone(notes: SqliteDatabase) -> None:
    outcomes = await Gate().group(notes, [insert("one"), insert("one"), insert("three")])
    assert outcomes[0] == "one"
    assert isinstance(outcomes[1], StorageUnavailable)
    assert outcomes[2] == "three"


async def test_a_write_after_the_end_is_refused(database_path: Path) -> None:
    async with open_sqlite_database(database_path) as database:
        pass
    with pytest.raises(StorageUnavailable):
        async with asyncio.timeout(20):
            await database.write(names)


async def test_a_read_after_the_end_is_refused(database_path: Path) -> None:
    async with open_sqlite_database(database_path) as database:
        pass
    with pytest.raises(StorageUnavailable):
        async with asyncio.timeout(20):
            await database.read(names)


async def test_a_writer_that_dies_stops_the_process_and_leaves_nobody_waiting(
    notes: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)

    def die(writer: object, group: object) -> list[object]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(sqlite_database._Writer, "write", die)
    async with asyncio.timeout(20):
        for _ in range(2):  # the one that it dies of, and one that comes afterwards
            with pytest.raises(StorageUnavailable):
                await notes.write(names)
            await stopped.wait()
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
