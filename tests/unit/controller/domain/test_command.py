"""A command's life, repeats and late frames included."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import InvalidState, OutputGap, OutputOverrun
from app.domain.events import CommandMoved, CommandQueued, OutputAppended
from app.domain.models import output
from app.domain.models.command import Command, Failure, Settlement, StopFailure
from app.domain.models.order import QueuedRun, SealedOrder
from app.domain.models.output import Missing, OutputTotals, Stream
from app.domain.models.states import ALLOWED, FINAL, NEXT, Action, State
from tests.builders import (
    NOW,
    a_beginning,
    a_chunk,
    a_command,
    a_command_in,
    an_outcome,
    an_outcome_after,
    chunks_of,
    later,
)

WHY = Failure("because", "of that")


def test_a_new_command_announces_itself_once() -> None:
    command = a_command()
    sealed = SealedOrder(b"order", b"", "")
    command.announce(sealed)
    run = QueuedRun(command.id, None, sealed)
    assert command.pull_events() == [CommandQueued(command.id, command.agent_id, run)]
    assert command.pull_events() == []


def test_the_newest_offer_counts() -> None:
    command = a_command()
    command.offer(4)
    command.offer(3)
    assert command.offered_epoch == 4


def test_a_final_command_is_not_offered() -> None:
    command = a_command()
    command.request(Action.CANCEL, at=NOW)
    command.offer(3)
    assert command.offered_epoch is None


def test_an_acknowledged_command_is_dispatched_and_a_repeat_changes_nothing() -> None:
    command = a_command()
    command.acknowledge(at=later(1))
    command.acknowledge(at=later(2))
    assert (command.state, command.dispatched_at) == (State.DISPATCHED, later(1))
    assert len(command.pull_events()) == 1


def test_a_beginning_tells_when_and_where() -> None:
    command = a_command()
    command.begin(a_beginning(), at=later(4))
    assert (command.state, command.dispatched_at, command.started_at) == (
        State.RUNNING,
        later(2),
        later(2),
    )
    assert (command.execution_type, command.target) == ("local", "web-1.example")


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, *sorted(FINAL)])
def test_a_repeated_or_late_beginning_changes_nothing(state: State) -> None:
    command = a_command_in(state)
    before = a_command_in(state, id=command.id)
    command.begin(a_beginning(), at=later(9))
    assert command == before
    assert command.pull_events() == []


def test_chunks_are_taken_in_order_and_told_once() -> None:
    command = a_command_in(State.RUNNING)
    chunks = chunks_of(b"one", (Stream.STDERR, b"t"), b"wo")
    assert all(command.append(chunk) for chunk in chunks)
    assert command.stored == OutputTotals(3, 5, 1)
    assert command.pull_events() == [OutputAppended(command.id)]
    assert command.pull_chunks() == chunks
    assert command.pull_chunks() == []


def test_a_repeated_chunk_is_not_taken() -> None:
    command = a_command_in(State.RUNNING)
    assert command.append(a_chunk())
    assert not command.append(a_chunk())
    assert len(command.pull_chunks()) == 1


@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_is_taken_after_the_end(state: State) -> None:
    command = a_command_in(state)
    assert not command.append(a_chunk())
    assert command.stored == OutputTotals()


@pytest.mark.parametrize(
    "chunk",
    [
        a_chunk(seq=2, offset=3),
        a_chunk(seq=1, offset=0),
        a_chunk(seq=1, offset=4),
        a_chunk(seq=1, offset=3, stream=Stream.STDERR),
    ],
)
def test_a_chunk_that_leaves_a_gap_is_refused_and_nothing_taken(chunk) -> None:
    command = a_command_in(State.RUNNING)
    command.append(a_chunk())
    with pytest.raises(OutputGap):
        command.append(chunk)
    assert command.stored == OutputTotals(1, 3, 0)
    assert len(command.pull_chunks()) == 1


@pytest.mark.parametrize("stream", list(Stream))
def test_both_streams_together_keep_to_what_the_order_allows(stream: Stream) -> None:
    command = a_command_in(State.RUNNING, max_output_bytes=6)
    for chunk in chunks_of(b"one", (Stream.STDERR, b"two")):
        command.append(chunk)
    with pytest.raises(OutputOverrun):
        command.append(a_chunk(seq=2, stream=stream, offset=3, data=b"!"))
    assert command.stored == OutputTotals(2, 3, 3)
    assert len(command.pull_chunks()) == 2


def test_a_command_has_so_many_chunks_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "CHUNKS_MAX", 2)
    command = a_command_in(State.RUNNING, max_output_bytes=64)
    *within, beyond = chunks_of(b"a", b"b", b"c", b"d")
    for chunk in within:
        command.append(chunk)
    with pytest.raises(OutputOverrun):
        command.append(beyond)
    assert command.stored.next_seq == 3


def test_a_command_whose_agent_goes_on_sending_too_much_is_lost() -> None:
    command = a_command_in(State.RUNNING)
    command.note_overrun(at=later(2))
    assert (command.state, command.overruns) == (State.RUNNING, 1)
    command.note_overrun(at=later(3))
    assert command.failure is not None
    assert (command.state, command.failure.code) == (State.LOST, "impossible_result")
    command.note_overrun(at=later(4))
    assert (command.overruns, command.finished_at) == (2, later(3))


def test_an_outcome_is_taken_once_all_that_it_counts_is_stored() -> None:
    command = a_command_in(State.RUNNING)
    chunks = chunks_of(b"one", (Stream.STDERR, b"two"))
    outcome = an_outcome_after(chunks, exit_code=0)
    for chunk in chunks:
        assert command.settle(outcome, at=later(9)) is Settlement.INCOMPLETE
        command.append(chunk)
    assert command.settle(outcome, at=later(9)) is Settlement.TAKEN
    assert (command.state, command.exit_code, command.finished_at) == (
        State.SUCCEEDED,
        0,
        later(5),
    )


def test_an_outcome_carries_everything_that_is_known_of_the_end() -> None:
    command = a_command_in(State.RUNNING)
    stop = StopFailure("stop_not_permitted", "one is left", (1,))
    gaps = [Missing(Stream.STDOUT, 0, 4)]
    command.settle(
        an_outcome(
            state=State.FAILED,
            exit_code=None,
            signal="SIGTERM",
            failure=WHY,
            stop_failure=stop,
            stdout_written=4,
            missing=gaps,
        ),
        at=later(9),
    )
    assert (command.signal, command.failure, command.stop_failure) == ("SIGTERM", WHY, stop)
    assert (command.missing, command.is_truncated) == (tuple(gaps), True)


OUT_AND_ERR = chunks_of(b"one", (Stream.STDERR, b"two"))
OTHER = {"stdout_digest": "0" * 64, "stderr_digest": "f" * 64}


def a_command_that_wrote() -> Command:
    command = a_command_in(State.RUNNING)
    for chunk in OUT_AND_ERR:
        command.append(chunk)
    command.pull_events()
    return command


@pytest.mark.parametrize("field", OTHER)
def test_an_outcome_of_other_bytes_than_are_stored_is_not_taken(field: str) -> None:
    command = a_command_that_wrote()
    outcome = an_outcome_after(OUT_AND_ERR, **{field: OTHER[field]})
    assert command.settle(outcome, at=later(9)) is Settlement.DIGEST_MISMATCH
    assert (command.state, command.exit_code) == (State.RUNNING, None)
    assert command.pull_events() == []
    whole = an_outcome_after(OUT_AND_ERR)
    assert command.settle(whole, at=later(9)) is Settlement.TAKEN


def test_a_digest_of_nothing_is_compared_like_any_other() -> None:
    command = a_command_in(State.RUNNING)
    wrong = an_outcome(**OTHER)
    assert command.settle(wrong, at=later(9)) is Settlement.DIGEST_MISMATCH
    assert command.settle(an_outcome_after([]), at=later(9)) is Settlement.TAKEN


@pytest.mark.parametrize(
    ("missing", "settlement"),
    [
        ([], Settlement.DIGEST_MISMATCH),
        ([Missing(Stream.STDERR, 0, 1)], Settlement.DIGEST_MISMATCH),
        ([Missing(Stream.STDOUT, 3, 4)], Settlement.TAKEN),
        ([Missing(Stream.STDERR, 0, 1), Missing(Stream.STDOUT, 3, 4)], Settlement.TAKEN),
    ],
)
def test_an_agent_may_be_unable_to_vouch_only_for_a_stream_that_it_calls_damaged(
    missing: list[Missing], settlement: Settlement
) -> None:
    command = a_command_that_wrote()
    outcome = an_outcome_after(OUT_AND_ERR, stdout_digest="", missing=missing)
    assert command.settle(outcome, at=later(9)) is settlement


def test_a_copy_to_look_at_carries_no_digests() -> None:
    command = a_command_that_wrote()
    assert command.digests.stdout.covered == 3
    assert command.snapshot().digests.stdout.covered == 0


def test_a_repeated_outcome_changes_nothing() -> None:
    command = a_command_in(State.RUNNING)
    command.settle(an_outcome(), at=later(9))
    command.pull_events()
    repeat = an_outcome(state=State.FAILED, exit_code=1)
    assert command.settle(repeat, at=later(10)) is Settlement.TAKEN
    assert (command.state, command.exit_code) == (State.SUCCEEDED, 0)
    assert command.pull_events() == []


def test_an_outcome_tells_of_the_beginning_that_nobody_heard_of() -> None:
    command = a_command(offered_epoch=1)
    command.settle(an_outcome(), at=later(9))
    moves = [event.state for event in command.pull_events() if isinstance(event, CommandMoved)]
    assert moves == [State.DISPATCHED, State.RUNNING, State.SUCCEEDED]
    assert command.duration_s == 3.0


def test_a_command_that_could_not_start_fails_without_a_beginning() -> None:
    command = a_command(offered_epoch=1)
    command.settle(an_outcome(state=State.FAILED, beginning=None, failure=WHY), at=later(9))
    assert (command.state, command.started_at, command.duration_s) == (State.FAILED, None, None)


@pytest.mark.parametrize(
    ("here", "outcome"),
    [
        (State.DISPATCHED, an_outcome(beginning=None)),
        (State.DISPATCHED, an_outcome(state=State.RUNNING, beginning=None)),
        (State.QUEUED, an_outcome(state=State.TIMED_OUT, beginning=None)),
        (State.RUNNING, an_outcome(state=State.REJECTED)),
        (State.RUNNING, an_outcome(state=State.PAUSED)),
        (State.PAUSED, an_outcome(state=State.QUEUED)),
    ],
)
def test_an_impossible_outcome_is_no_knowledge_of_the_end(here: State, outcome) -> None:
    command = a_command_in(here)
    assert command.settle(outcome, at=later(9)) is Settlement.TAKEN
    assert (command.state, command.exit_code) == (State.LOST, None)
    assert command.failure is not None
    assert command.failure.code == "impossible_result"


YEAR_S = 365 * 86400.0


@pytest.mark.parametrize("wrong_s", [-56 * YEAR_S, -3600.0, 3600.0, 7000 * YEAR_S])
@pytest.mark.parametrize("is_heard_at_once", [True, False])
def test_a_clock_that_is_wrong_says_how_long_it_took_and_not_when(
    wrong_s: float, is_heard_at_once: bool
) -> None:
    command = a_command_in(State.DISPATCHED)
    beginning = a_beginning(started_at=later(wrong_s + 2))
    if is_heard_at_once:
        command.begin(beginning, at=later(4))
    command.settle(an_outcome(beginning=beginning, finished_at=later(wrong_s + 5)), at=later(7))
    assert (command.started_at, command.finished_at) == (later(4), later(7))
    assert (command.settled_at, command.moved_at, command.duration_s) == (later(7), later(7), 3.0)


def test_no_duration_is_longer_than_the_command_is_old() -> None:
    command = a_command_in(State.DISPATCHED)
    beginning = a_beginning(started_at=later(-2000 * YEAR_S))
    command.settle(an_outcome(beginning=beginning, finished_at=later(7000 * YEAR_S)), at=later(9))
    assert (command.started_at, command.finished_at) == (NOW, later(9))


def test_it_does_not_end_before_it_was_heard_to_start() -> None:
    command = a_command_in(State.DISPATCHED)
    command.begin(a_beginning(started_at=later(3600)), at=later(4))
    command.settle(an_outcome(finished_at=later(3)), at=later(9))
    assert (command.started_at, command.finished_at, command.duration_s) == (later(4), later(4), 0)


def test_an_end_that_is_heard_of_late_is_settled_when_it_is_heard_of() -> None:
    command = a_command_in(State.RUNNING)
    command.settle(an_outcome(), at=later(90 * 86400))
    assert (command.finished_at, command.settled_at) == (later(5), later(90 * 86400))


def test_an_end_before_the_start_lasts_no_time() -> None:
    command = a_command_in(State.DISPATCHED)
    command.settle(an_outcome(beginning=a_beginning(started_at=later(7))), at=later(9))
    assert command.duration_s == 0.0


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("state", State)
def test_an_action_is_asked_where_it_makes_sense(state: State, action: Action) -> None:
    command = a_command_in(state)
    if state in ALLOWED[action]:
        assert command.request(action, at=later(9))
        assert (command.state, command.requested_action) == (state, action)
    else:
        with pytest.raises(InvalidState):
            command.request(action, at=later(9))
        assert command.requested_action is None


@pytest.mark.parametrize("action", [Action.CANCEL, Action.KILL])
def test_one_that_no_agent_can_know_of_is_cancelled_at_once(action: Action) -> None:
    command = a_command()
    assert not command.request(action, at=later(9))
    assert (command.state, command.finished_at) == (State.CANCELLED, later(9))


@pytest.mark.parametrize("state", State)
def test_every_unfinished_command_can_be_lost(state: State) -> None:
    command = a_command_in(state)
    command.lose(WHY, at=later(9))
    assert (command.failure == WHY) is (state not in FINAL)
    assert command.state is (State.LOST if state not in FINAL else state)


def test_the_output_of_one_that_is_lost_after_its_start_may_have_been_cut() -> None:
    for command, is_complete in (
        (a_command_in(State.RUNNING, started_at=later(2)), False),
        (a_command_in(State.PAUSED, started_at=later(2)), False),
        (a_command_in(State.DISPATCHED, stored=OutputTotals(1, 2, 0)), False),
        (a_command_in(State.DISPATCHED), True),
        (a_command(), True),
    ):
        assert command.is_output_complete
        command.lose(WHY, at=later(9))
        assert command.is_output_complete is is_complete


@pytest.mark.parametrize(
    ("counted", "is_complete"),
    [
        ({}, True),
        ({"stdout_written": 9}, False),
        ({"missing": (Missing(Stream.STDOUT, 2, 7),)}, False),
    ],
)
@pytest.mark.parametrize("end", [{"state": State.LOST}, {"state": State.FAILED, "exit_code": 0}])
def test_a_lost_one_is_complete_if_its_outcome_counts_what_is_stored(
    end: dict[str, Any], counted: dict[str, Any], is_complete: bool
) -> None:
    command, chunks = a_command_in(State.DISPATCHED), chunks_of(b"hi")
    command.append(chunks[0])
    outcome = an_outcome_after(chunks, **{"exit_code": None, **end, **counted})
    assert command.settle(outcome, at=later(9)) is Settlement.TAKEN
    assert (command.state, command.is_output_complete) == (State.LOST, is_complete)


@pytest.mark.parametrize("state", State)
def test_only_what_has_not_run_can_be_rejected(state: State) -> None:
    command = a_command_in(state)
    command.reject(WHY, at=later(9))
    assert (command.failure == WHY) is (State.REJECTED in NEXT.get(state, ()))


def test_a_command_expires_at_its_time_and_not_before() -> None:
    command = a_command(expires_at=later(60))
    assert not command.expire(at=later(59.999))
    assert command.expire(at=later(60))
    assert command.state is State.REJECTED
    assert command.failure is not None
    assert command.failure.code == "expired"
    assert not command.expire(at=later(61))


def test_what_an_agent_may_know_of_does_not_expire_here() -> None:
    assert not a_command(offered_epoch=1).expire(at=later(999))
    assert not a_command_in(State.RUNNING).expire(at=later(999))


@pytest.mark.parametrize(
    ("stdout", "stderr", "is_truncated"), [(3, 0, False), (4, 0, True), (3, 1, True), (2, 0, False)]
)
def test_truncated_means_that_more_was_written_than_is_stored(
    stdout: int, stderr: int, is_truncated: bool
) -> None:
    command = a_command(stored=OutputTotals(1, 3, 0), stdout_written=stdout, stderr_written=stderr)
    assert command.is_truncated is is_truncated
    assert not a_command(stored=OutputTotals(1, 3, 0)).is_truncated


def test_bytes_are_counted_as_they_were_written_and_at_least_as_they_are_stored() -> None:
    command = a_command(stored=OutputTotals(2, 3, 5), stdout_written=9, stderr_written=None)
    assert command.bytes_written(Stream.STDOUT) == 9
    assert command.bytes_written(Stream.STDERR) == 5


def test_marks_fall_due_where_a_mebibyte_is_full() -> None:
    command = a_command_in(State.RUNNING)
    size = 256 * 1024
    for chunk in chunks_of(*[b"x" * (size - 1) + b"\n"] * 9):
        command.append(chunk)
    marks = command.pull_marks()
    assert [(mark.totals.next_seq, mark.lines.ended) for mark in marks] == [(4, 16), (8, 32)]
    assert command.pull_marks() == []


def test_it_was_dispatched_before_it_started_whenever_that_is_heard() -> None:
    command = a_command()
    command.begin(a_beginning(), at=later(60))
    assert command.dispatched_at is not None
    assert command.started_at is not None
    assert command.dispatched_at <= command.started_at


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        (State.SUCCEEDED, {"exit_code": 5}),
        (State.SUCCEEDED, {"exit_code": None}),
        (State.SUCCEEDED, {"exit_code": 0, "signal": "SIGTERM"}),
        (State.FAILED, {"exit_code": 0}),
        (State.FAILED, {"exit_code": None}),
    ],
)
def test_a_result_that_contradicts_itself_is_not_believed(
    state: State, fields: dict[str, object]
) -> None:
    command = a_command_in(State.RUNNING)
    wanted = {"state": state, "exit_code": None, "signal": None, "failure": None, **fields}
    outcome = replace(an_outcome(), **wanted)
    assert command.settle(outcome, at=later(9)) is Settlement.TAKEN
    assert command.state is State.LOST
    assert command.failure is not None
    assert command.failure.code == "impossible_result"


def test_nothing_but_the_stronger_stop_follows_a_stop() -> None:
    command = a_command_in(State.RUNNING, offered_epoch=1)
    assert command.request(Action.KILL, at=NOW) is True
    assert command.request(Action.CANCEL, at=NOW) is False
    assert command.requested_action is Action.KILL
    with pytest.raises(InvalidState):
        command.request(Action.PAUSE, at=NOW)


def test_a_refused_stop_is_said_and_a_refused_pause_forgotten() -> None:
    stopped, paused = (a_command_in(State.RUNNING, offered_epoch=1) for _ in range(2))
    stopped.request(Action.CANCEL, at=NOW)
    paused.request(Action.PAUSE, at=NOW)
    stopped.refuse_request(Action.CANCEL, WHY)
    paused.refuse_request(Action.PAUSE, WHY)
    assert stopped.stop_failure == StopFailure(WHY.code, WHY.message)
    assert (paused.stop_failure, paused.requested_action) == (None, None)


def test_a_refused_pause_is_not_laid_to_the_charge_of_a_cancel_that_came_after_it() -> None:
    command = a_command_in(State.RUNNING, offered_epoch=1)
    command.request(Action.PAUSE, at=NOW)
    command.request(Action.CANCEL, at=NOW)
    command.refuse_request(Action.PAUSE, WHY)
    assert (command.stop_failure, command.requested_action) == (None, Action.CANCEL)
