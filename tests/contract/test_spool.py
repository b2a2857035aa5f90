"""What every Spool does."""

import asyncio
from collections.abc import Callable

import pytest

from agent.application.ports.spool import Spool
from agent.domain.errors import OutputGone
from agent.domain.ids import CommandId
from agent.infrastructure.storage.in_memory_spool import InMemorySpool
from tests.fakes.agent_ports import C, a_chunk, settle

D = CommandId("d")
BOUND = 10


@pytest.fixture(params=[InMemorySpool])
def spool(request: pytest.FixtureRequest) -> Spool:
    make: Callable[[int], Spool] = request.param
    return make(BOUND)


async def seqs(
    spool: Spool, command_id: CommandId, from_seq: int, max_bytes: int = 99
) -> list[int]:
    chunks = await spool.read(command_id, from_seq=from_seq, max_bytes=max_bytes)
    return [chunk.seq for chunk in chunks]


async def test_chunks_are_read_from_any_place_in_order(spool: Spool) -> None:
    for seq in range(4):
        await spool.append(C, a_chunk(seq, b"xy", 2 * seq))
    assert await seqs(spool, C, 0) == [0, 1, 2, 3]
    assert await seqs(spool, C, 2) == [2, 3]
    assert await seqs(spool, C, 4) == []


async def test_a_read_is_bounded_but_gives_at_least_one(spool: Spool) -> None:
    for seq in range(3):
        await spool.append(C, a_chunk(seq, b"xyz", 3 * seq))
    assert await seqs(spool, C, 0, max_bytes=6) == [0, 1]
    assert await seqs(spool, C, 0, max_bytes=1) == [0]


async def test_a_command_without_chunks_gives_none(spool: Spool) -> None:
    assert await seqs(spool, C, 0) == []
    await spool.acknowledge(C, 3)
    await spool.forget(C)


async def test_what_was_acknowledged_is_gone(spool: Spool) -> None:
    for seq in range(3):
        await spool.append(C, a_chunk(seq))
    for _ in range(2):
        await spool.acknowledge(C, 2)
    assert await seqs(spool, C, 2) == [2]
    with pytest.raises(OutputGone):
        await seqs(spool, C, 1)


async def test_after_everything_was_acknowledged_the_next_chunk_follows(spool: Spool) -> None:
    await spool.append(C, a_chunk(0))
    await spool.acknowledge(C, 1)
    await spool.append(C, a_chunk(1))
    assert await seqs(spool, C, 1) == [1]


async def test_a_full_spool_makes_the_writer_wait_until_there_is_room(spool: Spool) -> None:
    await spool.append(C, a_chunk(0, b"x" * BOUND))
    writing = asyncio.create_task(spool.append(C, a_chunk(1)))
    await settle()
    assert not writing.done()
    await spool.acknowledge(C, 1)
    async with asyncio.timeout(20):
        await writing
    assert await seqs(spool, C, 1) == [1]


async def test_a_full_spool_does_not_silence_another_command(spool: Spool) -> None:
    await spool.append(C, a_chunk(0, b"x" * BOUND))
    async with asyncio.timeout(20):
        await spool.append(D, a_chunk(0))
    assert await seqs(spool, D, 0) == [0]


async def test_a_writer_that_is_cancelled_has_kept_nothing(spool: Spool) -> None:
    await spool.append(C, a_chunk(0, b"x" * BOUND))
    writing = asyncio.create_task(spool.append(C, a_chunk(1)))
    await settle()
    writing.cancel()
    await asyncio.wait({writing})
    assert await seqs(spool, C, 0) == [0]


async def test_forgetting_a_command_makes_room_for_others(spool: Spool) -> None:
    await spool.append(D, a_chunk(0))
    await spool.append(C, a_chunk(0, b"x" * BOUND))
    writing = asyncio.create_task(spool.append(D, a_chunk(1)))
    await settle()
    assert not writing.done()
    await spool.forget(C)
    async with asyncio.timeout(20):
        await writing
    assert await seqs(spool, C, 0) == []
