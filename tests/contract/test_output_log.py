"""Every OutputLog gives back what was stored, by cursor and by byte."""

import pytest

from app.application.ports.output_log import READ_MAX_CHUNKS
from app.domain.ids import CommandId
from app.domain.models.command import Command
from app.domain.models.output import Chunk, Stream
from tests.builders import SEALED, a_command, chunks_of
from tests.contract.conftest import Storage

OUT, ERR = Stream.STDOUT, Stream.STDERR
PIECES = (b"zero", (ERR, b"ONE"), b"\x00\xff\n", (ERR, b"THREE"), b"four" * 3)
STDOUT = b"zero\x00\xff\nfourfourfour"


async def stored(storage: Storage, chunks: list[Chunk]) -> CommandId:
    command = a_command(offered_epoch=1)
    await storage.commands.add(command, SEALED)

    def take(found: Command) -> None:
        for chunk in chunks:
            assert found.append(chunk)

    await storage.commands.change(command.id, take)
    return command.id


async def test_chunks_come_back_as_they_were_taken(storage: Storage) -> None:
    chunks = chunks_of(*PIECES)
    command_id = await stored(storage, chunks)
    assert await storage.output.read(command_id, from_seq=0, max_bytes=1000) == chunks


@pytest.mark.parametrize("start", range(6))
async def test_reading_begins_at_the_cursor(storage: Storage, start: int) -> None:
    chunks = chunks_of(*PIECES)
    command_id = await stored(storage, chunks)
    read = await storage.output.read(command_id, from_seq=start, max_bytes=1000)
    assert read == chunks[start:]


@pytest.mark.parametrize(("max_bytes", "count"), [(0, 1), (4, 1), (6, 1), (7, 2), (10, 3), (15, 4)])
async def test_a_read_stays_within_its_bound_but_gives_one(
    storage: Storage, max_bytes: int, count: int
) -> None:
    chunks = chunks_of(*PIECES)
    command_id = await stored(storage, chunks)
    read = await storage.output.read(command_id, from_seq=0, max_bytes=max_bytes)
    assert read == chunks[:count]


async def test_commands_do_not_see_each_others_output(storage: Storage) -> None:
    one, other = chunks_of(b"one"), chunks_of(b"other")
    first, second = await stored(storage, one), await stored(storage, other)
    assert await storage.output.read(first, from_seq=0, max_bytes=1000) == one
    assert await storage.output.read(second, from_seq=0, max_bytes=1000) == other
    assert await storage.output.read_stream(second, OUT, start=0, end=99) == [b"other"]


async def test_a_command_without_output_gives_none(storage: Storage) -> None:
    command_id = await stored(storage, [])
    assert await storage.output.read(command_id, from_seq=0, max_bytes=1000) == []
    assert await storage.output.read_stream(command_id, OUT, start=0, end=99) == []


async def test_every_range_of_a_stream_is_exact(storage: Storage) -> None:
    command_id = await stored(storage, chunks_of(*PIECES))
    for start in range(len(STDOUT)):
        for end in range(start + 1, len(STDOUT) + 2):
            read = await storage.output.read_stream(command_id, OUT, start=start, end=end)
            assert b"".join(read) == STDOUT[start:end], (start, end)


async def test_a_stream_does_not_hold_the_other(storage: Storage) -> None:
    command_id = await stored(storage, chunks_of(*PIECES))
    read = await storage.output.read_stream(command_id, ERR, start=0, end=99)
    assert b"".join(read) == b"ONETHREE"


async def test_a_range_deep_inside_the_longest_chunks_is_exact(storage: Storage) -> None:
    size = 256 * 1024
    chunks = chunks_of(b"a" * size, b"b" * size, b"c" * size)
    command_id = await stored(storage, chunks)
    read = await storage.output.read_stream(command_id, OUT, start=size * 2 - 1, end=size * 2 + 1)
    assert b"".join(read) == b"bc"
    last = await storage.output.read_stream(command_id, OUT, start=size * 3 - 1, end=size * 4)
    assert b"".join(last) == b"c"


async def test_a_read_of_tiny_chunks_is_bounded_by_their_number(storage: Storage) -> None:
    chunks = chunks_of(*[b"xy"] * (READ_MAX_CHUNKS + 10))
    command_id = await stored(storage, chunks)
    read = await storage.output.read(command_id, from_seq=0, max_bytes=1 << 20)
    assert read == chunks[:READ_MAX_CHUNKS]
    rest = await storage.output.read(command_id, from_seq=READ_MAX_CHUNKS, max_bytes=1 << 20)
    assert rest == chunks[READ_MAX_CHUNKS:]


async def test_the_bytes_of_very_many_tiny_chunks_are_exact(storage: Storage) -> None:
    command_id = await stored(storage, chunks_of(*(b"%04d" % n for n in range(3000))))
    read = await storage.output.read_stream(command_id, OUT, start=2, end=11_999)
    assert b"".join(read) == b"".join(b"%04d" % n for n in range(3000))[2:11_999]
