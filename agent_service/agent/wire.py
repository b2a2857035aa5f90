"""Between the agent's domain and the published language of `ogent.protocol`."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from pydantic import ValidationError

from agent.application.ports.controller_link import (
    Accepted,
    Held,
    HostFacts,
    Incomplete,
    Registration,
)
from agent.application.use_cases.resume_session import Registered, ResumePoint
from agent.domain.errors import AgentError, MalformedOrder, NotAcknowledged
from agent.domain.ids import AgentId, CommandId, ControlId
from agent.domain.models.execution import Failure, Outcome, Report, State, StopFailure
from agent.domain.models.executor import Exit, Place
from agent.domain.models.order import Action, Control, Order
from agent.domain.models.output import Chunk, Missing, OutputTotals, Position
from ogent.protocol import messages, resources, states
from ogent.protocol.codec import MalformedFrame, unpack

#: The controller's word for each state; `exited` depends on how.
_STATES: Final[Mapping[State, states.State]] = {
    State.ACCEPTED: states.State.DISPATCHED,
    State.RUNNING: states.State.RUNNING,
    State.PAUSED: states.State.PAUSED,
    State.EXITED: states.State.SUCCEEDED,
    State.FAILED: states.State.FAILED,
    State.TIMED_OUT: states.State.TIMED_OUT,
    State.CANCELLED: states.State.CANCELLED,
    State.LOST: states.State.LOST,
    State.REJECTED: states.State.REJECTED,
}

#: Refusals that no later try changes: the controller does not know the command, or this agent
#: speaks another language.
_UNKNOWN: Final = "command_not_found"
_REFUSED_FOR_GOOD: Final = frozenset({_UNKNOWN, "validation_error", "unknown_event"})
_INCOMPLETE: Final = frozenset({"incomplete", "digest_mismatch"})

#: Gaps, and processes that outlive a stop, that one frame names; characters of a reason.
MISSING_MAX: Final = 1024
PIDS_MAX: Final = 1024
MESSAGE_MAX_CHARS: Final = 4096

#: A frame as python-socketio packs it.
Payload = dict[str, Any]

#: Raises MalformedOrder unless the bytes of an order carry the signature of the named key.
OrderVerifier = Callable[[bytes, bytes, str], None]


def unsigned_orders(order: bytes, signature: bytes, key_id: str) -> None:
    """An OrderVerifier for controllers that do not sign: a signature is refused, not ignored."""
    del order
    if signature or key_id:
        raise MalformedOrder("the order is signed, and this agent knows no key to check it with")


# --- controller → agent -----------------------------------------------------------------------


def run_order(frame: object, verify: OrderVerifier) -> Order:
    """The order to run in a frame; raises MalformedOrder."""
    try:
        order = messages.RunOrder.model_validate(_opened(frame, verify))
    except ValidationError as exc:
        raise MalformedOrder(_complaint(exc)) from exc
    return Order(
        id=CommandId(order.command_id),
        agent_id=AgentId(order.agent_id),
        command=order.command,
        target=order.execution_target,
        max_output_bytes=order.max_output_bytes,
        expires_at=order.expires_at,
        timeout_s=order.timeout,
        env=order.env,
        cwd=order.cwd,
        stdin=order.stdin,
    )


def control_order(frame: object, verify: OrderVerifier) -> Control:
    """The control in a frame; raises MalformedOrder."""
    try:
        order = messages.ControlOrder.model_validate(_opened(frame, verify))
    except ValidationError as exc:
        raise MalformedOrder(_complaint(exc)) from exc
    return Control(
        id=ControlId(order.control_id),
        command_id=CommandId(order.command_id),
        agent_id=AgentId(order.agent_id),
        action=Action(order.action),
        expires_at=order.expires_at,
    )


def _opened(frame: object, verify: OrderVerifier) -> Payload:
    try:
        signed = messages.SignedOrder.model_validate(frame)
        verify(signed.order, signed.signature, signed.key_id)
        return unpack(signed.order)
    except ValidationError as exc:
        raise MalformedOrder(_complaint(exc)) from exc
    except MalformedFrame as exc:
        raise MalformedOrder(f"the order cannot be read: {exc}") from exc


def _complaint(exc: ValidationError) -> str:
    """Where a frame is wrong, without what it holds."""
    first = exc.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def registered(frame: object) -> Registered:
    """The answer to a registration; raises ValidationError."""
    answer = messages.RegistrationResponse.model_validate(frame)
    return Registered(
        epoch=answer.epoch,
        server_time=answer.server_time,
        resume=[
            ResumePoint(CommandId(point.command_id), _position(point), point.drop)
            for point in answer.resume
        ],
    )


def acknowledged(frame: object) -> tuple[CommandId, Position]:
    """What a `progress_ack` says; raises ValidationError."""
    ack = messages.ProgressAck.model_validate(frame)
    return CommandId(ack.command_id), _position(ack)


def accepted(frame: object) -> Accepted:
    """What a FrameAck says; raises ValidationError, or NotAcknowledged as `_answer` does."""
    return _answer(messages.FrameAck.model_validate(frame))


def outcome_answer(frame: object) -> Accepted | Incomplete:
    """What a ResultAck says; raises ValidationError, or NotAcknowledged as `_answer` does."""
    ack = messages.ResultAck.model_validate(frame)
    if not ack.ok and ack.error is not None and ack.error.code in _INCOMPLETE:
        return Incomplete(_position(ack))
    return _answer(ack)


def _answer(ack: messages.FrameAck) -> Accepted:
    """Taken, or refused for good; raises NotAcknowledged where a later try may be taken.

    What a controller cannot do now (its disk is full, it stops, it has a bug) is no reason to
    forget how a command ended.
    """
    if ack.ok:
        return Accepted()
    code = ack.error.code if ack.error else "without a reason"
    reason = f"{code}: {ack.error.message}" if ack.error else code
    if code in _REFUSED_FOR_GOOD:
        return Accepted(reason, is_unknown=code == _UNKNOWN)
    raise NotAcknowledged(f"the controller did not take it: {reason}")


def _position(
    place: messages.ResumePoint | messages.ProgressAck | messages.ResultAck,
) -> Position:
    return Position(place.next_seq, place.stdout_bytes, place.stderr_bytes)


# --- agent → controller -----------------------------------------------------------------------


def order_taken(command_id: CommandId, state: State, *, is_held: bool = True) -> Payload:
    """The acknowledgement of an order that is in the journal."""
    return messages.OrderAck(
        ok=True, command_id=command_id, state=_STATES[state], held=is_held
    ).model_dump()


def order_refused(command_id: str, why: AgentError) -> Payload:
    """The acknowledgement of an order that is not taken."""
    error = resources.CommandError(code=why.code, message=why.message)
    return messages.OrderAck(ok=False, command_id=command_id, error=error).model_dump()


def register_frame(registration: Registration) -> Payload:
    """`register`."""
    return messages.Register(
        agent_id=registration.agent_id,
        agent_info=_agent_info(registration.facts),
        labels=dict(registration.labels),
        last_epoch=registration.last_epoch,
        resume=[_held(held) for held in registration.held],
    ).model_dump()


def _agent_info(facts: HostFacts) -> resources.AgentInfo:
    return resources.AgentInfo(
        platform=facts.platform,
        version=facts.version,
        python=facts.python,
        hostname=facts.hostname,
        agent_version=facts.agent_version,
        executors=[executor.value for executor in facts.executors],
    )


def _held(held: Held) -> messages.HeldCommand:
    return messages.HeldCommand(
        command_id=held.command_id, state=_STATES[held.state], next_seq=held.next_seq
    )


def chunk_frame(command_id: CommandId, chunk: Chunk) -> Payload:
    """`command_progress`."""
    return messages.AgentProgress(
        command_id=command_id,
        seq=chunk.seq,
        stream=states.Stream(chunk.stream),
        offset=chunk.offset,
        data=chunk.data,
        timestamp=chunk.at,
    ).model_dump()


def report_frame(report: Report) -> Payload:
    """`command_state`."""
    return messages.AgentCommandState(
        command_id=report.command_id,
        state=_STATES[report.state],
        timestamp=report.at,
        started_at=report.started_at,
        execution_type=_execution_type(report.place),
        target=report.place.target,
        stop_error=_stop_error(report.stop_failure),
    ).model_dump()


def outcome_frame(outcome: Outcome, totals: OutputTotals) -> Payload:
    """`command_result`."""
    stdout, stderr = totals.stdout, totals.stderr
    return messages.AgentResult(
        command_id=outcome.command_id,
        state=_final_state(outcome.state, outcome.exit),
        next_seq=totals.next_seq,
        exit_code=outcome.exit.code,
        signal=outcome.exit.signal,
        stdout_bytes=stdout.written,
        stderr_bytes=stderr.written,
        stdout_stored=stdout.sent,
        stderr_stored=stderr.sent,
        stdout_digest=stdout.digest,
        stderr_digest=stderr.digest,
        missing=[_missing(gap) for gap in totals.missing[:MISSING_MAX]],
        started_at=outcome.started_at,
        finished_at=outcome.finished_at,
        execution_type=_execution_type(outcome.place),
        target=outcome.place.target if outcome.place else None,
        error=_error(outcome.failure),
        stop_error=_stop_error(outcome.stop_failure),
    ).model_dump()


def _missing(gap: Missing) -> resources.MissingOutput:
    return resources.MissingOutput(
        stream=states.Stream(gap.stream), offset=gap.offset, length=gap.length
    )


def _final_state(state: State, process_exit: Exit) -> states.State:
    if state is State.EXITED and process_exit.code != 0:
        return states.State.FAILED
    return _STATES[state]


def _execution_type(place: Place | None) -> Literal["local", "ssh"] | None:
    return place.execution_type.value if place else None


def _error(failure: Failure | None) -> resources.CommandError | None:
    if failure is None:
        return None
    return resources.CommandError(code=failure.code, message=_cut(failure.message))


def _stop_error(failure: StopFailure | None) -> resources.StopError | None:
    if failure is None:
        return None
    pids = list(failure.pids)[:PIDS_MAX]
    return resources.StopError(code=failure.code, message=_cut(failure.message), pids=pids)


def _cut(text: str) -> str:
    """`text`, or as much of it as a frame takes: what somebody else wrote may be in it."""
    return text if len(text) <= MESSAGE_MAX_CHARS else f"{text[: MESSAGE_MAX_CHARS - 1]}…"
