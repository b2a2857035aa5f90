"""Digests of stored output, as far as they are made: kept in memory, made again after a restart.

Used inside transactions, by the writer's thread alone.
"""

from typing import Any, Final

from cachetools import LRUCache
from sqlalchemy import Connection, Insert, Select, bindparam, insert, select

from app.domain.ids import CommandId
from app.domain.models.command import Command
from app.domain.models.digests import OutputDigests, StreamDigest
from app.domain.models.output import OutputTotals, Stream
from app.infrastructure.database.tables import DIGEST_BLOCKS
from app.infrastructure.repositories.rows import STREAM_NUMBER
from app.infrastructure.repositories.sql_output_log import stored_bytes

#: Commands whose half-made digests are kept, about 1 KiB each; any other one's are made again.
DIGESTS_MAX: Final = 4096

# Built once: SQLAlchemy then finds its compiled form by identity.
_FULL_BLOCKS: Final[Select[Any]] = (
    select(DIGEST_BLOCKS.c.digest)
    .where(
        DIGEST_BLOCKS.c.command_id == bindparam("command"),
        DIGEST_BLOCKS.c.stream == bindparam("number"),
    )
    .order_by(DIGEST_BLOCKS.c.number)
)
_ADD: Final[Insert] = insert(DIGEST_BLOCKS)


class SqlDigests:
    """Gives a command its digests before it is changed, and keeps them afterwards.

    What is kept says up to where it reaches. A transaction that failed leaves digests here that
    reach further than what is stored: they are passed over and made again.
    """

    def __init__(self) -> None:
        self._recent: LRUCache[CommandId, tuple[OutputTotals, OutputDigests]] = LRUCache(
            DIGESTS_MAX
        )

    def restore(self, connection: Connection, command: Command) -> None:
        """Give `command` the digests of what is stored; reads at most a block of each stream."""
        if command.is_final or command.stored.next_seq == 0:
            return
        covered, digests = self._recent.get(command.id, (None, OutputDigests()))
        if covered != command.stored:
            digests = OutputDigests(*(_made_again(connection, command, s) for s in Stream))
        command.digests = digests

    def keep(self, connection: Connection, command: Command) -> None:
        """Store the blocks that became full, and keep what is half made."""
        blocks = command.pull_blocks()
        if blocks:
            connection.execute(
                _ADD,
                [
                    {
                        "command_id": command.id,
                        "stream": STREAM_NUMBER[block.stream],
                        "number": block.number,
                        "digest": block.digest,
                    }
                    for block in blocks
                ],
            )
        if command.is_final:
            self._recent.pop(command.id, None)
        elif command.stored.next_seq > 0:
            self._recent[command.id] = command.stored, command.digests


def _made_again(connection: Connection, command: Command, stream: Stream) -> StreamDigest:
    parameters = {"command": command.id, "number": STREAM_NUMBER[stream]}
    digest = StreamDigest([row.digest for row in connection.execute(_FULL_BLOCKS, parameters)])
    start, end = digest.covered, command.stored.bytes_of(stream)
    for piece in stored_bytes(connection, command.id, stream, start, end):
        digest, _ = digest.after(piece)
    return digest
