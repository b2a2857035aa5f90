"""The controller's own words and bounds are those of the published language."""

from enum import StrEnum

import pytest

from app.application import dispatcher
from app.application.use_cases import queries, submit_command
from app.domain.models import command_line, lines, output, selector, states, user
from app.infrastructure.repositories import sql_output_log
from ogent.protocol import limits
from ogent.protocol import states as wire
from ogent.protocol.names import OrderRefusal


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        (states.State, wire.State),
        (states.Action, wire.Action),
        (output.Stream, wire.Stream),
        (user.Role, wire.Role),
    ],
)
def test_words_are_spelled_alike(ours: type[StrEnum], published: type[StrEnum]) -> None:
    assert [(word.name, word.value) for word in ours] == [
        (word.name, word.value) for word in published
    ]


def test_a_control_for_no_command_is_refused_with_the_word_that_is_published() -> None:
    assert dispatcher.UNKNOWN_COMMAND == OrderRefusal.UNKNOWN_COMMAND


def test_the_same_states_are_final_and_each_has_a_summary() -> None:
    assert {state.value for state in states.FINAL} == {state.value for state in wire.FINAL}
    assert set(wire.STATUS) == set(wire.State)


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        (command_line.COMMAND_MAX_BYTES, limits.COMMAND_MAX_BYTES),
        (command_line.ENV_MAX_NAMES, limits.ENV_MAX_NAMES),
        (command_line.ENV_MAX_BYTES, limits.ENV_MAX_BYTES),
        (command_line.STDIN_MAX_BYTES, limits.STDIN_MAX_BYTES),
        (lines.LINE_MAX_BYTES, limits.LINE_MAX_BYTES),
        (queries.TAIL_MAX_BYTES, limits.RESULT_TAIL_BYTES),
        (selector.SELECTOR_MAX_CHARS, limits.SELECTOR_MAX_CHARS),
        (submit_command.EXPIRES_DEFAULT_S, limits.EXPIRES_DEFAULT_S),
        (submit_command.EXPIRES_QUEUED_DEFAULT_S, limits.EXPIRES_QUEUED_DEFAULT_S),
        (sql_output_log._CHUNK_MAX_BYTES, limits.CHUNK_MAX_BYTES),
    ],
)
def test_bounds_are_the_same(ours: float, published: float) -> None:
    assert ours == published


def test_an_order_of_the_largest_command_fits_into_a_frame() -> None:
    largest = limits.COMMAND_MAX_BYTES + limits.ENV_MAX_BYTES + limits.STDIN_MAX_BYTES
    room = 16 * limits.KIB  # for names, times and the folder, and the envelope around it
    assert largest + command_line.CWD_MAX_BYTES + room < limits.FRAME_MAX_BYTES
