"""Stored output in this process's memory."""

from collections.abc import Sequence

from app.application.ports.output_log import READ_MAX_CHUNKS
from app.domain.ids import CommandId
from app.domain.models.lines import LineMark
from app.domain.models.output import Chunk, Stream


class InMemoryOutputLog:
    """An OutputLog over lists; `append` is for the command repository alone.

    Chunks are immutable, so what is given out needs no copy.
    """

    def __init__(self) -> None:
        self._chunks: dict[CommandId, list[Chunk]] = {}
        self._marks: dict[CommandId, list[LineMark]] = {}

    def append(
        self, command_id: CommandId, chunks: Sequence[Chunk], marks: Sequence[LineMark]
    ) -> None:
        """Store chunks that follow what is stored, and the marks that fell due in them."""
        self._chunks.setdefault(command_id, []).extend(chunks)
        self._marks.setdefault(command_id, []).extend(marks)

    def remove(self, command_id: CommandId) -> None:
        """Forget all of a command's output."""
        self._chunks.pop(command_id, None)
        self._marks.pop(command_id, None)

    async def read(
        self, command_id: CommandId, *, from_seq: int, max_bytes: int
    ) -> Sequence[Chunk]:
        """Consecutive chunks from `from_seq` on, within `max_bytes` but at least one."""
        found: list[Chunk] = []
        total = 0
        for chunk in self._chunks.get(command_id, [])[from_seq : from_seq + READ_MAX_CHUNKS]:
            total += len(chunk.data)
            if found and total > max_bytes:
                break
            found.append(chunk)
        return found

    async def read_stream(
        self, command_id: CommandId, stream: Stream, *, start: int, end: int
    ) -> Sequence[bytes]:
        """The bytes of one stream from `start` to before `end`, in pieces."""
        return [
            chunk.data[max(start - chunk.offset, 0) : end - chunk.offset]
            for chunk in self._chunks.get(command_id, [])
            if chunk.stream is stream
            and chunk.offset + len(chunk.data) > start
            and chunk.offset < end
        ]

    async def mark_before(self, command_id: CommandId, line: int) -> LineMark | None:
        """The last mark at which at most `line` lines had ended."""
        found = [m for m in self._marks.get(command_id, []) if m.lines.ended <= line]
        return found[-1] if found else None
