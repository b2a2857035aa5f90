from itertools import product
from typing import Any

import pytest

from agent.domain.errors import IllegalMove, NoExecutor
from agent.domain.models.execution import (
    ENDED,
    FINAL,
    NEXT,
    Ending,
    Execution,
    Failure,
    State,
    StopFailure,
)
from agent.domain.models.executor import ExecutionType, Exit, Place
from agent.domain.models.output import Counts
from agent.domain.models.transmission import Written
from agent.domain.selection import select_place
from tests.fakes.agent_ports import LOCAL, NOW, an_order


@pytest.mark.parametrize(("before", "after"), [*product(State, State)])
def test_an_execution_moves_exactly_along_the_table(before: State, after: State) -> None:
    execution = Execution(order=an_order(), state=before)
    if after in NEXT.get(before, ()):
        execution.move(after)
        assert execution.state is after
    else:
        with pytest.raises(IllegalMove):
            execution.move(after)
        assert execution.state is before


def test_what_has_ended_is_final_and_the_rest_leads_somewhere() -> None:
    assert ENDED | {State.FAILED, State.REJECTED} == FINAL
    assert all(NEXT.values())


def test_a_start_is_reported_with_its_place_and_time() -> None:
    report = Execution(order=an_order()).start(LOCAL, at=NOW)
    assert (report.state, report.started_at, report.place) == (State.RUNNING, NOW, LOCAL)


def test_there_is_nothing_to_report_before_the_start() -> None:
    with pytest.raises(IllegalMove):
        Execution(order=an_order()).report(at=NOW)


def an_ending(**fields: Any) -> Ending:
    written = Written(Counts(5, 0), Counts(3, 0))
    return Ending(**{"finished_at": NOW, "started_at": NOW, "written": written, **fields})


def test_an_outcome_carries_how_it_ended_and_what_was_written() -> None:
    execution = Execution(order=an_order())
    execution.start(LOCAL, at=NOW)
    outcome = execution.end(an_ending(exit=Exit(code=3)))
    assert execution.is_final
    assert (outcome.state, outcome.exit, outcome.place) == (State.EXITED, Exit(code=3), LOCAL)
    assert outcome.written == Written(Counts(5, 0), Counts(3, 0))


@pytest.mark.parametrize("state", [State.TIMED_OUT, State.CANCELLED, State.LOST])
def test_an_end_that_was_a_stop_or_not_seen_says_so(state: State) -> None:
    execution = Execution(order=an_order())
    execution.start(LOCAL, at=NOW)
    why = Failure("why", "because")
    outcome = execution.end(an_ending(stopped_as=state, failure=why))
    assert (outcome.state, outcome.failure) == (state, why)


def test_a_report_carries_a_stop_that_failed() -> None:
    execution = Execution(order=an_order())
    execution.start(LOCAL, at=NOW)
    execution.stop_failure = StopFailure("stop_incomplete", "still there", (7,))
    assert execution.report(at=NOW).stop_failure == execution.stop_failure


def test_an_outcome_without_a_process_has_no_start_and_no_output() -> None:
    why = Failure("spawn_failed", "no shell")
    outcome = Execution(order=an_order()).end_unrun(State.FAILED, at=NOW, failure=why)
    assert (outcome.started_at, outcome.place, outcome.exit) == (None, None, Exit())
    assert (outcome.failure, outcome.written.in_all) == (why, Counts())


def test_what_ran_and_ended_without_a_witness_keeps_its_start() -> None:
    execution = Execution(order=an_order())
    execution.start(LOCAL, at=NOW)
    outcome = execution.end_unrun(State.LOST, at=NOW)
    assert (outcome.state, outcome.started_at, outcome.place) == (State.LOST, NOW, LOCAL)


BOTH = set(ExecutionType)


@pytest.mark.parametrize(
    ("target", "available", "place"),
    [
        ("auto", {ExecutionType.LOCAL}, LOCAL),
        ("auto", BOTH, Place(ExecutionType.SSH)),
        ("local", BOTH, LOCAL),
        ("ssh", BOTH, Place(ExecutionType.SSH)),
        ("ssh:db", BOTH, Place(ExecutionType.SSH, "db")),
    ],
)
def test_a_target_selects_a_place(target: str, available: set[ExecutionType], place: Place) -> None:
    assert select_place(target, available) == place


@pytest.mark.parametrize("target", ["ssh", "ssh:db", "moon", ""])
def test_no_other_place_is_taken_than_the_one_asked_for(target: str) -> None:
    with pytest.raises(NoExecutor):
        select_place(target, {ExecutionType.LOCAL})
