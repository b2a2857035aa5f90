"""The table of moves, every pair of states tried."""

from itertools import product

import pytest

from app.domain.errors import IllegalMove
from app.domain.models.states import ALLOWED, ENDED, FINAL, NEXT, Action, State
from tests.builders import a_command, a_command_in, later

PAIRS = list(product(State, State))
LEGAL = {
    ("queued", "dispatched"),
    ("queued", "cancelled"),
    ("queued", "rejected"),
    ("queued", "lost"),
    ("dispatched", "running"),
    ("dispatched", "failed"),
    ("dispatched", "cancelled"),
    ("dispatched", "rejected"),
    ("dispatched", "lost"),
    ("running", "paused"),
    ("paused", "running"),
    *product(("running", "paused"), ("succeeded", "failed", "timed_out", "cancelled", "lost")),
}


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_a_command_moves_where_it_may_and_nowhere_else(here: State, there: State) -> None:
    command = a_command_in(here)
    before = a_command_in(here, id=command.id)
    if (here.value, there.value) in LEGAL:
        command.move(there, at=later(9))
        assert command.state is there
        assert [event.state for event in command.pull_events()] == [there]
    else:
        with pytest.raises(IllegalMove):
            command.move(there, at=later(9))
        assert command == before
        assert command.pull_events() == []


def test_the_table_is_the_legal_moves_and_no_more() -> None:
    assert {(here.value, there.value) for here in NEXT for there in NEXT[here]} == LEGAL


def test_a_final_state_leads_nowhere_and_every_other_somewhere() -> None:
    assert set(State) - set(NEXT) == FINAL == ENDED | {State.REJECTED}
    assert all(NEXT.values())


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_has_the_time_of_its_end(state: State) -> None:
    assert a_command_in(state).finished_at is not None
    assert a_command_in(state).is_final
    assert not a_command().is_final


@pytest.mark.parametrize("action", Action)
def test_no_action_makes_sense_in_a_final_state(action: Action) -> None:
    assert ALLOWED[action].isdisjoint(FINAL)
