"""What a user asks to be run holds every bound from the start."""

import pytest

from app.domain.errors import Invalid, TooLarge
from app.domain.models import command_line as bounds
from app.domain.models.command_line import CommandLine

HALF = "\ud800"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"text": ""}, Invalid),
        ({"text": " \n\t"}, Invalid),
        ({"text": "a\0b"}, Invalid),
        ({"text": HALF}, Invalid),
        ({"cwd": "relative"}, Invalid),
        ({"cwd": ""}, Invalid),
        ({"cwd": "/a\0"}, Invalid),
        ({"stdin": HALF}, Invalid),
        ({"env": {"": "x"}}, Invalid),
        ({"env": {"A=B": "x"}}, Invalid),
        ({"env": {"A": "x\0"}}, Invalid),
        ({"env": {"A\0": "x"}}, Invalid),
        ({"env": {"A": HALF}}, Invalid),
        ({"text": "x" * (bounds.COMMAND_MAX_BYTES + 1)}, TooLarge),
        ({"text": "é" * (bounds.COMMAND_MAX_BYTES // 2 + 1)}, TooLarge),
        ({"cwd": "/" + "x" * bounds.CWD_MAX_BYTES}, TooLarge),
        ({"stdin": "x" * (bounds.STDIN_MAX_BYTES + 1)}, TooLarge),
        ({"env": {f"A{n}": "" for n in range(bounds.ENV_MAX_NAMES + 1)}}, TooLarge),
        ({"env": {"A": "x" * bounds.ENV_MAX_BYTES}}, TooLarge),
        ({"env": dict.fromkeys("AB", "x" * (bounds.ENV_MAX_BYTES // 2))}, TooLarge),
    ],
)
def test_what_no_process_can_be_given_is_refused(
    line: dict[str, object], error: type[Invalid]
) -> None:
    with pytest.raises(error) as caught:
        CommandLine(**{"text": "true", **line})
    assert type(caught.value) is error
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    "line",
    [
        {"text": "x" * bounds.COMMAND_MAX_BYTES},
        {"text": "é" * (bounds.COMMAND_MAX_BYTES // 2)},
        {"cwd": "/" + "x" * (bounds.CWD_MAX_BYTES - 1)},
        {"stdin": "\0" * bounds.STDIN_MAX_BYTES},
        {"env": {f"A{n}": "" for n in range(bounds.ENV_MAX_NAMES)}},
        {"env": {"A": "x" * (bounds.ENV_MAX_BYTES - 1)}},
        {"env": {"A": "with = sign", "é": "\n"}},
    ],
)
def test_what_is_just_within_its_bound_is_taken(line: dict[str, object]) -> None:
    assert CommandLine(**{"text": "true", **line})
