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
    """Delete finished commands, with their orders and their output, `kept_for` after their end."""

    commands: CommandRepository
    clock: Clock
    kept_for: timedelta

    async def __call__(self) -> bool:
        """Delete one batch; True while there is more to delete."""
        removal = await self.commands.remove_finished(
            self.clock.now() - self.kept_for, max_rows=BATCH_MAX_ROWS, max_bytes=BATCH_MAX_BYTES
        )
        return not removal.is_all
