"""Every CommandRepository deletes what is old enough, all of it, in bounded batches."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from app.application.ports.repositories import (
    CommandFilter,
    CommandRepository,
    IdempotencyKey,
    Removal,
)
from app.domain.errors import CommandNotFound
from app.domain.ids import CommandId
from app.domain.models.command import Command
from app.domain.models.output import Chunk
from app.domain.models.states import FINAL, State
from app.infrastructure.database.sqlite_database import SqliteDatabase, open_sqlite_database
from app.infrastructure.repositories.sql_command_repository import SqlCommandRepository
from tests.builders import (
    ALICE,
    SEALED,
    a_command_in,
    an_outcome_after,
    chunks_of,
    later,
)
from tests.contract.conftest import Storage

KIB, MIB = 1024, 1024 * 1024
DAY = 24 * 3600.0
TABLES = ("commands", "run_orders", "control_orders", "chunks", "line_marks", "digest_blocks")


async def finished(commands: CommandRepository, chunks: Sequence[Chunk], at: datetime) -> CommandId:
    """A command that wrote `chunks` and ended at `at`."""
    command = a_command_in(State.RUNNING)
    await commands.add(command, SEALED)
    for start in range(0, len(chunks), 64):
        piece = chunks[start : start + 64]

        def take(found: Command, piece: Sequence[Chunk] = piece) -> None:
            for chunk in piece:
                found.append(chunk)

        await commands.change(command.id, take)
    outcome = an_outcome_after(list(chunks), finished_at=at)
    await commands.change(command.id, lambda c: c.settle(outcome, at=at) and None)
    return command.id


async def remove(
    commands: CommandRepository, before: datetime, *, max_rows: int = 100, max_bytes: int = MIB
) -> list[Removal]:
    """Batches until everything is removed."""
    removals: list[Removal] = []
    while not removals or not removals[-1].is_all:
        removals.append(
            await commands.remove_finished(before, max_rows=max_rows, max_bytes=max_bytes)
        )
        assert len(removals) < 1000
    return removals


def gone_in(removals: list[Removal]) -> list[CommandId]:
    return [command_id for removal in removals for command_id in removal.gone]


async def is_there(storage: Storage, command_id: CommandId) -> bool:
    try:
        await storage.commands.get(command_id)
    except CommandNotFound:
        return False
    return True


async def test_what_finished_before_goes_and_the_rest_stays(storage: Storage) -> None:
    ids = [await finished(storage.commands, chunks_of(b"hi"), later(n)) for n in range(5)]
    removals = await remove(storage.commands, later(3))
    assert gone_in(removals) == ids[:3]
    assert [await is_there(storage, command_id) for command_id in ids] == [False] * 3 + [True] * 2
    page = await storage.commands.page(CommandFilter(), before=None, limit=9)
    assert [command.id for command in page] == [ids[4], ids[3]]
    for command_id in ids:
        read = await storage.output.read(command_id, from_seq=0, max_bytes=9)
        assert len(read) == (command_id in ids[3:])


@pytest.mark.parametrize("state", State)
async def test_an_unfinished_command_never_goes(storage: Storage, state: State) -> None:
    command = a_command_in(state)
    await storage.commands.add(command, SEALED)
    assert gone_in(await remove(storage.commands, later(999 * DAY))) == (
        [command.id] if state in FINAL else []
    )
    assert await is_there(storage, command.id) is (state not in FINAL)


async def test_what_a_reader_just_saw_is_not_found_once_it_is_removed(storage: Storage) -> None:
    command_id = await finished(storage.commands, chunks_of(b"hi"), later(1))
    assert await is_there(storage, command_id)
    await remove(storage.commands, later(2))
    assert not await is_there(storage, command_id)
    with pytest.raises(CommandNotFound):
        await storage.commands.change(command_id, lambda command: None)
    assert await storage.output.read(command_id, from_seq=0, max_bytes=9) == []


async def test_an_output_that_is_being_removed_is_not_seen_by_halves(storage: Storage) -> None:
    long = await finished(storage.commands, chunks_of(*[b"x" * 100 * KIB] * 20), later(1))
    kept = await finished(storage.commands, chunks_of(b"kept"), later(9))
    await storage.commands.get(long)
    await storage.commands.remove_finished(later(5), max_rows=100, max_bytes=300 * KIB)
    assert not await is_there(storage, long)
    page = await storage.commands.page(CommandFilter(), before=None, limit=9)
    assert [command.id for command in page] == [kept]


@pytest.mark.parametrize(("max_rows", "max_bytes"), [(1, MIB), (3, MIB), (100, 1), (100, 5)])
async def test_batches_get_everything_however_small(
    storage: Storage, max_rows: int, max_bytes: int
) -> None:
    outputs = [[], chunks_of(b"one", b"two", b"three"), chunks_of(b"one"), []]
    ids = [await finished(storage.commands, output, later(1)) for output in outputs]
    removals = await remove(storage.commands, later(2), max_rows=max_rows, max_bytes=max_bytes)
    assert sorted(gone_in(removals)) == sorted(ids)
    assert len(removals) > 1


async def test_a_used_key_is_remembered_for_its_own_time(storage: Storage) -> None:
    command = a_command_in(State.SUCCEEDED)
    key = IdempotencyKey(ALICE, "once", "same")
    await storage.commands.add(command, SEALED, key)
    await remove(storage.commands, later(DAY / 2))
    repeat = a_command_in(State.QUEUED, created_at=later(DAY / 2))
    assert await storage.commands.add(repeat, SEALED, key) == command.id


def rows(connection: Connection) -> dict[str, int]:
    counts = {name: text(f"SELECT count(*) FROM {name}") for name in TABLES}
    return {name: connection.execute(query).scalar_one() for name, query in counts.items()}


async def test_nothing_of_a_removed_command_is_left_in_any_table(database: SqliteDatabase) -> None:
    commands = SqlCommandRepository(database)
    await finished(commands, chunks_of(*[b"x" * 256 * KIB] * 9), later(1))
    assert set((await database.read(rows)).values()) == {0, 1, 2, 9}
    await remove(commands, later(2))
    assert set((await database.read(rows)).values()) == {0}


async def test_a_batch_deletes_no_more_than_it_may(database: SqliteDatabase) -> None:
    commands = SqlCommandRepository(database)
    await finished(commands, chunks_of(*[b"x" * 100 * KIB] * 20), later(1))
    left = 20
    while not (await commands.remove_finished(later(2), max_rows=9, max_bytes=310 * KIB)).is_all:
        chunks = (await database.read(rows))["chunks"]
        assert left - chunks <= 3
        left = chunks
    assert (await database.read(rows))["commands"] == 0


async def test_the_file_shrinks_when_output_is_removed(database_path: Path) -> None:
    async with open_sqlite_database(database_path) as database:
        commands = SqlCommandRepository(database)
        before = database_path.stat().st_size
        kept = await finished(commands, chunks_of(*[b"k" * 256 * KIB] * 4), later(9))
        for _ in range(3):
            await finished(commands, chunks_of(*[b"x" * 256 * KIB] * 40), later(1))
        await database.write(lambda c: c.execute(text("PRAGMA user_version = 1")).close())
        assert database_path.stat().st_size > 25 * MIB
        removals = await remove(commands, later(5), max_rows=256, max_bytes=4 * MIB)
        assert len(removals) > 6
        assert (await commands.get(kept)).stored.next_seq == 4
    assert database_path.stat().st_size < before + 2 * MIB


@pytest.mark.parametrize(
    "ended_at", [later(-56 * 365 * 86400), later(5), later(7000 * 365 * 86400)]
)
async def test_retention_goes_by_the_controllers_time_whatever_an_agent_says(
    storage: Storage, ended_at: datetime
) -> None:
    command = a_command_in(State.RUNNING)
    await storage.commands.add(command, SEALED)
    outcome = an_outcome_after([], finished_at=ended_at)
    heard_at = later(40 * 86400)
    await storage.commands.change(command.id, lambda c: c.settle(outcome, at=heard_at) and None)
    assert gone_in(await remove(storage.commands, heard_at)) == []
    after = heard_at + timedelta(microseconds=1)
    assert gone_in(await remove(storage.commands, after)) == [command.id]
