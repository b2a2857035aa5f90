"""Which orders were accepted."""

from datetime import datetime
from typing import Protocol

from agent.domain.ids import CommandId
from agent.domain.models.execution import State
from agent.domain.models.order import Order


class Journal(Protocol):
    """Orders accepted, and the epoch of the last session; the memory that makes repeats harmless.

    What a method has stored survives whatever the journal survives once the method has returned.
    """

    async def epoch(self) -> int:
        """The last epoch that was stored; 0 where none is known."""
        ...

    async def store_epoch(self, epoch: int) -> None:
        """Remember the epoch of the session that now begins."""
        ...

    async def state_of(self, command_id: CommandId) -> State | None:
        """The last state that was stored; None for a command that was never accepted."""
        ...

    async def accept(self, order: Order, *, now: datetime) -> bool:
        """Store a new order as accepted; False, and nothing changes, where its id is known.

        What was released and could not be started `now` any more anyway may be forgotten.
        """
        ...

    async def move(self, command_id: CommandId, state: State) -> None:
        """Store the state of a known command; an unknown one is left alone."""
        ...

    async def release(self, command_id: CommandId) -> None:
        """Nothing more of the command will be told to anybody; a repeat changes nothing."""
        ...
