"""What `ogent` exits with; `exec` gives the command's own code wherever there is one."""

import signal
from typing import Final

from ogent.protocol.resources import Finished
from ogent.protocol.states import State

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
DETACHED: Final = 3
TIMED_OUT: Final = 124
OURS: Final = 125
CANCELLED: Final = 130
INTERRUPTED: Final = 130
OUTPUT_CLOSED: Final = 128 + 13  # as a shell reports a process that SIGPIPE ended


def of(finished: Finished) -> int:
    """The exit code of `ogent exec` for a command that ended so."""
    match finished.state:
        case State.SUCCEEDED:
            return OK
        case State.FAILED:
            return _failed(finished.result.exit_code, finished.result.signal)
        case State.TIMED_OUT:
            return TIMED_OUT
        case State.CANCELLED:
            return CANCELLED
    return OURS


def _failed(exit_code: int | None, signal_name: str | None) -> int:
    if exit_code:
        return exit_code & 0xFF or OURS
    if signal_name is not None:
        return _of_signal(signal_name)
    return OURS


def _of_signal(name: str) -> int:
    try:
        return 128 + signal.Signals[name]
    except KeyError:
        return OURS  # a signal that this system does not have
