"""What happened in this process, told at once to those parts of it that wait for it.

Only a short cut: whoever misses it finds the same in the store.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.domain.events import CommandMoved, CommandQueued
from app.domain.ids import AgentId, CommandId
from app.domain.models.agent import Session
from app.domain.models.order import QueuedRun

Receiver = Callable[[QueuedRun], None]


class Handover:
    """Orders to the session that is served here, and moves to whoever watches a command."""

    def __init__(self) -> None:
        self._receivers: dict[AgentId, tuple[Session, Receiver]] = {}
        self._moves: dict[CommandId, asyncio.Event] = {}

    def on_queued(self, event: CommandQueued) -> None:
        """Give the order to its agent's session, if it is served here."""
        found = self._receivers.get(event.agent_id)
        if found is not None:
            found[1](event.run)

    def served_epoch(self, agent_id: AgentId) -> int | None:
        """The epoch of the agent's session that is served here; None where there is none."""
        found = self._receivers.get(agent_id)
        return None if found is None else found[0].epoch

    def on_moved(self, event: CommandMoved) -> None:
        """Tell who watches the command."""
        moved = self._moves.get(event.command_id)
        if moved is not None:
            moved.set()

    @contextmanager
    def receiving(self, session: Session, receiver: Receiver) -> Iterator[None]:
        """Give the orders of the session's agent to `receiver` while open; a newer takes over."""
        mine = self._receivers[session.agent_id] = (session, receiver)
        try:
            yield
        finally:
            if self._receivers.get(session.agent_id) is mine:
                del self._receivers[session.agent_id]

    @contextmanager
    def watching(self, command_id: CommandId) -> Iterator[asyncio.Event]:
        """An event that is set when the command moves while open."""
        moved = self._moves.setdefault(command_id, asyncio.Event())
        try:
            yield moved
        finally:
            self._moves.pop(command_id, None)
