"""The newest output kept beside an output log: who watches live reads what was just stored."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from app.application.ports.output_log import READ_MAX_CHUNKS, OutputLog
from app.domain.ids import CommandId
from app.domain.models.lines import LineMark
from app.domain.models.output import Chunk, Stream

#: Output that is remembered, of all commands together.
OUTPUT_MAX_BYTES: Final = 4 * 1024 * 1024
#: What a chunk counts for beside its bytes, so that many tiny ones are bounded as well.
CHUNK_OVERHEAD_BYTES: Final = 1024


class CachingOutputLog:
    """An OutputLog over another. Stored output never changes, so nothing here goes stale."""

    def __init__(self, output: OutputLog, *, max_bytes: int = OUTPUT_MAX_BYTES) -> None:
        self._output = output
        self._max_bytes = max_bytes
        self._bytes = 0
        self._tails: OrderedDict[CommandId, list[Chunk]] = OrderedDict()

    def remember(self, command_id: CommandId, chunks: Sequence[Chunk]) -> None:
        """Keep chunks that were just stored, at the expense of what is oldest."""
        if not chunks:
            return
        tail = self._tails.setdefault(command_id, [])
        if tail and tail[-1].seq + 1 != chunks[0].seq:
            self._shorten(tail, len(tail))
        tail.extend(chunks)
        self._bytes += _size(chunks)
        self._tails.move_to_end(command_id)
        self._make_room()

    def forget(self, command_id: CommandId) -> None:
        """Let go of a command that was removed."""
        self._bytes -= _size(self._tails.pop(command_id, []))

    async def read(
        self, command_id: CommandId, *, from_seq: int, max_bytes: int
    ) -> Sequence[Chunk]:
        """Consecutive chunks from `from_seq` on, within `max_bytes` but at least one."""
        tail = self._tails.get(command_id)
        if not tail or not tail[0].seq <= from_seq <= tail[-1].seq:
            return await self._output.read(command_id, from_seq=from_seq, max_bytes=max_bytes)
        found: list[Chunk] = []
        total = 0
        first = from_seq - tail[0].seq
        for chunk in tail[first : first + READ_MAX_CHUNKS]:
            total += len(chunk.data)
            if found and total > max_bytes:
                break
            found.append(chunk)
        return found

    async def read_stream(
        self, command_id: CommandId, stream: Stream, *, start: int, end: int
    ) -> Sequence[bytes]:
        """The bytes of one stream from `start` to before `end`, in pieces."""
        mine = [c for c in self._tails.get(command_id, ()) if c.stream is stream]
        is_covered = (
            mine and mine[0].offset <= start and end <= mine[-1].offset + len(mine[-1].data)
        )
        if not is_covered:
            return await self._output.read_stream(command_id, stream, start=start, end=end)
        return [
            chunk.data[max(start - chunk.offset, 0) : end - chunk.offset]
            for chunk in mine
            if chunk.offset < end and chunk.offset + len(chunk.data) > start
        ]

    async def mark_before(self, command_id: CommandId, line: int) -> LineMark | None:
        """The last mark at which at most `line` lines had ended."""
        return await self._output.mark_before(command_id, line)

    def _make_room(self) -> None:
        """Forget whole commands, the oldest first; of the last one its oldest chunks."""
        while self._bytes > self._max_bytes and len(self._tails) > 1:
            _, oldest = self._tails.popitem(last=False)
            self._bytes -= _size(oldest)
        if self._bytes > self._max_bytes:
            (tail,) = self._tails.values()
            self._shorten(tail, _count_over(tail, self._bytes - self._max_bytes))

    def _shorten(self, tail: list[Chunk], count: int) -> None:
        self._bytes -= _size(tail[:count])
        del tail[:count]


def _count_over(tail: Sequence[Chunk], excess: int) -> int:
    """How many of the oldest chunks hold `excess` bytes."""
    count = 0
    while excess > 0:
        excess -= len(tail[count].data) + CHUNK_OVERHEAD_BYTES
        count += 1
    return count


def _size(chunks: Sequence[Chunk]) -> int:
    return sum(len(chunk.data) + CHUNK_OVERHEAD_BYTES for chunk in chunks)
