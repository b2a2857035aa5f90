"""What a journal knows, in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from agent.application.ports.journal import Known, Unfinished
from agent.domain.ids import CommandId
from agent.domain.models.execution import Outcome, State

#: How long the id of a command is remembered of which nothing more has to be told, and how many
#: at most; what is forgotten earlier has expired in nearly all cases, and is refused for that.
REMEMBERED_FOR: Final = timedelta(days=30)
REMEMBERED_MAX: Final = 100_000
#: After how many accepted orders it is looked at what may be forgotten.
FORGET_EVERY: Final = 1000


class JournalState:
    """Unfinished orders, where they stand, and the ids of those that are done with."""

    def __init__(self) -> None:
        self.epoch = 0
        self.ahead_s = 0.0
        self.held_size = 0
        self._unfinished: dict[CommandId, Unfinished] = {}
        self._states: dict[CommandId, State] = {}
        self._released: dict[CommandId, tuple[State, datetime]] = {}
        self._accepted = 0

    def known(self, command_id: CommandId) -> Known | None:
        """What is known of an id."""
        if command_id in self._unfinished:
            return Known(self._states[command_id], is_held=True)
        released = self._released.get(command_id)
        return Known(released[0], is_held=False) if released else None

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
            self._released[command_id] = (state, self._released[command_id][1])

    def release(self, command_id: CommandId, at: datetime, state: State | None = None) -> bool:
        """Keep its id alone; False, and nothing happens, where that was so or nothing is known."""
        entry = self._unfinished.pop(command_id, None)
        if entry is not None:
            self.held_size -= entry.order.size
        elif state is None:
            return False
        known = self._states.pop(command_id, State.LOST)
        self._released.setdefault(command_id, (state or known, at))
        return True

    def forget_before(self, now: datetime) -> None:
        """Forget the ids whose time is over, and the oldest of too many; a look now and then."""
        self._accepted += 1
        if self._accepted % FORGET_EVERY:
            return
        surplus = len(self._released) - REMEMBERED_MAX
        for number, (command_id, (_, at)) in enumerate(list(self._released.items())):
            if number >= surplus and now - at < REMEMBERED_FOR:
                return
            del self._released[command_id]

    def unfinished(self) -> Sequence[Unfinished]:
        """What has still to be told, in the order of acceptance."""
        return list(self._unfinished.values())

    def released(self) -> Iterator[tuple[CommandId, State, datetime]]:
        """Ids that are remembered, oldest first."""
        for command_id, (state, at) in self._released.items():
            yield command_id, state, at
