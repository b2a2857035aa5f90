"""Every CommandRepository gives a command the digests of exactly what is stored of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from app.application.ports.repositories import CommandRepository
from app.domain.errors import OutputGap, StorageFull
from app.domain.ids import CommandId
from app.domain.models.command import Command, Outcome, Settlement
from app.domain.models.output import Chunk, Stream
from app.domain.models.states import State
from app.infrastructure.database.sqlite_database import SqliteDatabase, open_sqlite_database
from app.infrastructure.repositories import sql_digests
from app.infrastructure.repositories.sql_command_repository import SqlCommandRepository
from tests.builders import SEALED, a_chunk, a_command_in, an_outcome_after, chunks_of, later
from tests.contract.conftest import Storage

KIB = 1024
#: Two and a bit blocks of one stream, and a little of the other.
CHUNKS = chunks_of(
    *(bytes([number]) * (250 * KIB) for number in range(9)), (Stream.STDERR, b"!"), b"end"
)
OTHER = [*CHUNKS[:-1], replace(CHUNKS[-1], data=b"END")]


async def kept(storage: Storage, *chunks: Chunk) -> CommandId:
    """A running command that wrote `chunks`, one transaction each."""
    command = a_command_in(State.RUNNING)
    await storage.commands.add(command, SEALED)
    for chunk in chunks:
        await append(storage.commands, command.id, chunk)
    return command.id


async def append(commands: CommandRepository, command_id: CommandId, chunk: Chunk) -> None:
    await commands.change(command_id, lambda found: found.append(chunk) and None)


async def settle(
    commands: CommandRepository, command_id: CommandId, outcome: Outcome
) -> Settlement:
    settled: list[Settlement] = []

    def apply(command: Command) -> None:
        settled.append(command.settle(outcome, at=later(9)))

    await commands.change(command_id, apply)
    return settled[-1]


async def test_an_outcome_is_taken_for_the_bytes_that_are_stored_and_no_other(
    storage: Storage,
) -> None:
    command_id = await kept(storage, *CHUNKS)
    other = await settle(storage.commands, command_id, an_outcome_after(OTHER))
    assert other is Settlement.DIGEST_MISMATCH
    same = await settle(storage.commands, command_id, an_outcome_after(CHUNKS))
    assert same is Settlement.TAKEN


async def test_what_a_change_raises_leaves_the_digests_as_they_were(storage: Storage) -> None:
    command_id = await kept(storage, *CHUNKS[:5])

    def half(found: Command) -> None:
        found.append(a_chunk(seq=5, offset=CHUNKS[5].offset, data=b"never stored"))
        found.append(a_chunk(seq=77))

    with pytest.raises(OutputGap):
        await storage.commands.change(command_id, half)
    for chunk in CHUNKS[5:]:
        await append(storage.commands, command_id, chunk)
    assert await settle(storage.commands, command_id, an_outcome_after(CHUNKS)) is Settlement.TAKEN


async def test_a_control_in_between_does_not_harm_them(storage: Storage) -> None:
    command_id = await kept(storage, *CHUNKS[:3])
    await storage.commands.change(command_id, lambda found: found.offer(7))
    await storage.commands.get(command_id)
    for chunk in CHUNKS[3:]:
        await append(storage.commands, command_id, chunk)
    assert await settle(storage.commands, command_id, an_outcome_after(CHUNKS)) is Settlement.TAKEN


@pytest.mark.parametrize("before", [1, 5, 9, 11])
async def test_after_a_restart_a_digest_goes_on(database_path: Path, before: int) -> None:
    async with open_sqlite_database(database_path) as database:
        commands = SqlCommandRepository(database)
        command = a_command_in(State.RUNNING)
        await commands.add(command, SEALED)
        for chunk in CHUNKS[:before]:
            await append(commands, command.id, chunk)
    async with open_sqlite_database(database_path) as database:
        commands = SqlCommandRepository(database)
        for chunk in CHUNKS[before:]:
            await append(commands, command.id, chunk)
        assert await settle(commands, command.id, an_outcome_after(CHUNKS)) is Settlement.TAKEN


async def test_after_a_restart_no_more_than_a_block_of_a_stream_is_read(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = SqlCommandRepository(database)
    command = a_command_in(State.RUNNING)
    await commands.add(command, SEALED)
    for chunk in CHUNKS:
        await append(commands, command.id, chunk)
    read: list[int] = []
    whole = sql_digests.stored_bytes

    def counted(*arguments: object) -> list[bytes]:
        pieces = whole(*arguments)  # type: ignore[arg-type]
        read.append(sum(map(len, pieces)))
        return pieces

    monkeypatch.setattr(sql_digests, "stored_bytes", counted)
    restarted = SqlCommandRepository(database)
    assert await settle(restarted, command.id, an_outcome_after(CHUNKS)) is Settlement.TAKEN
    assert read == [9 * 250 * KIB + 3 - 2 * 1024 * KIB, 1]


async def test_more_commands_than_are_kept_in_memory_get_theirs_as_well(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_digests, "DIGESTS_MAX", 1)
    commands = SqlCommandRepository(database)
    made = [a_command_in(State.RUNNING) for _ in range(3)]
    for command in made:
        await commands.add(command, SEALED)
    for chunk in CHUNKS:
        for command in made:
            await append(commands, command.id, chunk)
    for command in made:
        assert await settle(commands, command.id, an_outcome_after(CHUNKS)) is Settlement.TAKEN


async def test_digests_that_a_failed_transaction_left_behind_are_made_again(
    database: SqliteDatabase,
) -> None:
    commands = SqlCommandRepository(database)
    command = a_command_in(State.RUNNING)
    await commands.add(command, SEALED)
    await append(commands, command.id, CHUNKS[0])
    pages = await database.write(lambda c: c.execute(text("PRAGMA page_count")).scalar_one())
    limit = text(f"PRAGMA max_page_count = {pages}")
    await database.write(lambda c: c.execute(limit).close())
    with pytest.raises(StorageFull):
        await append(commands, command.id, replace(CHUNKS[1], data=b"?" * 250 * KIB))
    for chunk in CHUNKS[1:]:
        await append(commands, command.id, chunk)
    assert await settle(commands, command.id, an_outcome_after(CHUNKS)) is Settlement.TAKEN
