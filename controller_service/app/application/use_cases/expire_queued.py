"""Reject what waited too long for an agent that did not come."""

from dataclasses import dataclass

from app.application.event_bus import EventBus
from app.application.ports.clock import Clock
from app.application.ports.repositories import CommandRepository
from app.domain.models.command import Command
from app.domain.models.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireQueued:
    """Reject every queued command whose time has passed and that no agent can know of."""

    commands: CommandRepository
    bus: EventBus
    clock: Clock

    async def __call__(self) -> int:
        """How many were rejected."""
        now = self.clock.now()
        expired = 0

        def expire(command: Command) -> None:
            nonlocal expired
            expired += command.expire(at=now)

        for command in await self.commands.unfinished():
            if command.state is State.QUEUED and command.expires_at <= now:
                changed = await self.commands.change(command.id, expire)
                self.bus.publish(changed.pull_events())
        return expired
