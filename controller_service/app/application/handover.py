"""What happened in this process, told at once to those parts of it that wait for it.

Only a short cut: whoever misses it finds the same in the store.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.domain.events import CommandMoved, CommandQueued
from app.domain.ids import AgentId, CommandId
from app.domain.models.order import QueuedRun

Receiver = Callable[[QueuedRun], None]


class Handover:
    """Orders to the session that is served here, and moves to whoever watches a command."""

    def __init__(self) -> None:
        self._receivers: dict[AgentId, Receiver] = {}
        self._moves: dict[CommandId, asyncio.Event] = {}

    def on_queued(self, event: CommandQueued) -> None:
        """Give the order to its agent's session, if it is served here."""
        receiver = self._receivers.get(event.agent_id)
        if receiver is not None:
            receiver(event.run)

    def on_moved(self, event: CommandMoved) -> None:
        """Tell who watches the command."""
        moved = self._moves.get(event.command_id)
        if moved is not None:
            moved.set()

    @contextmanager
    def receiving(self, agent_id: AgentId, receiver: Receiver) -> Iterator[None]:
        """Give the agent's orders to `receiver` while open; a newer receiver takes over."""
        self._receivers[agent_id] = receiver
        try:
            yield
        finally:
            if self._receivers.get(agent_id) == receiver:
                del self._receivers[agent_id]

    @contextmanager
    def watching(self, command_id: CommandId) -> Iterator[asyncio.Event]:
        """An event that is set when the command moves while open."""
        moved = self._moves.setdefault(command_id, asyncio.Event())
        try:
            yield moved
        finally:
            self._moves.pop(command_id, None)
