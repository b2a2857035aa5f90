"""The shapes of the contract as data, and how a value is held against them."""

import re
from dataclasses import dataclass
from typing import Any

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ID = re.compile(r"[A-Za-z0-9_-]{16,64}")


@dataclass(frozen=True)
class Or:
    """Any of these; `None` among them allows null."""

    options: tuple[Any, ...]

    def __init__(self, *options: Any) -> None:
        object.__setattr__(self, "options", options)


@dataclass(frozen=True)
class MapOf:
    """An object with any keys and such values."""

    value: Any


@dataclass(frozen=True)
class Maybe:
    """A field that may be absent or null."""

    value: Any


def check(value: object, shape: Any, where: str = "$") -> None:
    """Assert that `value` has exactly these fields and types."""
    match shape:
        case Or():
            assert any(_fits(value, option, where) for option in shape.options), _text(where, value)
        case Maybe():
            check(value, Or(shape.value, None), where)
        case MapOf():
            assert isinstance(value, dict), _text(where, value)
            for key, inner in value.items():
                check(inner, shape.value, f"{where}.{key}")
        case dict():
            _check_object(value, shape, where)
        case [inner]:
            assert isinstance(value, list), _text(where, value)
            for index, item in enumerate(value):
                check(item, inner, f"{where}[{index}]")
        case _:
            _check_leaf(value, shape, where)


def _check_object(value: object, shape: dict[str, Any], where: str) -> None:
    assert isinstance(value, dict), _text(where, value)
    needed = {key for key, inner in shape.items() if not isinstance(inner, Maybe)}
    assert needed <= set(value) <= set(shape), f"{where}: {set(value) ^ set(shape)}"
    for key, inner in value.items():
        check(inner, shape[key], f"{where}.{key}")


def _check_leaf(value: object, shape: Any, where: str) -> None:
    if isinstance(shape, re.Pattern):
        assert isinstance(value, str) and shape.fullmatch(value), _text(where, value)
    elif isinstance(shape, type):
        is_number = shape is float and type(value) is int
        assert type(value) is shape or is_number, _text(where, value)
    else:
        assert value == shape and type(value) is type(shape), _text(where, value)


def _fits(value: object, shape: Any, where: str) -> bool:
    try:
        check(value, shape, where)
    except AssertionError:
        return False
    return True


def _text(where: str, value: object) -> str:
    return f"{where} is {value!r:.200}"


ERROR = {"code": str, "message": str}
FIELD_ERROR = {"loc": [Or(str, int)], "msg": str}
PROBLEM = {"type": str, "title": str, "status": int, "detail": str, "code": str}
INVALID = PROBLEM | {"errors": [FIELD_ERROR]}
TARGET = {"name": str, "target": str, "labels": MapOf(str)}
AGENT = {
    "agent_id": str,
    "sid": Or(str, None),
    "status": Or("online", "offline"),
    "connected_at": Or(TIME, None),
    "last_seen_at": Or(TIME, None),
    "labels": MapOf(str),
    "running": int,
    "agent_info": {
        "platform": str,
        "version": str,
        "python": str,
        "hostname": str,
        "agent_version": str,
        "executors": [Or("local", "ssh")],
        "ssh_enabled": bool,
        "ssh_target": Or(str, None),
        "ssh_targets": [TARGET],
    },
}
STATE = Or(
    *("queued", "dispatched", "running", "paused", "succeeded"),
    *("failed", "timed_out", "cancelled", "lost", "rejected"),
)
EXECUTION_TYPE = Or("local", "ssh", None)
COMMAND = {
    "command_id": ID,
    "agent_id": str,
    "command": str,
    "processed_command": Or(str, None),
    "execution_target": str,
    "execution_type": EXECUTION_TYPE,
    "target": Or(str, None),
    "state": STATE,
    "status": Or("queued", "running", "success", "error"),
    "requester": str,
    "created_at": TIME,
    "dispatched_at": Or(TIME, None),
    "started_at": Or(TIME, None),
    "finished_at": Or(TIME, None),
    "timeout": Or(float, None),
    "exit_code": Or(int, None),
    "signal": Or(str, None),
    "error": Or(ERROR, None),
    "stdout_bytes": int,
    "stdout_stored": int,
    "stderr_stored": int,
    "stderr_bytes": int,
    "truncated": bool,
    "output_complete": bool,
    "duration": Or(float, None),
    "requested_action": Or(str, None),
    "stop_error": Or(ERROR | {"pids": [int]}, None),
    "ai_processing": Or(dict, None),
}
PAGE = {"items": [COMMAND], "next_cursor": Or(str, None)}
FINISHED = {
    "status": Or("success", "error"),
    "state": STATE,
    "command_id": ID,
    "command": str,
    "result": {
        "command": str,
        "exit_code": Or(int, None),
        "signal": Or(str, None),
        "stdout": str,
        "stderr": str,
        "timestamp": TIME,
        "execution_type": EXECUTION_TYPE,
        "target": Or(str, None),
        "duration": Or(float, None),
        "stdout_bytes": int,
        "stdout_stored": int,
        "stderr_stored": int,
        "stderr_bytes": int,
        "truncated": bool,
    },
    "error": Maybe(ERROR),
    "ai_processing": Maybe(dict),
}
UNFINISHED = {
    "status": Or("queued", "running"),
    "state": STATE,
    "command_id": ID,
    "command": str,
}
LINES = {
    "command_id": ID,
    "stream": Or("stdout", "stderr", "both"),
    # `truncated` is how a cut line is marked.
    "lines": [
        {
            "number": int,
            "stream": Or("stdout", "stderr"),
            "text": str,
            "timestamp": TIME,
            "truncated": bool,
        }
    ],
    "total_lines": int,
    "matched_lines": int,
    "next_offset": Or(int, None),
    "complete": bool,
    "missing": [{"stream": Or("stdout", "stderr"), "offset": int, "length": int}],
}
PROGRESS = {
    "command_id": ID,
    "agent_id": str,
    "seq": int,
    "status": "running",
    "stream": Or("stdout", "stderr"),
    "data": str,
    "data_base64": Maybe(str),
    "offset": int,
    "timestamp": TIME,
}
REACHED = {"command_id": ID, "agent_id": str, "state": STATE, "timestamp": TIME}
RESULT = FINISHED | {"agent_id": str, "timestamp": TIME}
ACCEPTED = {
    "status": "accepted",
    "command_id": ID,
    "agent_id": str,
    "command": str,
    "state": STATE,
}
TOKEN_INFO = {
    "token_id": str,
    "name": str,
    "role": str,
    "selector": Or(str, None),
    "created_at": TIME,
    "expires_at": Or(TIME, None),
}
USER = {"username": str, "role": str, "selector": Or(str, None), "disabled": bool}


def check_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The problem that `answer` must be."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body.get("code")) == (status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    check(body, INVALID if "errors" in body else PROBLEM)
    assert body["status"] == status
    assert "Traceback" not in answer.text
    return body
