"""Delete what was kept long enough."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from app.application.ports.clock import Clock
from app.application.ports.repositories import CommandRepository

#: Commands and chunks, and bytes of output, that one batch deletes: nobody else waits for long.
BATCH_MAX_ROWS: Final = 256
BATCH_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireFinished:
    """Delete finished commands, with their orders and their output, once they are kept so long.

    `kept_for` counts from when the controller heard of the end, by its own clock: an agent's may
    say anything, and one that was away for a month brings what nobody has read yet.
    """

    commands: CommandRepository
    clock: Clock
    kept_for: timedelta

    async def __call__(self) -> bool:
        """Delete one batch; True while there is more to delete."""
        removal = await self.commands.remove_finished(
            self.clock.now() - self.kept_for, max_rows=BATCH_MAX_ROWS, max_bytes=BATCH_MAX_BYTES
        )
        return not removal.is_all
