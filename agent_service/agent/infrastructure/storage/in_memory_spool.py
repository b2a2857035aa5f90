"""A Spool that ends with the process."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from agent.domain.errors import OutputGone
from agent.domain.ids import CommandId
from agent.domain.models.output import Chunk


@dataclass(slots=True)
class _Shelf:
    """The chunks of one command; `first_seq` is the number of the first that is kept."""

    first_seq: int
    chunks: deque[Chunk] = field(default_factory=deque)
    size: int = 0


class InMemorySpool:
    """A Spool in memory, of at most `max_bytes` and one chunk of each command."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._shelves: dict[CommandId, _Shelf] = {}
        self._waiting: dict[CommandId, asyncio.Event] = {}

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    async def append(self, command_id: CommandId, chunk: Chunk) -> None:
        """Keep `chunk`; waits while the spool is full."""
        while not self._may_append(command_id, len(chunk.data)):
            await self._room(command_id)
        shelf = self._shelves.setdefault(command_id, _Shelf(chunk.seq))
        shelf.chunks.append(chunk)
        shelf.size += len(chunk.data)
        self._size += len(chunk.data)

    async def read(
        self, command_id: CommandId, *, from_seq: int, max_bytes: int
    ) -> Sequence[Chunk]:
        """Chunks from `from_seq` on."""
        shelf = self._shelves.get(command_id)
        if shelf is None:
            return ()
        if from_seq < shelf.first_seq:
            raise OutputGone(f"chunk {from_seq} is gone, {shelf.first_seq} is the first here")
        chosen: list[Chunk] = []
        size = 0
        for chunk in islice(shelf.chunks, from_seq - shelf.first_seq, None):
            size += len(chunk.data)
            if chosen and size > max_bytes:
                break
            chosen.append(chunk)
        return chosen

    async def acknowledge(self, command_id: CommandId, next_seq: int) -> None:
        """Let go of every chunk below `next_seq`."""
        shelf = self._shelves.get(command_id)
        if shelf is None:
            return
        while shelf.chunks and shelf.first_seq < next_seq:
            gone = len(shelf.chunks.popleft().data)
            shelf.first_seq += 1
            shelf.size -= gone
            self._size -= gone
        self._make_room()

    async def forget(self, command_id: CommandId) -> None:
        """Let go of all chunks of a command."""
        shelf = self._shelves.pop(command_id, None)
        if shelf is not None:
            self._size -= shelf.size
        self._make_room()

    def _may_append(self, command_id: CommandId, size: int) -> bool:
        shelf = self._shelves.get(command_id)
        is_first = shelf is None or not shelf.chunks
        return is_first or self._size + size <= self._max_bytes

    async def _room(self, command_id: CommandId) -> None:
        event = self._waiting.setdefault(command_id, asyncio.Event())
        await event.wait()

    def _make_room(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for event in waiting.values():
            event.set()
