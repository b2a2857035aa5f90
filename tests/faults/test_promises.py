"""The checker itself: each kind of breach is told, and nothing else is."""

from dataclasses import replace

import pytest

from ogent.client import State
from tests.faults.plans import Plan, Truth
from tests.faults.promises import Gap, Piece, Reading, Seen, broken_promises

OUT = b"one\ntwo\n"
PIECES = [Piece(0, "stdout", 0, b"one\n"), Piece(1, "stdout", 4, b"two\n")]
KEPT = Seen(
    plan=Plan("k0", "echo one; echo two"),
    truth=Truth(State.SUCCEEDED, 0, OUT, b""),
    command_id="c0",
    state=State.SUCCEEDED,
    exit_code=0,
    output_complete=True,
    written={"stdout": 8, "stderr": 0},
    stored={"stdout": OUT, "stderr": b""},
    readings=[Reading("a reader", PIECES, [State.SUCCEEDED])],
)
LOST = replace(KEPT, state=State.LOST, exit_code=None, output_complete=False, readings=[])


def reading(*pieces: Piece, ends: tuple[State, ...] = (State.SUCCEEDED,)) -> list[Reading]:
    return [Reading("a reader", list(pieces), list(ends))]


def test_promises_that_are_kept_are_not_told() -> None:
    assert broken_promises(KEPT) == []


def test_a_command_that_did_not_start_may_say_so_where_a_fault_kept_it_from_it() -> None:
    seen = replace(KEPT, state=State.FAILED, exit_code=None, starts=0, readings=[])
    assert broken_promises(seen, {State.FAILED}) == []
    assert broken_promises(replace(seen, starts=1), {State.FAILED}) != []
    assert broken_promises(replace(seen, starts=1, exit_code=1), {State.FAILED}) != []


def test_a_named_gap_is_excused_only_by_a_fault_that_may_damage() -> None:
    rest = {"stdout": b"two\n", "stderr": b""}
    whole = replace(KEPT, stored=rest, readings=[])
    seen = replace(whole, output_complete=False, missing=[Gap("stdout", 0, 4)])
    assert broken_promises(seen, {State.LOST}) == []
    assert len(broken_promises(seen)) == 1


def test_a_lost_command_is_excused_only_by_a_fault_that_may_lose_it() -> None:
    assert broken_promises(LOST) != []
    assert broken_promises(LOST, {State.LOST}) == []


@pytest.mark.parametrize(
    ("promise", "changes"),
    [
        (1, {"state": State.FAILED, "exit_code": 1, "readings": []}),
        (1, {"state": State.RUNNING, "exit_code": None, "readings": []}),
        (1, {"readings": reading(*PIECES, ends=(State.SUCCEEDED, State.SUCCEEDED))}),
        (1, {"readings": reading(*PIECES, ends=(State.LOST,))}),
        (2, {"starts": 2}),
        (2, {"starts": 0}),
        (3, {"stored": {"stdout": b"one\nTwo\n", "stderr": b""}, "readings": []}),
        (3, {"stored": {"stdout": b"one\n", "stderr": b""}, "readings": []}),
        (3, {"stored": {"stdout": OUT + b"x", "stderr": b""}, "readings": []}),
        (3, {"written": {"stdout": 9, "stderr": 0}}),
        (3, {"output_complete": False}),
        (3, {"output_complete": False, "missing": [Gap("stdout", 0, 4)]}),
        (3, {"missing": [Gap("stderr", 0, 1)]}),
        (3, {"readings": reading(PIECES[0])}),
        (3, {"readings": reading(PIECES[1], PIECES[0])}),
        (3, {"readings": reading(*PIECES, PIECES[1])}),
        (3, {"readings": reading(PIECES[0], Piece(1, "stdout", 0, b"two\n"))}),
    ],
)
def test_a_broken_promise_is_told(promise: int, changes: dict[str, object]) -> None:
    broken = broken_promises(replace(KEPT, **changes))  # type: ignore[arg-type]
    assert any(f"promise {promise}" in line for line in broken), broken


@pytest.mark.parametrize("state", [State.CANCELLED, State.TIMED_OUT, State.LOST])
def test_a_process_that_outlives_its_stop_is_told(state: State) -> None:
    seen = replace(LOST, state=state, left=[4711])
    assert "4711" in broken_promises(seen, {state})[-1]
