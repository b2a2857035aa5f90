"""Which orders were accepted, and how they came out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent.domain.ids import CommandId
from agent.domain.models.execution import Outcome, State
from agent.domain.models.order import Order


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a command's id; `is_held`: something of it has still to be told."""

    state: State
    is_held: bool


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An accepted order of which something has still to be told.

    `keeper` is who was to start it, None where it waited; `outcome` how it came out without that
    anybody had to start it.
    """

    order: Order
    keeper: str | None = None
    outcome: Outcome | None = None


class Journal(Protocol):
    """Orders accepted, and the epoch of the last session; the memory that makes repeats harmless.

    What a method has stored survives the process and the power once the method has returned,
    unless it says otherwise. All that store raise JournalUnavailable where nothing was stored.
    """

    async def epoch(self) -> int:
        """The last epoch that was stored; 0 where none is known."""
        ...

    async def store_epoch(self, epoch: int, *, ahead_s: float = 0.0) -> None:
        """Remember the epoch of the session that now begins, and how the clocks differ."""
        ...

    def ahead_s(self) -> float:
        """Seconds by which the controller's clock was ahead of this host's at the last session."""
        ...

    def held_size(self) -> int:
        """Characters of text in the orders of which something has still to be told."""
        ...

    def known(self, command_id: CommandId) -> Known | None:
        """What is known of an id; None for one that was never accepted."""
        ...

    async def accept(self, order: Order, *, keeper: str | None, now: datetime) -> bool:
        """Store a new order; False, and nothing changes, where its id is known.

        `keeper` is who starts it at once; None where it has to wait.
        """
        ...

    async def start(self, command_id: CommandId, keeper: str) -> None:
        """Store, before it is started, who starts it."""
        ...

    async def settle(self, outcome: Outcome) -> None:
        """Store how an order came out that nobody started, or of whose end nobody else knows."""
        ...

    def note(self, command_id: CommandId, state: State) -> None:
        """Remember where a command stands, for who asks; that alone need not survive."""
        ...

    def may_forget_none(self) -> bool:
        """Whether too many ids are remembered of orders that may still come again."""
        ...

    async def release(self, command_id: CommandId, *, now: datetime) -> None:
        """Nothing more of the command will be told to anybody; a repeat changes nothing.

        Its id is remembered for REMEMBERED_FOR. That this survives is not waited for: whoever
        forgets it tells the controller once more.
        """
        ...

    def unfinished(self) -> Sequence[Unfinished]:
        """What has still to be told, in the order of acceptance."""
        ...
