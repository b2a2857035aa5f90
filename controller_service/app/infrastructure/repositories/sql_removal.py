"""Deleting finished commands in batches, long output piece by piece. Runs in a transaction."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, Update, bindparam, delete, select, update

from app.application.ports.repositories import Removal
from app.domain.ids import CommandId
from app.infrastructure.database.tables import CHUNKS, COMMANDS

# Built once: SQLAlchemy then finds its compiled form by identity.
_SETTLED: Final[Select[Any]] = (
    select(COMMANDS.c.id)
    .where(COMMANDS.c.settled_at.is_not(None), COMMANDS.c.settled_at < bindparam("before"))
    .order_by(COMMANDS.c.settled_at)
    .limit(bindparam("count"))
)
_CHUNKS_OF: Final[Select[Any]] = (
    select(CHUNKS.c.rowid_, CHUNKS.c.length)
    .where(CHUNKS.c.command_id == bindparam("command"))
    .order_by(CHUNKS.c.seq)
    .limit(bindparam("count"))
)
_HIDE: Final[Update] = (
    update(COMMANDS).where(COMMANDS.c.id == bindparam("command")).values(is_removed=True)
)


def remove_finished(
    connection: Connection, before: int, *, max_rows: int, max_bytes: int
) -> Removal:
    """Delete commands that were settled before `before` (microseconds), as far as the bounds reach.

    The chunks of a command go before its row, which takes the rest of it along; a row whose chunks
    do not all go at once is hidden first, so that nobody reads half of an output.
    """
    found = connection.execute(_SETTLED, {"before": before, "count": max_rows}).scalars().all()
    gone: list[CommandId] = []
    for command_id in found:
        chunks = connection.execute(
            _CHUNKS_OF, {"command": command_id, "count": max_rows + 1}
        ).all()
        going = _within(chunks, max_rows, max_bytes)
        connection.execute(delete(CHUNKS).where(CHUNKS.c.rowid_.in_([c.rowid_ for c in going])))
        if len(going) < len(chunks):
            connection.execute(_HIDE, {"command": command_id})
            return Removal(gone, is_all=False)
        connection.execute(delete(COMMANDS).where(COMMANDS.c.id == command_id))
        gone.append(command_id)
        max_rows -= 1 + len(going)
        max_bytes -= sum(chunk.length for chunk in going)
        if max_rows <= 0 or max_bytes <= 0:
            return Removal(gone, is_all=False)
    return Removal(gone)


def _within(chunks: Sequence[Any], max_rows: int, max_bytes: int) -> Sequence[Any]:
    """The first of `chunks` that stay within the bounds; one at least, where there is one."""
    size = 0
    for count, chunk in enumerate(chunks[:max_rows]):
        size += chunk.length
        if count and size > max_bytes:
            return chunks[:count]
    return chunks[:max_rows]
