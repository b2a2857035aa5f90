"""Commands in this process's memory."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from app.application.ports.repositories import CommandFilter, IdempotencyKey, Removal, Standing
from app.domain.errors import (
    CommandNotFound,
    IdempotencyConflict,
    StaleSession,
    queue_is_full,
)
from app.domain.ids import AgentId, CommandId, ControlId
from app.domain.models.agent import Session
from app.domain.models.command import Command
from app.domain.models.order import PendingControl, QueuedRun, SealedOrder
from app.domain.models.states import State
from app.infrastructure.repositories.in_memory_agent_repository import InMemoryAgentRepository
from app.infrastructure.repositories.in_memory_output_log import InMemoryOutputLog

#: How long a used idempotency key is remembered.
KEY_KEPT: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class _Used:
    """What an idempotency key was used for, and when."""

    fingerprint: str
    command_id: CommandId
    at: datetime


class InMemoryCommandRepository:
    """A CommandRepository over dictionaries; commands that go in or out are copies."""

    def __init__(self, agents: InMemoryAgentRepository, output: InMemoryOutputLog) -> None:
        self._agents = agents
        self._output = output
        self._commands: dict[CommandId, Command] = {}
        self._orders: dict[CommandId, SealedOrder] = {}
        self._controls: dict[ControlId, PendingControl] = {}
        self._keys: dict[tuple[str, str], _Used] = {}

    async def add(
        self,
        command: Command,
        sealed: SealedOrder,
        key: IdempotencyKey | None = None,
        *,
        waiting_max: int | None = None,
    ) -> CommandId:
        """Store a new command with its order, or find the first of its key."""
        if key is not None:
            self._forget_keys(command.created_at)
            first = self._used(key, command.created_at)
            if first is not None:
                return first
        self._require_turn(command.agent_id, waiting_max)
        if key is not None:
            used = _Used(key.fingerprint, command.id, command.created_at)
            self._keys[key.requester, key.key] = used
        self._save(command)
        self._orders[command.id] = sealed
        return command.id

    async def first_of(self, key: IdempotencyKey, now: datetime) -> CommandId | None:
        """The command that a key was used for."""
        return self._used(key, now)

    async def get(self, command_id: CommandId) -> Command:
        """One command."""
        return self._load(command_id)

    async def change(
        self,
        command_id: CommandId,
        change: Callable[[Command], None],
        *,
        session: Session | None = None,
    ) -> Command:
        """Change one command and store the chunks it took."""
        command = self._load(command_id)
        if session is not None:
            self._require_newest(session, command)
        change(command)
        self._save(command)
        return command

    async def request(
        self, command_id: CommandId, control: PendingControl, change: Callable[[Command], bool]
    ) -> Command:
        """Change one command and keep a control order for its agent."""
        command = self._load(command_id)
        if change(command):
            self._drop_controls(command_id)
            self._controls[control.control_id] = control
        self._save(command)
        return command

    async def page(
        self, wanted: CommandFilter, *, before: CommandId | None, limit: int
    ) -> list[Command]:
        """At most `limit` commands, newest first."""
        older = [key for key in self._commands if before is None or key < before]
        newest_first = (self._commands[key] for key in sorted(older, reverse=True))
        found = [command for command in newest_first if _is_wanted(command, wanted)]
        return deepcopy(found[:limit])

    async def largest_id(self) -> CommandId | None:
        """The largest id of all commands."""
        return max(self._commands, default=None)

    async def standings(self, agent_id: AgentId) -> list[Standing]:
        """Where every unfinished command of the agent stands, oldest first."""
        return [
            Standing(c.id, c.state, c.offered_epoch, c.requested_action, c.stored)
            for c in self._unfinished(agent_id)
        ]

    async def overdue(self, now: datetime, *, limit: int) -> list[CommandId]:
        """Queued commands that were never offered and whose time has passed, oldest first."""
        found = [
            command.id
            for command in self._unfinished(None)
            if command.state is State.QUEUED
            and command.offered_epoch is None
            and command.expires_at <= now
        ]
        return found[:limit]

    async def count_unfinished(self) -> dict[AgentId, int]:
        """How many commands of each agent are not final."""
        counts: dict[AgentId, int] = {}
        for command in self._unfinished(None):
            counts[command.agent_id] = counts.get(command.agent_id, 0) + 1
        return counts

    async def queued_runs(
        self, agent_id: AgentId, *, after: CommandId | None, limit: int
    ) -> list[QueuedRun]:
        """Run orders of the agent's queued commands, oldest first."""
        found = [
            QueuedRun(command.id, command.offered_epoch, self._orders[command.id])
            for command in self._unfinished(agent_id)
            if command.state is State.QUEUED and command.id > (after or "")
        ]
        return found[:limit]

    async def pending_controls(self, agent_id: AgentId) -> list[PendingControl]:
        """Control orders that the agent has not acknowledged, oldest first."""
        waiting = (self._controls[key] for key in sorted(self._controls))
        found = [(control, self._commands[control.command_id]) for control in waiting]
        return [
            replace(control, state=command.state)
            for control, command in found
            if command.agent_id == agent_id
        ]

    async def drop_control(self, control_id: ControlId) -> None:
        """Forget a control order."""
        self._controls.pop(control_id, None)

    async def remove_finished(self, before: datetime, *, max_rows: int, max_bytes: int) -> Removal:
        """Delete finished commands, the oldest first, one at least."""
        found = sorted(
            (command.settled_at, command.id, command.stored)
            for command in self._commands.values()
            if command.settled_at is not None and command.settled_at < before
        )
        gone: list[CommandId] = []
        for _, command_id, stored in found:
            if gone and (max_rows <= 0 or max_bytes <= 0):
                break
            max_rows -= 1 + stored.next_seq
            max_bytes -= stored.stdout_bytes + stored.stderr_bytes
            self._remove(command_id)
            gone.append(command_id)
        return Removal(gone, is_all=len(gone) == len(found))

    def _remove(self, command_id: CommandId) -> None:
        self._output.remove(command_id)
        self._drop_controls(command_id)
        del self._commands[command_id]
        del self._orders[command_id]

    def _load(self, command_id: CommandId) -> Command:
        try:
            return deepcopy(self._commands[command_id])
        except KeyError as exc:
            raise CommandNotFound(f"there is no command {command_id}") from exc

    def _save(self, command: Command) -> None:
        """Keep a copy without what the caller still has to publish."""
        self._output.append(command.id, command.pull_chunks(), command.pull_marks())
        kept = deepcopy(command)
        kept.pull_events()
        self._commands[command.id] = kept
        if command.is_final:
            self._drop_controls(command.id)

    def _drop_controls(self, command_id: CommandId) -> None:
        self._controls = {
            key: control
            for key, control in self._controls.items()
            if control.command_id != command_id
        }

    def _unfinished(self, agent_id: AgentId | None) -> list[Command]:
        return [
            command
            for _, command in sorted(self._commands.items())
            if not command.is_final and agent_id in (None, command.agent_id)
        ]

    def _require_turn(self, agent_id: AgentId, waiting_max: int | None) -> None:
        waiting = [c for c in self._unfinished(agent_id) if c.state is State.QUEUED]
        if waiting_max is not None and len(waiting) >= waiting_max:
            raise queue_is_full(agent_id, waiting_max)

    def _require_newest(self, session: Session, command: Command) -> None:
        if command.agent_id != session.agent_id:
            raise CommandNotFound(f"there is no command {command.id} of {session.agent_id}")
        newest = self._agents.newest_epoch(session.agent_id)
        if newest != session.epoch:
            raise StaleSession(
                f"session {session.epoch} of agent {session.agent_id} is over, {newest} is open"
            )

    def _forget_keys(self, now: datetime) -> None:
        self._keys = {k: used for k, used in self._keys.items() if used.at >= now - KEY_KEPT}

    def _used(self, key: IdempotencyKey, now: datetime) -> CommandId | None:
        """The first command of `key`, if it was used within KEY_KEPT."""
        used = self._keys.get((key.requester, key.key))
        if used is None or used.at < now - KEY_KEPT:
            return None
        if used.fingerprint != key.fingerprint:
            raise IdempotencyConflict(
                "this idempotency key was used for another request: take a new"
            )
        return used.command_id


def _is_wanted(command: Command, wanted: CommandFilter) -> bool:
    return (
        (wanted.agent_ids is None or command.agent_id in wanted.agent_ids)
        and (wanted.states is None or command.state in wanted.states)
        and wanted.requester in (None, command.requester)
    )
