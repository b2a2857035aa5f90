"""States of a command and where each may lead: data, so that nothing else decides it."""

from collections.abc import Mapping, Set
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a command stands."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    REJECTED = "rejected"


#: How a process that ran may have ended.
ENDED: Final[Set[State]] = frozenset(
    {State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED, State.LOST}
)

#: Where each state may lead. A state without a row is final.
NEXT: Final[Mapping[State, Set[State]]] = {
    State.QUEUED: {State.DISPATCHED, State.CANCELLED, State.REJECTED, State.LOST},
    State.DISPATCHED: {
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


class Action(StrEnum):
    """What a user may ask of a command."""

    CANCEL = "cancel"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"


#: Actions that end a command: nothing but the stronger one follows them.
STOPS: Final[Set[Action]] = frozenset({Action.CANCEL, Action.KILL})

#: In which states each action makes sense.
ALLOWED: Final[Mapping[Action, Set[State]]] = {
    Action.CANCEL: frozenset(NEXT),
    Action.KILL: frozenset(NEXT),
    Action.PAUSE: frozenset({State.DISPATCHED, State.RUNNING}),
    Action.RESUME: frozenset({State.PAUSED}),
}
