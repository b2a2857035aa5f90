"""An execution: the process that carries out an order, and its life."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from agent.domain.errors import IllegalMove
from agent.domain.ids import CommandId
from agent.domain.models.executor import Exit, Place
from agent.domain.models.order import Order
from agent.domain.models.output import Counts
from agent.domain.models.transmission import Written


class State(StrEnum):
    """Where an execution stands; `exited` says nothing about how."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    REJECTED = "rejected"


#: How a process that ran may have ended.
ENDED: Final[Set[State]] = frozenset({State.EXITED, State.TIMED_OUT, State.CANCELLED, State.LOST})

#: Where each state may lead. A state without a row is final.
NEXT: Final[Mapping[State, Set[State]]] = {
    State.ACCEPTED: {
        State.RUNNING,
        State.FAILED,
        State.CANCELLED,
        State.REJECTED,
        State.LOST,
    },
    State.RUNNING: ENDED | {State.PAUSED},
    State.PAUSED: ENDED | {State.RUNNING},
}

#: States that never change again.
FINAL: Final[Set[State]] = frozenset(state for state in State if state not in NEXT)


#: How a process ended of which nobody saw the end.
NOT_SEEN: Final = Exit()
#: What a command wrote that never ran.
NOTHING_WRITTEN: Final = Written(Counts(), Counts())


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed, was lost or was rejected: a stable word and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StopFailure:
    """Why a stop could not be completed so far, and the processes that are left."""

    code: str
    message: str
    pids: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the processes of a command came to their end.

    `stopped_as` is TIMED_OUT or CANCELLED where a stop began before the first process had ended
    and nothing of the tree is left, LOST where nobody saw the end, and None where it ended by
    itself.
    """

    finished_at: datetime
    started_at: datetime
    written: Written
    exit: Exit = NOT_SEEN
    stopped_as: State | None = None
    failure: Failure | None = None
    stop_failure: StopFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Where an unfinished execution stands at a moment."""

    command_id: CommandId
    state: State
    at: datetime
    started_at: datetime
    place: Place
    stop_failure: StopFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an execution ended; `started_at` and `place` are None where no process ever was."""

    command_id: CommandId
    state: State
    finished_at: datetime
    written: Written = NOTHING_WRITTEN
    exit: Exit = NOT_SEEN
    started_at: datetime | None = None
    place: Place | None = None
    failure: Failure | None = None
    stop_failure: StopFailure | None = None


@dataclass(slots=True, kw_only=True)
class Execution:
    """One order and what has become of it."""

    order: Order
    state: State = State.ACCEPTED
    place: Place | None = None
    started_at: datetime | None = None
    stop_failure: StopFailure | None = None

    @property
    def id(self) -> CommandId:
        """The command that it carries out."""
        return self.order.id

    @property
    def is_final(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.state in FINAL

    def move(self, state: State) -> None:
        """Enter `state`, or raise IllegalMove and change nothing."""
        if state not in NEXT.get(self.state, ()):
            raise IllegalMove(f"execution {self.id} cannot go from {self.state} to {state}")
        self.state = state

    def start(self, place: Place, *, at: datetime) -> Report:
        """A process exists since `at`."""
        self.move(State.RUNNING)
        self.place, self.started_at = place, at
        return self.report(at=at)

    def report(self, *, at: datetime) -> Report:
        """Where it stands; only once it has started."""
        if self.place is None or self.started_at is None:
            raise IllegalMove(f"execution {self.id} has not started")
        return Report(
            command_id=self.id,
            state=self.state,
            at=at,
            started_at=self.started_at,
            place=self.place,
            stop_failure=self.stop_failure,
        )

    def end(self, ending: Ending) -> Outcome:
        """Enter the final state that `ending` gives it, and say how it came out."""
        self.move(ending.stopped_as or State.EXITED)
        return Outcome(
            command_id=self.id,
            state=self.state,
            finished_at=ending.finished_at,
            written=ending.written,
            exit=ending.exit,
            started_at=self.started_at,
            place=self.place,
            failure=ending.failure,
            stop_failure=ending.stop_failure,
        )

    def end_unrun(self, state: State, *, at: datetime, failure: Failure | None = None) -> Outcome:
        """Enter the final `state` without an end that anybody saw; `lost` where there was one."""
        self.move(state)
        return Outcome(
            command_id=self.id,
            state=state,
            finished_at=at,
            started_at=self.started_at,
            place=self.place,
            failure=failure,
            stop_failure=self.stop_failure,
        )
