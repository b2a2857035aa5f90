from datetime import timedelta

import pytest

from agent import wire
from agent.domain.errors import MalformedOrder
from agent.domain.models.execution import Ending, Execution, Failure, State, StopFailure
from agent.domain.models.executor import Exit
from agent.domain.models.order import Action
from agent.domain.models.output import (
    Chunk,
    Counts,
    Missing,
    OutputTotals,
    Stream,
    StreamTotals,
)
from agent.domain.models.transmission import Written
from ogent.protocol import messages
from ogent.protocol.codec import format_time, pack
from tests.fakes.agent_ports import LOCAL, NOW, an_order

NOTHING = OutputTotals(0, StreamTotals(0, 0, "d"), StreamTotals(0, 0, "d"))

RUN = {
    "v": 1, "kind": "run", "command_id": "c", "agent_id": "web-1", "command": "true",
    "execution_target": "auto", "timeout": 2.0, "env": {"A": "b"}, "cwd": "/", "stdin": "x",
    "max_output_bytes": 9, "requester": "ann", "issued_at": format_time(NOW),
    "expires_at": format_time(NOW + timedelta(seconds=60)),
}  # fmt: skip
CONTROL = {
    "v": 1, "kind": "control", "control_id": "k", "command_id": "c", "agent_id": "web-1",
    "action": "kill", "requester": "ann", "issued_at": format_time(NOW),
    "expires_at": format_time(NOW),
}  # fmt: skip


def sealed(order: dict[str, object], signature: bytes = b"") -> dict[str, object]:
    return {"order": pack(order), "signature": signature, "key_id": ""}


def test_an_order_to_run_is_read_whole() -> None:
    order = wire.run_order(sealed(RUN), wire.unsigned_orders)
    assert (order.id, order.command, order.timeout_s, order.stdin) == ("c", "true", 2.0, "x")
    assert (order.env, order.cwd, order.max_output_bytes) == ({"A": "b"}, "/", 9)
    assert order.expires_at == NOW + timedelta(seconds=60)


def test_a_control_is_read_whole() -> None:
    control = wire.control_order(sealed(CONTROL), wire.unsigned_orders)
    assert (control.id, control.command_id, control.action) == ("k", "c", Action.KILL)


@pytest.mark.parametrize(
    "frame",
    [
        None,
        {},
        sealed(RUN, b"signed"),
        sealed(CONTROL),
        sealed({**RUN, "v": 2}),
        {**sealed(RUN), "order": b"\xc1"},
        {**sealed(RUN), "order": pack(RUN)[:-3]},
    ],
)
def test_what_is_no_order_to_run_is_malformed(frame: object) -> None:
    with pytest.raises(MalformedOrder):
        wire.run_order(frame, wire.unsigned_orders)


def test_what_is_no_control_is_malformed() -> None:
    with pytest.raises(MalformedOrder):
        wire.control_order(sealed(RUN), wire.unsigned_orders)


def test_a_complaint_does_not_show_what_the_order_holds() -> None:
    with pytest.raises(MalformedOrder) as caught:
        wire.run_order(sealed({**RUN, "timeout": "hunter2"}), wire.unsigned_orders)
    assert "timeout" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("process_exit", "word"),
    [(Exit(code=0), "succeeded"), (Exit(code=1), "failed"), (Exit(signal="SIGKILL"), "failed")],
)
def test_how_it_exited_decides_between_success_and_failure(process_exit: Exit, word: str) -> None:
    execution = Execution(order=an_order())
    execution.start(LOCAL, at=NOW)
    written = Written(Counts(), Counts())
    outcome = execution.end(
        Ending(finished_at=NOW, started_at=NOW, written=written, exit=process_exit)
    )
    frame = messages.AgentResult.model_validate(wire.outcome_frame(outcome, NOTHING))
    assert (frame.state, frame.execution_type, frame.started_at) == (word, "local", NOW)


def test_an_outcome_tells_the_account_of_its_output() -> None:
    gaps = tuple(Missing(Stream.STDERR, at, 1) for at in range(wire.MISSING_MAX + 1))
    totals = OutputTotals(9, StreamTotals(5, 3, "ab"), StreamTotals(4096, 1, ""), gaps)
    outcome = Execution(order=an_order()).end_unrun(State.LOST, at=NOW)
    frame = messages.AgentResult.model_validate(wire.outcome_frame(outcome, totals))
    assert (frame.next_seq, frame.stdout_bytes, frame.stdout_stored) == (9, 5, 3)
    assert (frame.stdout_digest, frame.stderr_digest) == ("ab", "")
    assert len(frame.missing) == wire.MISSING_MAX
    assert (frame.missing[1].stream, frame.missing[1].offset) == ("stderr", 1)


def test_a_stop_that_failed_is_told() -> None:
    execution = Execution(order=an_order())
    execution.start(LOCAL, at=NOW)
    execution.stop_failure = StopFailure("stop_not_permitted", "no", (7,))
    frame = messages.AgentCommandState.model_validate(wire.report_frame(execution.report(at=NOW)))
    assert frame.stop_error is not None
    assert (frame.state, frame.stop_error.pids) == ("running", [7])


def test_a_failure_without_a_process_is_told() -> None:
    execution = Execution(order=an_order())
    why = Failure("spawn_failed", "no shell")
    outcome = execution.end_unrun(State.FAILED, at=NOW, failure=why)
    frame = messages.AgentResult.model_validate(wire.outcome_frame(outcome, NOTHING))
    assert frame.error is not None
    assert (frame.error.code, frame.execution_type) == ("spawn_failed", None)


def test_what_is_too_long_for_a_frame_is_cut() -> None:
    why = Failure("spawn_failed", "\u0001" * 100_000)
    outcome = Execution(order=an_order()).end_unrun(State.FAILED, at=NOW, failure=why)
    frame = messages.AgentResult.model_validate(wire.outcome_frame(outcome, NOTHING))
    assert frame.error is not None
    assert len(frame.error.message) == wire.MESSAGE_MAX_CHARS
    execution = Execution(order=an_order())
    execution.start(LOCAL, at=NOW)
    execution.stop_failure = StopFailure("stop_incomplete", "x" * 9999, tuple(range(5000)))
    told = messages.AgentCommandState.model_validate(wire.report_frame(execution.report(at=NOW)))
    assert told.stop_error is not None
    assert len(told.stop_error.pids) == wire.PIDS_MAX


def test_a_chunk_fits_into_a_frame() -> None:
    chunk = Chunk(0, Stream.STDOUT, 0, b"x" * 256 * 1024, NOW)
    frame = wire.chunk_frame(an_order().id, chunk)
    assert messages.AgentProgress.model_validate(frame).data == chunk.data
    assert len(pack(frame)) < 1024 * 1024
