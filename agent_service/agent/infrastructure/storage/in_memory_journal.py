"""A Journal that ends with the process."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from agent.application.ports.journal import Known, Unfinished
from agent.domain.ids import CommandId
from agent.domain.models.execution import Outcome, State
from agent.domain.models.order import Order
from agent.infrastructure.storage.journal_state import JournalState


class InMemoryJournal:
    """A Journal in memory: a new process begins with epoch 0 and knows of nothing."""

    def __init__(self) -> None:
        self.facts = JournalState()

    async def epoch(self) -> int:
        """The last epoch that was stored."""
        return self.facts.epoch

    async def store_epoch(self, epoch: int, *, ahead_s: float = 0.0) -> None:
        """Remember the epoch, and how the clocks differ."""
        self.facts.epoch, self.facts.ahead_s = epoch, ahead_s

    def ahead_s(self) -> float:
        """How far the controller's clock was ahead."""
        return self.facts.ahead_s

    def held_size(self) -> int:
        """Characters of text in unfinished orders."""
        return self.facts.held_size

    def known(self, command_id: CommandId) -> Known | None:
        """What is known of an id."""
        return self.facts.known(command_id)

    async def accept(self, order: Order, *, keeper: str | None, now: datetime) -> bool:
        """Store a new order."""
        if self.facts.known(order.id) is not None:
            return False
        self.facts.accept(Unfinished(order, keeper))
        self.facts.forget_before(now)
        return True

    async def start(self, command_id: CommandId, keeper: str) -> None:
        """Store who starts it."""
        self.facts.change(command_id, lambda entry: replace(entry, keeper=keeper))

    async def settle(self, outcome: Outcome) -> None:
        """Store how an order came out."""
        self.facts.settle(outcome)

    def may_forget_none(self) -> bool:
        """Whether too many ids are remembered."""
        return self.facts.may_forget_none

    def note(self, command_id: CommandId, state: State) -> None:
        """Remember where a command stands."""
        self.facts.note(command_id, state)

    async def release(self, command_id: CommandId, *, now: datetime) -> None:
        """Let go of all but its id."""
        self.facts.release(command_id, now)

    def unfinished(self) -> Sequence[Unfinished]:
        """What has still to be told."""
        return self.facts.unfinished()
