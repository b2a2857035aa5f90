"""Stored output, read by cursor."""

from collections.abc import Sequence
from typing import Final, Protocol

from app.domain.errors import OutputDamaged
from app.domain.ids import CommandId
from app.domain.models.lines import LineMark
from app.domain.models.output import Chunk, Stream

#: Chunks that one read gives at most: tiny ones cost more than their bytes.
READ_MAX_CHUNKS: Final = 1024


def require_from(chunks: Sequence[Chunk], seq: int) -> None:
    """Raise OutputDamaged unless `chunks` go on from `seq` without a gap."""
    if [chunk.seq for chunk in chunks] != list(range(seq, seq + len(chunks))) or not chunks:
        raise OutputDamaged(f"stored output is damaged: chunk {seq} or one after it is missing")


class OutputLog(Protocol):
    """Chunks of commands as they were stored; written by the command repository alone."""

    async def read(
        self, command_id: CommandId, *, from_seq: int, max_bytes: int
    ) -> Sequence[Chunk]:
        """Consecutive chunks from `from_seq` on: at least one where there is one.

        More are added while they stay within `max_bytes` together, up to READ_MAX_CHUNKS.
        """
        ...

    async def read_stream(
        self, command_id: CommandId, stream: Stream, *, start: int, end: int
    ) -> Sequence[bytes]:
        """The bytes of one stream from `start` to before `end`, in pieces, as far as stored."""
        ...

    async def mark_before(self, command_id: CommandId, line: int) -> LineMark | None:
        """The last mark at which at most `line` lines had ended; None where there is none."""
        ...
