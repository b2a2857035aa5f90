"""Rows of the tables to aggregates and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row

from app.domain.ids import AgentId, CommandId, SessionId, TokenId, UserName
from app.domain.models.agent import Agent, AgentFacts, SshTarget
from app.domain.models.command import Command, Failure, StopFailure
from app.domain.models.lines import LineCount, LineMark
from app.domain.models.output import Missing, OutputTotals, Stream
from app.domain.models.states import Action, State
from app.domain.models.user import NamedToken, Role, User

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

#: How a stream is written in the table of chunks.
STREAM_NUMBER: Final = {Stream.STDOUT: 1, Stream.STDERR: 2}
STREAM_OF: Final = {number: stream for stream, number in STREAM_NUMBER.items()}

#: Columns of a command that may change after it was accepted; see `command_changes`.
CHANGING_COLUMNS: Final = (
    "state",
    "moved_at",
    "offered_epoch",
    "dispatched_at",
    "started_at",
    "finished_at",
    "execution_type",
    "target",
    "exit_code",
    "signal",
    "failure",
    "stop_failure",
    "requested_action",
    "next_seq",
    "stdout_bytes",
    "stderr_bytes",
    "lines_ended",
    "stdout_rest",
    "stderr_rest",
    "stdout_written",
    "stderr_written",
    "missing",
    "overruns",
    "settled_at",
)

Values = dict[str, Any]


def to_micros(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The time, aware and in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def _micros(at: datetime | None) -> int | None:
    return None if at is None else to_micros(at)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def command_values(command: Command) -> Values:
    """Every column of a command's row."""
    return {
        "id": command.id,
        "agent_id": command.agent_id,
        "text": command.text,
        "execution_target": command.execution_target,
        "requester": command.requester,
        "created_at": to_micros(command.created_at),
        "expires_at": to_micros(command.expires_at),
        "timeout_s": command.timeout_s,
        "max_output_bytes": command.max_output_bytes,
        **command_changes(command),
    }


def command_changes(command: Command) -> Values:
    """The columns that may change after it was accepted."""
    return {
        "state": command.state.value,
        "moved_at": _micros(command.moved_at),
        "offered_epoch": command.offered_epoch,
        "dispatched_at": _micros(command.dispatched_at),
        "started_at": _micros(command.started_at),
        "finished_at": _micros(command.finished_at),
        "execution_type": command.execution_type,
        "target": command.target,
        "exit_code": command.exit_code,
        "signal": command.signal,
        "failure": asdict(command.failure) if command.failure else None,
        "stop_failure": asdict(command.stop_failure) if command.stop_failure else None,
        "requested_action": command.requested_action,
        "next_seq": command.stored.next_seq,
        "stdout_bytes": command.stored.stdout_bytes,
        "stderr_bytes": command.stored.stderr_bytes,
        "lines_ended": command.lines.ended,
        "stdout_rest": command.lines.stdout_rest,
        "stderr_rest": command.lines.stderr_rest,
        "stdout_written": command.stdout_written,
        "stderr_written": command.stderr_written,
        "missing": [asdict(gap) for gap in command.missing] or None,
        "overruns": command.overruns,
        "settled_at": _micros(command.settled_at),
    }


def command_of(row: Row[Any]) -> Command:
    """The command in a row."""
    return Command(
        id=CommandId(row.id),
        agent_id=AgentId(row.agent_id),
        text=row.text,
        execution_target=row.execution_target,
        requester=UserName(row.requester),
        created_at=from_micros(row.created_at),
        expires_at=from_micros(row.expires_at),
        timeout_s=row.timeout_s,
        max_output_bytes=row.max_output_bytes,
        state=State(row.state),
        moved_at=_time(row.moved_at),
        offered_epoch=row.offered_epoch,
        dispatched_at=_time(row.dispatched_at),
        started_at=_time(row.started_at),
        finished_at=_time(row.finished_at),
        execution_type=row.execution_type,
        target=row.target,
        exit_code=row.exit_code,
        signal=row.signal,
        failure=Failure(**row.failure) if row.failure else None,
        stop_failure=_stop_failure(row.stop_failure),
        requested_action=Action(row.requested_action) if row.requested_action else None,
        stored=OutputTotals(row.next_seq, row.stdout_bytes, row.stderr_bytes),
        lines=LineCount(row.lines_ended, row.stdout_rest, row.stderr_rest),
        stdout_written=row.stdout_written,
        stderr_written=row.stderr_written,
        missing=_missing(row.missing or ()),
        overruns=row.overruns,
        settled_at=_time(row.settled_at),
    )


def _stop_failure(stored: Mapping[str, Any] | None) -> StopFailure | None:
    if stored is None:
        return None
    return StopFailure(stored["code"], stored["message"], tuple(stored["pids"]))


def _missing(gaps: Sequence[Mapping[str, Any]]) -> tuple[Missing, ...]:
    return tuple(Missing(Stream(gap["stream"]), gap["offset"], gap["length"]) for gap in gaps)


def mark_values(command_id: CommandId, mark: LineMark) -> Values:
    """Every column of a line mark's row."""
    return {
        "command_id": command_id,
        "next_seq": mark.totals.next_seq,
        "lines_ended": mark.lines.ended,
        "stdout_bytes": mark.totals.stdout_bytes,
        "stderr_bytes": mark.totals.stderr_bytes,
        "stdout_rest": mark.lines.stdout_rest,
        "stderr_rest": mark.lines.stderr_rest,
    }


def mark_of(row: Row[Any]) -> LineMark:
    """The line mark in a row."""
    return LineMark(
        OutputTotals(row.next_seq, row.stdout_bytes, row.stderr_bytes),
        LineCount(row.lines_ended, row.stdout_rest, row.stderr_rest),
    )


def agent_values(agent: Agent) -> Values:
    """Every column of an agent's row."""
    return {
        "id": agent.id,
        "epoch": agent.epoch,
        "confirmed_epoch": agent.confirmed_epoch,
        "sid": agent.sid,
        "connected_at": _micros(agent.connected_at),
        "last_seen_at": _micros(agent.last_seen_at),
        "labels": dict(agent.labels),
        "facts": asdict(agent.facts),
    }


def agent_of(row: Row[Any]) -> Agent:
    """The agent in a row."""
    facts = dict(row.facts)
    facts["executors"] = tuple(facts["executors"])
    facts["ssh_targets"] = tuple(SshTarget(**target) for target in facts["ssh_targets"])
    return Agent(
        id=AgentId(row.id),
        epoch=row.epoch,
        confirmed_epoch=row.confirmed_epoch,
        sid=None if row.sid is None else SessionId(row.sid),
        connected_at=_time(row.connected_at),
        last_seen_at=_time(row.last_seen_at),
        labels=row.labels,
        facts=AgentFacts(**facts),
    )


def user_values(user: User) -> Values:
    """Every column of an account's row."""
    return {**asdict(user), "role": user.role.value, "created_at": to_micros(user.created_at)}


def user_of(row: Row[Any]) -> User:
    """The account in a row."""
    return User(
        name=UserName(row.name),
        password_hash=row.password_hash,
        role=Role(row.role),
        selector=row.selector,
        is_disabled=row.is_disabled,
        created_at=from_micros(row.created_at),
    )


def token_values(token: NamedToken) -> Values:
    """Every column of a named token's row."""
    return {
        **asdict(token),
        "role": token.role.value,
        "created_at": to_micros(token.created_at),
        "expires_at": _micros(token.expires_at),
    }


def token_of(row: Row[Any]) -> NamedToken:
    """The named token in a row."""
    return NamedToken(
        id=TokenId(row.id),
        owner=UserName(row.owner),
        name=row.name,
        digest=row.digest,
        role=Role(row.role),
        selector=row.selector,
        created_at=from_micros(row.created_at),
        expires_at=_time(row.expires_at),
    )
