"""A Journal that ends with the process."""

import heapq
from dataclasses import dataclass
from datetime import datetime

from agent.domain.ids import CommandId
from agent.domain.models.execution import State
from agent.domain.models.order import Order


@dataclass(slots=True)
class _Entry:
    state: State
    expires_at: datetime
    is_released: bool = False


class InMemoryJournal:
    """A Journal in memory: a new process begins with epoch 0 and knows of nothing.

    What was released is remembered until it could not be started any more: a repeat that comes
    later is refused as expired.
    """

    def __init__(self) -> None:
        self._epoch = 0
        self._entries: dict[CommandId, _Entry] = {}
        self._released: list[tuple[datetime, CommandId]] = []

    async def epoch(self) -> int:
        """The last epoch that was stored."""
        return self._epoch

    async def store_epoch(self, epoch: int) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    async def state_of(self, command_id: CommandId) -> State | None:
        """The last state that was stored."""
        entry = self._entries.get(command_id)
        return entry.state if entry else None

    async def accept(self, order: Order, *, now: datetime) -> bool:
        """Store a new order."""
        while self._released and self._released[0][0] < now:
            del self._entries[heapq.heappop(self._released)[1]]
        if order.id in self._entries:
            return False
        self._entries[order.id] = _Entry(State.ACCEPTED, order.expires_at)
        return True

    async def move(self, command_id: CommandId, state: State) -> None:
        """Store the state."""
        if entry := self._entries.get(command_id):
            entry.state = state

    async def release(self, command_id: CommandId) -> None:
        """Let it be forgotten once it has expired."""
        entry = self._entries.get(command_id)
        if entry is not None and not entry.is_released:
            entry.is_released = True
            heapq.heappush(self._released, (entry.expires_at, command_id))
