"""Stored output in SQL."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, select

from app.application.ports.output_log import READ_MAX_CHUNKS
from app.domain.ids import CommandId
from app.domain.models.lines import LineMark
from app.domain.models.output import Chunk, Stream
from app.infrastructure.database.ports import Database
from app.infrastructure.database.tables import CHUNKS, LINE_MARKS
from app.infrastructure.repositories.rows import STREAM_NUMBER, STREAM_OF, from_micros, mark_of

_FROM_SEQ: Final[Select[Any]] = (
    select(CHUNKS)
    .where(CHUNKS.c.command_id == bindparam("command"), CHUNKS.c.seq >= bindparam("start"))
    .order_by(CHUNKS.c.seq)
    .limit(READ_MAX_CHUNKS)
    .execution_options(stream_results=True, max_row_buffer=1)
)
_FROM_OFFSET: Final[Select[Any]] = (
    select(CHUNKS.c.offset, CHUNKS.c.data)
    .where(
        CHUNKS.c.command_id == bindparam("command"),
        CHUNKS.c.stream == bindparam("number"),
        CHUNKS.c.offset + CHUNKS.c.length > bindparam("start"),
        CHUNKS.c.offset >= bindparam("floor"),
        CHUNKS.c.offset < bindparam("end"),
    )
    .order_by(CHUNKS.c.offset)
    .execution_options(stream_results=True, max_row_buffer=1)
)
#: No chunk is longer, so none that begins earlier can reach a given offset.
_CHUNK_MAX_BYTES: Final = 256 * 1024


class SqlOutputLog:
    """An OutputLog over SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self, command_id: CommandId, *, from_seq: int, max_bytes: int
    ) -> Sequence[Chunk]:
        """Consecutive chunks from `from_seq` on, within `max_bytes` but at least one."""

        def work(connection: Connection) -> list[Chunk]:
            chunks: list[Chunk] = []
            total = 0
            parameters = {"command": command_id, "start": from_seq}
            with connection.execute(_FROM_SEQ, parameters) as rows:
                for row in rows:
                    total += row.length
                    if chunks and total > max_bytes:
                        break
                    at = from_micros(row.at)
                    chunks.append(Chunk(row.seq, STREAM_OF[row.stream], row.offset, row.data, at))
            return chunks

        return await self._database.read(work)

    async def read_stream(
        self, command_id: CommandId, stream: Stream, *, start: int, end: int
    ) -> Sequence[bytes]:
        """The bytes of one stream from `start` to before `end`, in pieces."""
        return await self._database.read(
            lambda connection: stored_bytes(connection, command_id, stream, start, end)
        )

    async def mark_before(self, command_id: CommandId, line: int) -> LineMark | None:
        """The last mark at which at most `line` lines had ended."""
        marks = LINE_MARKS.c
        query = (
            select(LINE_MARKS)
            .where(marks.command_id == command_id, marks.lines_ended <= line)
            .order_by(marks.next_seq.desc())
            .limit(1)
        )
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else mark_of(row)


def stored_bytes(
    connection: Connection, command_id: CommandId, stream: Stream, start: int, end: int
) -> list[bytes]:
    """The bytes of one stream from `start` to before `end`, in pieces, as far as stored."""
    parameters = {
        "command": command_id,
        "number": STREAM_NUMBER[stream],
        "start": start,
        "floor": start - _CHUNK_MAX_BYTES,
        "end": end,
    }
    pieces: list[bytes] = []
    with connection.execute(_FROM_OFFSET, parameters) as rows:
        for row in rows:
            pieces.append(row.data[max(start - row.offset, 0) : end - row.offset])
            if len(pieces) >= READ_MAX_CHUNKS:
                pieces = [b"".join(pieces)]  # many tiny ones would cost more than their bytes
    return pieces
