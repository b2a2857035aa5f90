from datetime import UTC, datetime

import pytest

from ogent.cli import exit_codes
from ogent.protocol.resources import Finished, Result
from ogent.protocol.states import FINAL, State


def finished(state: State, exit_code: int | None = None, signal: str | None = None) -> Finished:
    result = Result(
        command="x",
        exit_code=exit_code,
        signal=signal,
        stdout="",
        stderr="",
        timestamp=datetime.now(UTC),
        execution_type="local",
        target=None,
        duration=1.0,
        stdout_bytes=0,
        stderr_bytes=0,
        truncated=False,
    )
    return Finished(status="error", state=state, command_id="c", command="x", result=result)


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (finished(State.SUCCEEDED, 0), 0),
        (finished(State.FAILED, 3), 3),
        (finished(State.FAILED, None, "SIGTERM"), 143),
        (finished(State.FAILED, None, "SIGNOSUCH"), 125),
        (finished(State.FAILED), 125),
        (finished(State.TIMED_OUT, 1), 124),
        (finished(State.LOST), 125),
        (finished(State.REJECTED), 125),
        (finished(State.CANCELLED, None, "SIGTERM"), 130),
    ],
)
def test_the_end_decides(ended, code):
    assert exit_codes.of(ended) == code


def test_only_success_is_zero():
    assert [s for s in FINAL if exit_codes.of(finished(s)) == 0] == [State.SUCCEEDED]
