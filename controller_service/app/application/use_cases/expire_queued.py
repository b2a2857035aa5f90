"""Reject what waited too long for an agent that did not come."""

from dataclasses import dataclass
from typing import Final

from app.application.event_bus import EventBus
from app.application.ports.clock import Clock
from app.application.ports.repositories import CommandRepository
from app.domain.models.command import Command

#: Commands that one round rejects; the next one goes on.
ROUND_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireQueued:
    """Reject queued commands whose time has passed and that no agent can know of."""

    commands: CommandRepository
    bus: EventBus
    clock: Clock

    async def __call__(self) -> int:
        """How many were rejected, at most ROUND_MAX."""
        now = self.clock.now()
        expired = 0

        def expire(command: Command) -> None:
            nonlocal expired
            expired += command.expire(at=now)

        for command_id in await self.commands.overdue(now, limit=ROUND_MAX):
            changed = await self.commands.change(command_id, expire)
            self.bus.publish(changed.pull_events())
        return expired
