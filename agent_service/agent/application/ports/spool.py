"""Chunks that the controller has not acknowledged."""

from collections.abc import Sequence
from typing import Protocol

from agent.domain.ids import CommandId
from agent.domain.models.output import Chunk


class Spool(Protocol):
    """Keeps each command's chunks, in order, until they are acknowledged; bounded in bytes."""

    async def append(self, command_id: CommandId, chunk: Chunk) -> None:
        """Keep `chunk`, which follows the command's last one; waits while the spool is full.

        A command of which nothing is kept waits for nobody, so that one that prints without end
        cannot silence the others. Cancelled while it waits, it has kept nothing.
        """
        ...

    async def read(
        self, command_id: CommandId, *, from_seq: int, max_bytes: int
    ) -> Sequence[Chunk]:
        """Chunks from `from_seq` on, up to `max_bytes` but at least one where there is one.

        Raises OutputGone where `from_seq` was acknowledged before.
        """
        ...

    async def acknowledge(self, command_id: CommandId, next_seq: int) -> None:
        """Let go of every chunk below `next_seq`; a repeat changes nothing."""
        ...

    async def forget(self, command_id: CommandId) -> None:
        """Let go of all chunks of a command, and of the wait of one that is being appended."""
        ...
