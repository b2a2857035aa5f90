"""The life cycle of a command as its users see it, and its summary."""

from collections.abc import Mapping
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


class Status(StrEnum):
    """The summary of a state for simple clients."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"


class Stream(StrEnum):
    """Which of a process's two outputs."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Action(StrEnum):
    """What a user may ask of a running command."""

    CANCEL = "cancel"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"


class Role(StrEnum):
    """What an account may do; `agent` stands apart from the other three."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    AGENT = "agent"


#: The summary of every state.
STATUS: Final[Mapping[State, Status]] = {
    State.QUEUED: Status.QUEUED,
    State.DISPATCHED: Status.RUNNING,
    State.RUNNING: Status.RUNNING,
    State.PAUSED: Status.RUNNING,
    State.SUCCEEDED: Status.SUCCESS,
    State.FAILED: Status.ERROR,
    State.TIMED_OUT: Status.ERROR,
    State.CANCELLED: Status.ERROR,
    State.LOST: Status.ERROR,
    State.REJECTED: Status.ERROR,
}

#: States that never change again.
FINAL: Final = frozenset(
    {
        State.SUCCEEDED,
        State.FAILED,
        State.TIMED_OUT,
        State.CANCELLED,
        State.LOST,
        State.REJECTED,
    }
)
