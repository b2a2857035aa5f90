"""The domain to the published language and back: the one module that knows both."""

import base64
import hashlib
import json
from datetime import datetime
from typing import Literal

from app.application.follower import StateReached
from app.application.output_lines import LinePage
from app.application.ports.agent_channel import OrderAcknowledged
from app.application.ports.security import Claims
from app.application.use_cases.queries import Page, SeenAgent, Tails
from app.application.use_cases.record_reports import Recorded, StateReport
from app.application.use_cases.register_agent import Registered, Registration
from app.application.use_cases.submit_command import Submission
from app.domain.errors import Invalid
from app.domain.ids import AgentId, CommandId, SessionId
from app.domain.models.agent import AgentFacts, SshTarget
from app.domain.models.command import Beginning, Command, Failure, Outcome, StopFailure
from app.domain.models.command_line import CommandLine
from app.domain.models.order import ControlOrder, RunOrder, SealedOrder
from app.domain.models.output import Chunk, Missing, OutputTotals, Stream
from app.domain.models.states import Action, State
from app.domain.models.user import NamedToken, Principal, User
from ogent.protocol import messages, resources
from ogent.protocol.codec import pack, unpack
from ogent.protocol.names import NOT_NOW
from ogent.protocol.states import STATUS
from ogent.protocol.states import Action as WireAction
from ogent.protocol.states import Role as WireRole
from ogent.protocol.states import State as WireState
from ogent.protocol.states import Stream as WireStream

# --- agents ------------------------------------------------------------------------------------


def agent(seen: SeenAgent) -> resources.Agent:
    """An agent as clients see it."""
    found = seen.agent
    return resources.Agent(
        agent_id=found.id,
        sid=found.sid,
        status="online" if found.is_online else "offline",
        connected_at=found.connected_at,
        last_seen_at=seen.last_seen_at,
        labels=dict(found.labels),
        running=seen.running,
        agent_info=_agent_info(found.facts),
    )


def _agent_info(facts: AgentFacts) -> resources.AgentInfo:
    return resources.AgentInfo(
        platform=facts.platform,
        version=facts.version,
        python=facts.python,
        hostname=facts.hostname,
        agent_version=facts.agent_version,
        executors=[word for word in ("local", "ssh") if word in facts.executors],
        ssh_enabled=facts.ssh_enabled,
        ssh_target=facts.ssh_target,
        ssh_targets=[
            resources.SshTarget(name=t.name, target=t.target, labels=dict(t.labels))
            for t in facts.ssh_targets
        ],
    )


def facts(info: resources.AgentInfo) -> AgentFacts:
    """What an agent said of itself."""
    return AgentFacts(
        platform=info.platform,
        version=info.version,
        python=info.python,
        hostname=info.hostname,
        agent_version=info.agent_version,
        executors=tuple(info.executors),
        ssh_enabled=info.ssh_enabled,
        ssh_target=info.ssh_target,
        ssh_targets=tuple(SshTarget(t.name, t.target, t.labels) for t in info.ssh_targets),
    )


def registration(frame: messages.Register, agent_id: AgentId, sid: SessionId) -> Registration:
    """What an agent wants when it connects; who it is follows from its token."""
    return Registration(
        agent_id=agent_id,
        sid=sid,
        facts=facts(frame.agent_info),
        labels=frame.labels,
        last_epoch=frame.last_epoch,
        held=frozenset(CommandId(held.command_id) for held in frame.resume),
    )


def registration_response(registered: Registered) -> messages.RegistrationResponse:
    """What both sides agreed on."""
    return messages.RegistrationResponse(
        agent_id=registered.session.agent_id,
        epoch=registered.session.epoch,
        server_time=registered.server_time,
        resume=[
            messages.ResumePoint(
                command_id=point.command_id,
                next_seq=point.stored.next_seq,
                stdout_bytes=point.stored.stdout_bytes,
                stderr_bytes=point.stored.stderr_bytes,
                drop=point.is_dropped,
            )
            for point in registered.resume
        ],
    )


# --- orders ------------------------------------------------------------------------------------


def run_order(order: RunOrder) -> bytes:
    """A run order in MessagePack."""
    frame = messages.RunOrder(
        command_id=order.command_id,
        agent_id=order.agent_id,
        command=order.line.text,
        execution_target=order.execution_target,
        timeout=order.timeout_s,
        env=dict(order.line.env),
        cwd=order.line.cwd,
        stdin=order.line.stdin,
        max_output_bytes=order.max_output_bytes,
        requester=order.requester,
        issued_at=order.issued_at,
        expires_at=order.expires_at,
    )
    return pack(frame.model_dump())


def control_order(order: ControlOrder) -> bytes:
    """A control order in MessagePack."""
    frame = messages.ControlOrder(
        control_id=order.control_id,
        command_id=order.command_id,
        agent_id=order.agent_id,
        action=WireAction(order.action),
        requester=order.requester,
        issued_at=order.issued_at,
        expires_at=order.expires_at,
    )
    return pack(frame.model_dump())


def control_action(order: bytes) -> Action:
    """What a control order, as `control_order` made it, tells its agent to do."""
    return Action(messages.ControlOrder.model_validate(unpack(order)).action.value)


def signed_order(sealed: SealedOrder) -> messages.SignedOrder:
    """A sealed order as it is sent."""
    return messages.SignedOrder(
        order=sealed.order, signature=sealed.signature, key_id=sealed.key_id
    )


def acknowledged(ack: messages.OrderAck) -> OrderAcknowledged:
    """An agent's answer to an order."""
    if ack.ok:
        return OrderAcknowledged(is_gone=not ack.held)
    if ack.error is not None and ack.error.code in NOT_NOW:
        return OrderAcknowledged(is_put_off=True)
    refusal = ack.error or resources.CommandError(code="refused", message="the agent refused it")
    return OrderAcknowledged(Failure(refusal.code, refusal.message))


# --- reports of agents --------------------------------------------------------------------------


def chunk(frame: messages.AgentProgress) -> Chunk:
    """A chunk that an agent sent."""
    return Chunk(frame.seq, Stream(frame.stream), frame.offset, frame.data, frame.timestamp)


def state_report(frame: messages.AgentCommandState) -> StateReport:
    """A state that an agent reported."""
    return StateReport(
        State(frame.state),
        _beginning(frame.started_at, frame.execution_type, frame.target),
        _stop_failure(frame.stop_error),
    )


def outcome(frame: messages.AgentResult) -> Outcome:
    """How an execution ended, as its agent reported it."""
    return Outcome(
        state=State(frame.state),
        finished_at=frame.finished_at,
        next_seq=frame.next_seq,
        beginning=_beginning(frame.started_at, frame.execution_type, frame.target),
        exit_code=frame.exit_code,
        signal=frame.signal,
        stdout_written=frame.stdout_bytes,
        stderr_written=frame.stderr_bytes,
        stdout_stored=frame.stdout_stored,
        stderr_stored=frame.stderr_stored,
        stdout_digest=frame.stdout_digest,
        stderr_digest=frame.stderr_digest,
        missing=[Missing(Stream(m.stream), m.offset, m.length) for m in frame.missing],
        failure=None if frame.error is None else Failure(frame.error.code, frame.error.message),
        stop_failure=_stop_failure(frame.stop_error),
    )


def _beginning(
    started_at: datetime | None, execution_type: str | None, target: str | None
) -> Beginning | None:
    if started_at is None:
        return None
    return Beginning(started_at=started_at, execution_type=execution_type, target=target)


def _stop_failure(error: resources.StopError | None) -> StopFailure | None:
    return None if error is None else StopFailure(error.code, error.message, tuple(error.pids))


def progress_ack(command_id: str, stored: OutputTotals) -> messages.ProgressAck:
    """What of a command is durably stored."""
    return messages.ProgressAck(
        command_id=command_id,
        next_seq=stored.next_seq,
        stdout_bytes=stored.stdout_bytes,
        stderr_bytes=stored.stderr_bytes,
    )


def result_ack(recorded: Recorded) -> messages.ResultAck:
    """The answer to a result: taken, unknown here, or what is stored where it is not the same."""
    error = None
    if not recorded.is_known:
        error = resources.CommandError(code="command_not_found", message="no such command here")
    elif recorded.is_different:
        error = resources.CommandError(
            code="digest_mismatch", message="other bytes are stored than were sent"
        )
    elif not recorded.is_settled:
        error = resources.CommandError(code="incomplete", message="output before it is missing")
    return messages.ResultAck(
        ok=error is None,
        error=error,
        next_seq=recorded.stored.next_seq,
        stdout_bytes=recorded.stored.stdout_bytes,
        stderr_bytes=recorded.stored.stderr_bytes,
    )


# --- commands -----------------------------------------------------------------------------------


def submission(
    body: resources.ExecuteRequest,
    principal: Principal,
    agent_id: str,
    idempotency_key: str | None,
) -> Submission:
    """What a client wants run; raises Invalid or TooLarge.

    `use_ai` is refused while there is no analyzer: to run unanalysed what was to be analysed would
    be worse.
    """
    if body.use_ai:
        raise Invalid("use_ai: this controller has no analyzer yet; send the command without it")
    return Submission(
        principal=principal,
        agent_id=AgentId(agent_id),
        line=CommandLine(body.command, body.env, body.cwd, body.stdin),
        execution_target=body.execution_target,
        timeout_s=body.timeout,
        may_wait=body.queue,
        expires_in_s=body.expires_in,
        idempotency_key=idempotency_key,
        fingerprint="" if idempotency_key is None else _fingerprint(body, agent_id),
    )


def _fingerprint(body: resources.ExecuteRequest, agent_id: str) -> str:
    """The same for the same body to the same agent, `wait` aside, by whichever door it came."""
    fields = {name: getattr(body, name) for name in resources.ExecuteRequest.model_fields}
    del fields["wait"]
    text = json.dumps([agent_id, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def command(found: Command) -> resources.Command:
    """A command as clients see it."""
    state = WireState(found.state)
    return resources.Command(
        command_id=found.id,
        agent_id=found.agent_id,
        command=found.text,
        execution_target=found.execution_target,
        execution_type=_execution_type(found),
        target=found.target,
        state=state,
        status=STATUS[state],
        requester=found.requester,
        created_at=found.created_at,
        dispatched_at=found.dispatched_at,
        started_at=found.started_at,
        finished_at=found.finished_at,
        timeout=found.timeout_s,
        exit_code=found.exit_code,
        signal=found.signal,
        error=_error(found.failure),
        stdout_bytes=found.bytes_written(Stream.STDOUT),
        stderr_bytes=found.bytes_written(Stream.STDERR),
        stdout_stored=found.stored.stdout_bytes,
        stderr_stored=found.stored.stderr_bytes,
        truncated=found.is_truncated,
        output_complete=found.is_output_complete,
        duration=found.duration_s,
        requested_action=(
            None if found.requested_action is None else WireAction(found.requested_action)
        ),
        stop_error=_stop_error(found.stop_failure),
    )


def command_page(page: Page) -> resources.CommandPage:
    """A page of commands."""
    return resources.CommandPage(
        items=[command(found) for found in page.commands], next_cursor=page.next_before
    )


def finished(found: Command, tails: Tails) -> resources.Finished:
    """The execute response's body for a final command."""
    return resources.Finished(
        status="success" if found.state is State.SUCCEEDED else "error",
        state=WireState(found.state),
        command_id=found.id,
        command=found.text,
        result=_result(found, tails),
        error=_error(found.failure),
    )


def unfinished(found: Command) -> resources.Unfinished:
    """The execute response's body for a command that goes on."""
    state = WireState(found.state)
    return resources.Unfinished(
        status="queued" if state is WireState.QUEUED else "running",
        state=state,
        command_id=found.id,
        command=found.text,
    )


def _result(found: Command, tails: Tails) -> resources.Result:
    stdout, stderr = (_text_of_tail(tail) for tail in (tails.stdout, tails.stderr))
    stored = found.stored
    is_cut = stored.stdout_bytes > len(tails.stdout) or stored.stderr_bytes > len(tails.stderr)
    return resources.Result(
        command=found.text,
        exit_code=found.exit_code,
        signal=found.signal,
        stdout=stdout,
        stderr=stderr,
        timestamp=found.finished_at or found.created_at,
        execution_type=_execution_type(found),
        target=found.target,
        duration=found.duration_s,
        stdout_bytes=found.bytes_written(Stream.STDOUT),
        stderr_bytes=found.bytes_written(Stream.STDERR),
        stdout_stored=stored.stdout_bytes,
        stderr_stored=stored.stderr_bytes,
        truncated=found.is_truncated or is_cut,
    )


def _text_of_tail(tail: bytes) -> str:
    """UTF-8 text, undecodable bytes replaced."""
    return tail.decode("utf-8", "replace")


def _execution_type(found: Command) -> Literal["local", "ssh"] | None:
    match found.execution_type:
        case "local":
            return "local"
        case "ssh":
            return "ssh"
        case _:
            return None


def _error(failure: Failure | None) -> resources.CommandError | None:
    if failure is None:
        return None
    return resources.CommandError(code=failure.code, message=failure.message)


def _stop_error(failure: StopFailure | None) -> resources.StopError | None:
    if failure is None:
        return None
    return resources.StopError(code=failure.code, message=failure.message, pids=list(failure.pids))


# --- what followers are told --------------------------------------------------------------------


def accepted(found: Command) -> messages.CommandAccepted:
    """`command_response`."""
    return messages.CommandAccepted(
        command_id=found.id,
        agent_id=found.agent_id,
        command=found.text,
        state=WireState(found.state),
    )


def progress(found: Command, piece: Chunk) -> messages.ClientProgress:
    """`command_progress`: text, and the exact bytes beside it where text cannot carry them."""
    exact: str | None = None
    try:
        text = piece.data.decode()
    except UnicodeDecodeError:
        text = piece.data.decode("utf-8", "replace")
        exact = base64.b64encode(piece.data).decode("ascii")
    return messages.ClientProgress(
        command_id=found.id,
        agent_id=found.agent_id,
        seq=piece.seq,
        stream=WireStream(piece.stream),
        data=text,
        data_base64=exact,
        offset=piece.offset,
        timestamp=piece.at,
    )


def state_reached(found: Command, reached: StateReached) -> messages.ClientState:
    """`command_state`."""
    return messages.ClientState(
        command_id=found.id,
        agent_id=found.agent_id,
        state=WireState(reached.state),
        timestamp=reached.at,
    )


def client_result(found: Command, tails: Tails) -> messages.ClientResult:
    """`command_result`."""
    body = finished(found, tails)
    return messages.ClientResult(
        status=body.status,
        state=body.state,
        command_id=body.command_id,
        command=body.command,
        result=body.result,
        error=body.error,
        ai_processing=body.ai_processing,
        agent_id=found.agent_id,
        timestamp=body.result.timestamp,
    )


def output_page(command_id: str, stream: Stream | None, page: LinePage) -> resources.OutputPage:
    """A page of lines."""
    return resources.OutputPage(
        command_id=command_id,
        stream="both" if stream is None else stream.value,
        lines=[
            resources.OutputLine(
                number=line.number,
                stream=WireStream(line.stream),
                text=line.text,
                timestamp=line.at,
                truncated=line.is_cut,
            )
            for line in page.lines
        ],
        total_lines=page.total_lines,
        matched_lines=page.matched_lines,
        next_offset=page.next_offset,
        complete=page.is_complete,
        missing=[
            resources.MissingOutput(
                stream=WireStream(gap.stream), offset=gap.offset, length=gap.length
            )
            for gap in page.missing
        ],
    )


# --- people -------------------------------------------------------------------------------------


def access_token(token: str, claims: Claims) -> resources.AccessToken:
    """A token and how long it is good."""
    lifetime = claims.expires_at - claims.issued_at
    return resources.AccessToken(access_token=token, expires_in=lifetime.total_seconds())


def me(principal: Principal) -> resources.Me:
    """Who somebody is."""
    return resources.Me(
        username=principal.name,
        role=WireRole(principal.role),
        selector=principal.selector_text,
    )


def user(found: User) -> resources.User:
    """An account without its secret."""
    return resources.User(
        username=found.name,
        role=WireRole(found.role),
        selector=found.selector,
        disabled=found.is_disabled,
    )


def token_info(found: NamedToken) -> resources.TokenInfo:
    """A named token without its secret."""
    return resources.TokenInfo(
        token_id=found.id,
        name=found.name,
        role=WireRole(found.role),
        selector=found.selector,
        created_at=found.created_at,
        expires_at=found.expires_at,
    )


def created_token(token: str, found: NamedToken) -> resources.CreatedToken:
    """A named token with its secret: shown this once."""
    return resources.CreatedToken(**dict(token_info(found)), token=token)
