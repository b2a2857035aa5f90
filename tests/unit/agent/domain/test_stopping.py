"""The steps by which a process tree is ended, and the proof that it is gone."""

import pytest

from agent.domain.stopping import (
    KILL_GRACE_S,
    LOOK_FIRST_S,
    LOOK_LATE_S,
    LOOK_MAX_S,
    TERM_GRACE_S,
    Force,
    Impulse,
    Survivors,
    TreeStop,
)

ONE = Survivors((7,))
NOBODY = Survivors()


def test_a_tree_is_asked_once_and_woken_so_that_it_can_end() -> None:
    stop = TreeStop(Force.ASK, now=0)
    assert stop.impulses(0) == (Impulse.TERMINATE, Impulse.CONTINUE)
    stop.note(ONE, 0)
    assert stop.impulses(0.1) == (Impulse.PROBE,)


def test_a_tree_that_stays_is_killed_after_its_grace() -> None:
    stop = TreeStop(Force.ASK, now=0)
    stop.impulses(0)
    assert stop.impulses(TERM_GRACE_S - 0.01) == (Impulse.PROBE,)
    assert stop.impulses(TERM_GRACE_S) == (Impulse.KILL,)


def test_a_kill_is_not_preceded_by_asking_and_is_repeated() -> None:
    stop = TreeStop(Force.KILL, now=0)
    assert stop.impulses(0) == (Impulse.KILL,)
    assert stop.impulses(1) == (Impulse.KILL,)  # for those who were born meanwhile


def test_who_insists_on_less_than_was_asked_for_changes_nothing() -> None:
    stop = TreeStop(Force.ASK, now=0)
    stop.insist(Force.KILL)
    stop.insist(Force.ASK)
    assert stop.impulses(0) == (Impulse.KILL,)


def test_it_is_gone_once_nobody_lives() -> None:
    stop = TreeStop(Force.ASK, now=0)
    stop.impulses(0)
    assert stop.note(ONE, 0) is not None
    assert (stop.is_gone, stop.left) == (False, (7,))
    assert stop.note(NOBODY, 1) == LOOK_FIRST_S  # somebody may have been born behind its back
    assert not stop.is_gone
    assert stop.note(NOBODY, 1) is None
    assert (stop.is_gone, stop.left, stop.found_any) == (True, (), True)


def test_a_stop_that_meets_nobody_has_ended_nothing() -> None:
    stop = TreeStop(Force.KILL, now=0)
    stop.note(NOBODY, 0)
    stop.note(NOBODY, 0)
    assert stop.is_gone
    assert not stop.found_any


def test_who_is_met_after_an_empty_look_was_not_gone() -> None:
    stop = TreeStop(Force.KILL, now=0)
    stop.note(NOBODY, 0)
    stop.note(ONE, 0)
    assert stop.note(NOBODY, 0) is not None
    assert stop.note(NOBODY, 0) is None


def test_it_is_looked_at_less_and_less_often() -> None:
    stop = TreeStop(Force.ASK, now=0)
    stop.impulses(0)
    pauses = [stop.note(ONE, 0) for _ in range(8)]
    assert pauses[:3] == [LOOK_FIRST_S, 2 * LOOK_FIRST_S, 4 * LOOK_FIRST_S]
    assert pauses[-1] == LOOK_MAX_S


def test_after_the_first_kill_it_is_looked_at_often_again() -> None:
    stop = TreeStop(Force.ASK, now=0)
    for _ in range(8):
        stop.note(ONE, 0)
    stop.impulses(TERM_GRACE_S)
    assert stop.note(ONE, TERM_GRACE_S) == LOOK_FIRST_S


@pytest.mark.parametrize(
    ("left", "code"),
    [(ONE, "stop_incomplete"), (Survivors((7, 8), (8,)), "stop_not_permitted")],
)
def test_a_tree_that_outlives_a_kill_is_a_failure_and_the_stop_goes_on(
    left: Survivors, code: str
) -> None:
    stop = TreeStop(Force.KILL, now=0)
    stop.impulses(0)
    stop.note(left, KILL_GRACE_S - 0.01)
    assert stop.failure is None
    assert stop.note(left, KILL_GRACE_S) == LOOK_LATE_S
    assert stop.failure is not None and stop.failure[0] == code
    assert stop.impulses(KILL_GRACE_S + 1) == (Impulse.KILL,)
    first = stop.failure
    stop.note(left, 10)
    assert stop.failure is first
