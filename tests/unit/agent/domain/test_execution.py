from itertools import product

import pytest

from agent.domain.errors import IllegalMove, NoExecutor
from agent.domain.models.execution import ENDED, FINAL, NEXT, Execution, Failure, State
from agent.domain.models.executor import ExecutionType, Exit, Place
from agent.domain.models.output import Transcript
from agent.domain.selection import select_place
from tests.fakes.agent_ports import NOW, an_order

LOCAL = Place(ExecutionType.LOCAL)


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


def test_an_outcome_carries_how_it_ended_and_what_was_written() -> None:
    execution = Execution(order=an_order())
    execution.start(LOCAL, at=NOW)
    totals = Transcript(1).totals()
    outcome = execution.end(State.EXITED, totals, at=NOW, process_exit=Exit(code=3))
    assert execution.is_final
    assert (outcome.exit, outcome.output, outcome.place) == (Exit(code=3), totals, LOCAL)


def test_an_outcome_without_a_process_has_no_start() -> None:
    why = Failure("spawn_failed", "no shell")
    outcome = Execution(order=an_order()).end(
        State.FAILED, Transcript(1).totals(), at=NOW, failure=why
    )
    assert (outcome.started_at, outcome.place, outcome.exit) == (None, None, Exit())
    assert outcome.failure == why


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
