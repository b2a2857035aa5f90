"""What a journal knows, in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from agent.application.ports.journal import Known, Unfinished
from agent.domain.ids import CommandId
from agent.domain.models.execution import Outcome, State

#: How long the id of a command is remembered of which nothing more has to be told. Of more than so
#: many, those are forgotten earlier whose orders have expired: they are refused for that. Where
#: as many again may still come, no new order is taken.
REMEMBERED_FOR: Final = timedelta(days=30)
REMEMBERED_MAX: Final = 100_000
#: After how many accepted orders it is looked at what may be forgotten.
FORGET_EVERY: Final = 1000


@dataclass(frozen=True, slots=True)
class Released:
    """What is remembered of a command of which nothing more has to be told, since `at`."""

    command_id: CommandId
    state: State
    at: datetime
    expires_at: datetime


class JournalState:
    """Unfinished orders, where they stand, and the ids of those that are done with."""

    def __init__(self) -> None:
        self.epoch = 0
        self.ahead_s = 0.0
        self.held_size = 0
        self._unfinished: dict[CommandId, Unfinished] = {}
        self._states: dict[CommandId, State] = {}
        self._released: dict[CommandId, Released] = {}
        self._accepted = 0

    def known(self, command_id: CommandId) -> Known | None:
        """What is known of an id."""
        if command_id in self._unfinished:
            return Known(self._states[command_id], is_held=True)
        released = self._released.get(command_id)
        return Known(released.state, is_held=False) if released else None

    @property
    def may_forget_none(self) -> bool:
        """Whether too many ids are remembered of orders that may still come again."""
        return len(self._released) >= 2 * REMEMBERED_MAX

    def accept(self, entry: Unfinished) -> None:
        """Take a new order; one that was released stays so."""
        if entry.order.id not in self._released and entry.order.id not in self._unfinished:
            self.held_size += entry.order.size
            self._unfinished[entry.order.id] = entry
            self._states[entry.order.id] = State.ACCEPTED

    def change(self, command_id: CommandId, change: Callable[[Unfinished], Unfinished]) -> None:
        """Change an unfinished one; nothing happens to any other."""
        if entry := self._unfinished.get(command_id):
            self._unfinished[command_id] = change(entry)

    def settle(self, outcome: Outcome) -> None:
        """Note how it came out."""
        self.change(outcome.command_id, lambda entry: replace(entry, outcome=outcome))
        self.note(outcome.command_id, outcome.state)

    def note(self, command_id: CommandId, state: State) -> None:
        """Note where it stands."""
        if command_id in self._unfinished:
            self._states[command_id] = state
        elif command_id in self._released:  # it was let go of while it ran
            self._released[command_id] = replace(self._released[command_id], state=state)

    def release(self, command_id: CommandId, now: datetime) -> Released | None:
        """Keep its id alone; None, and nothing happens, where that was so or nothing is known."""
        entry = self._unfinished.pop(command_id, None)
        if entry is None:
            return None
        self.held_size -= entry.order.size
        state = self._states.pop(command_id, State.LOST)
        return self.take_released(Released(command_id, state, now, entry.order.expires_at))

    def take_released(self, released: Released) -> Released:
        """Remember an id of which nothing more has to be told."""
        entry = self._unfinished.pop(released.command_id, None)
        if entry is not None:
            self.held_size -= entry.order.size
            self._states.pop(released.command_id, None)
        return self._released.setdefault(released.command_id, released)

    def forget_before(self, now: datetime) -> None:
        """Forget the ids whose time is over, and of too many the expired; a look now and then."""
        self._accepted += 1
        if self._accepted % FORGET_EVERY:
            return
        surplus = len(self._released) - REMEMBERED_MAX
        for released in list(self._released.values()):
            is_over = now - released.at >= REMEMBERED_FOR
            if is_over or (surplus > 0 and released.expires_at < now):
                del self._released[released.command_id]
                surplus -= 1

    def unfinished(self) -> Sequence[Unfinished]:
        """What has still to be told, in the order of acceptance."""
        return list(self._unfinished.values())

    def released(self) -> Iterator[Released]:
        """Ids that are remembered, oldest first."""
        yield from self._released.values()
