"""Valid objects, each with overrides: a test says only what matters to it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.ids import AgentId, CommandId, ControlId, IdSource, SessionId, TokenId, UserName
from app.domain.models.agent import Agent, AgentFacts, Session
from app.domain.models.command import Beginning, Command, Outcome
from app.domain.models.command_line import CommandLine
from app.domain.models.digests import OutputDigests
from app.domain.models.order import ControlOrder, PendingControl, RunOrder, SealedOrder
from app.domain.models.output import Chunk, OutputTotals, Stream
from app.domain.models.selector import Selector
from app.domain.models.states import Action, State
from app.domain.models.user import NamedToken, Principal, Role, User
from app.infrastructure.security.unsigned_sealer import UnsignedSealer

NOW = datetime(2026, 11, 21, 5, 44, 0, 123456, tzinfo=UTC)
WEB = AgentId("web-1")
DB = AgentId("db-1")
ALICE = UserName("alice")
SEALED = SealedOrder(b"an order", b"its signature", "key-1")

new_id = IdSource()


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def a_command(**overrides: Any) -> Command:
    values: dict[str, Any] = {
        "id": CommandId(new_id()),
        "agent_id": WEB,
        "text": "echo hi",
        "execution_target": "local",
        "requester": ALICE,
        "created_at": NOW,
        "expires_at": later(60),
        "max_output_bytes": 1 << 30,
    }
    return Command(**{**values, **overrides})


def a_command_in(state: State, **overrides: Any) -> Command:
    """A command that took a legal way to `state`; its events are pulled."""
    command = a_command(**{"offered_epoch": 1, **overrides})
    for step in _way_to(state):
        command.move(step, at=later(1))
    command.pull_events()
    return command


def _way_to(state: State) -> list[State]:
    match state:
        case State.QUEUED:
            return []
        case State.DISPATCHED | State.REJECTED | State.LOST:
            return [State.DISPATCHED, state][: 1 if state is State.DISPATCHED else 2]
        case State.RUNNING:
            return [State.DISPATCHED, State.RUNNING]
        case _:
            return [State.DISPATCHED, State.RUNNING, state]


def a_beginning(**overrides: Any) -> Beginning:
    values: dict[str, Any] = {
        "started_at": later(2),
        "execution_type": "local",
        "target": "web-1.example",
    }
    return Beginning(**{**values, **overrides})


def an_outcome(**overrides: Any) -> Outcome:
    values: dict[str, Any] = {
        "state": State.SUCCEEDED,
        "finished_at": later(5),
        "beginning": a_beginning(),
        "exit_code": 0,
    }
    return Outcome(**{**values, **overrides})


def an_outcome_after(chunks: list[Chunk], **overrides: Any) -> Outcome:
    """An outcome that counts exactly `chunks`."""
    totals, digests = OutputTotals(), OutputDigests()
    for chunk in chunks:
        totals, (digests, _) = totals.after(chunk), digests.after(chunk)
    counted = {
        "next_seq": totals.next_seq,
        "stdout_written": totals.stdout_bytes,
        "stderr_written": totals.stderr_bytes,
        "stdout_stored": totals.stdout_bytes,
        "stderr_stored": totals.stderr_bytes,
        "stdout_digest": digests.stdout.hexdigest(),
        "stderr_digest": digests.stderr.hexdigest(),
    }
    return an_outcome(**{**counted, **overrides})


def a_chunk(**overrides: Any) -> Chunk:
    values: dict[str, Any] = {
        "seq": 0,
        "stream": Stream.STDOUT,
        "offset": 0,
        "data": b"hi\n",
        "at": later(3),
    }
    return Chunk(**{**values, **overrides})


def chunks_of(*pieces: bytes | tuple[Stream, bytes]) -> list[Chunk]:
    """Consecutive chunks; bare bytes are of stdout."""
    chunks: list[Chunk] = []
    offsets = dict.fromkeys(Stream, 0)
    for seq, piece in enumerate(pieces):
        stream, data = (Stream.STDOUT, piece) if isinstance(piece, bytes) else piece
        chunks.append(Chunk(seq, stream, offsets[stream], data, later(3 + seq / 1000)))
        offsets[stream] += len(data)
    return chunks


def a_session(epoch: int = 1, agent_id: AgentId = WEB) -> Session:
    return Session(agent_id, SessionId(f"sid-{epoch}"), epoch)


def some_facts(**overrides: Any) -> AgentFacts:
    values: dict[str, Any] = {
        "platform": "Linux",
        "version": "6.1",
        "python": "3.11.2",
        "hostname": "web-1.example",
        "agent_version": "0.1.0",
    }
    return AgentFacts(**{**values, **overrides})


def an_agent(**overrides: Any) -> Agent:
    values: dict[str, Any] = {"id": WEB, "labels": {"env": "prod"}, "facts": some_facts()}
    return Agent(**{**values, **overrides})


def an_online_agent(**overrides: Any) -> Agent:
    values: dict[str, Any] = {"epoch": 1, "sid": SessionId("sid-1"), "connected_at": NOW}
    return an_agent(**{**values, **overrides})


def a_user(**overrides: Any) -> User:
    values: dict[str, Any] = {
        "name": ALICE,
        "password_hash": "a hash",
        "role": Role.OPERATOR,
        "created_at": NOW,
    }
    return User(**{**values, **overrides})


def a_named_token(**overrides: Any) -> NamedToken:
    token_id = new_id()
    values: dict[str, Any] = {
        "id": TokenId(token_id),
        "owner": ALICE,
        "name": "deploy",
        "digest": f"digest of {token_id}",
        "role": Role.OPERATOR,
        "selector": None,
        "created_at": NOW,
        "expires_at": None,
    }
    return NamedToken(**{**values, **overrides})


def a_principal(role: Role = Role.OPERATOR, *selectors: str, **overrides: Any) -> Principal:
    values: dict[str, Any] = {
        "name": ALICE,
        "role": role,
        "selectors": tuple(Selector.parse(text) for text in selectors),
        "selector_text": ",".join(selectors) or None,
    }
    return Principal(**{**values, **overrides})


def a_run_order(**overrides: Any) -> RunOrder:
    values: dict[str, Any] = {
        "command_id": CommandId(new_id()),
        "agent_id": WEB,
        "line": CommandLine("echo hi"),
        "execution_target": "local",
        "timeout_s": None,
        "max_output_bytes": 1 << 30,
        "requester": ALICE,
        "issued_at": NOW,
        "expires_at": later(60),
    }
    return RunOrder(**{**values, **overrides})


def a_control_order(**overrides: Any) -> ControlOrder:
    values: dict[str, Any] = {
        "control_id": ControlId(new_id()),
        "command_id": CommandId(new_id()),
        "agent_id": WEB,
        "action": Action.CANCEL,
        "requester": ALICE,
        "issued_at": NOW,
        "expires_at": later(60),
    }
    return ControlOrder(**{**values, **overrides})


def a_control(command: Command, **overrides: Any) -> PendingControl:
    order = a_control_order(command_id=command.id, agent_id=command.agent_id)
    values: dict[str, Any] = {
        "control_id": order.control_id,
        "command_id": command.id,
        "action": order.action,
        "state": command.state,
        "sealed": UnsignedSealer().seal_control(order),
    }
    return PendingControl(**{**values, **overrides})
