"""What makes two execute requests the same."""

import pytest

from app import wire
from app.domain.errors import Invalid
from ogent.protocol.messages import ClientExecute
from ogent.protocol.resources import ExecuteRequest
from tests.builders import a_principal


def fingerprint(body: ExecuteRequest, agent_id: str = "web-1") -> str:
    return wire.submission(body, a_principal(), agent_id, "once").fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"command": "rm"},
        {"env": {"A": "b"}},
        {"cwd": "/"},
        {"stdin": ""},
        {"execution_target": "local"},
        {"timeout": 1.0},
        {"queue": True},
        {"expires_in": 60.0},
        {"system": "BSD"},
        {"context": "Desktop"},
    ],
)
def test_another_body_is_another_request(changed: dict[str, object]) -> None:
    wanted = {"command": "ls", **changed}
    assert fingerprint(ExecuteRequest(command="ls")) != fingerprint(ExecuteRequest(**wanted))


def test_another_agent_is_another_request() -> None:
    body = ExecuteRequest(command="ls")
    assert fingerprint(body) != fingerprint(body, "web-2")


def test_how_long_its_sender_waits_makes_no_difference() -> None:
    assert fingerprint(ExecuteRequest(command="ls")) == fingerprint(
        ExecuteRequest(command="ls", wait=0)
    )


def test_the_door_makes_no_difference() -> None:
    by_socket = ClientExecute(command="ls", agent_id="web-1", idempotency_key="once")
    assert fingerprint(ExecuteRequest(command="ls")) == fingerprint(by_socket)


def test_what_was_to_be_analysed_is_not_run_unanalysed() -> None:
    with pytest.raises(Invalid):
        fingerprint(ExecuteRequest(command="ls", use_ai=True))
