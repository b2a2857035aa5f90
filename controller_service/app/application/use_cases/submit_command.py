"""Accept a command."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from app.application.authorization import Verb, authorize
from app.application.event_bus import EventBus
from app.application.full_disk import require_room
from app.application.handover import Handover
from app.application.ports.clock import Clock
from app.application.ports.repositories import (
    AgentRepository,
    CommandRepository,
    IdempotencyKey,
)
from app.application.ports.security import OrderSealer
from app.application.ports.storage_room import StorageRoom
from app.domain.ids import AgentId, CommandId
from app.domain.models.agent import Agent
from app.domain.models.command import Command
from app.domain.models.command_line import CommandLine
from app.domain.models.order import RunOrder
from app.domain.models.user import Principal

EXPIRES_DEFAULT_S: Final = 60.0
EXPIRES_QUEUED_DEFAULT_S: Final = 24 * 3600.0
#: Commands that may be queued for one agent: it is away, takes no more, or its link is dead.
WAITING_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What somebody wants run, where, and how long it may wait for its agent.

    `fingerprint` is the same for the same request, however long its sender waits for it.
    """

    principal: Principal
    agent_id: AgentId
    line: CommandLine
    execution_target: str = "auto"
    timeout_s: float | None = None
    may_wait: bool = False
    expires_in_s: float | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""

    @property
    def start_within_s(self) -> float:
        """After how many seconds it must not be started any more."""
        if self.expires_in_s is not None:
            return self.expires_in_s
        return EXPIRES_QUEUED_DEFAULT_S if self.may_wait else EXPIRES_DEFAULT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitCommand:
    """Accept a command for an agent; the dispatcher, woken by CommandQueued, delivers it.

    Raises AgentNotFound, Denied, AgentOffline, TooManyCommands, StorageFull or
    IdempotencyConflict; nothing is stored then. A repeat is answered with the first command before
    anything but the rights is looked at: a refusal would say that nothing was started. The key is
    looked at again as the command is stored, where two of the same come at once.
    """

    agents: AgentRepository
    commands: CommandRepository
    room: StorageRoom
    sealer: OrderSealer
    handover: Handover
    bus: EventBus
    clock: Clock
    new_id: Callable[[], str]
    max_output_bytes: int

    async def __call__(self, wanted: Submission) -> CommandId:
        """Store the command, announce it, and return its id; a repeat returns the first one's."""
        agent = await self._allowed(wanted)
        first = await self._first_of(wanted)
        if first is not None:
            return first
        if not wanted.may_wait:
            agent.require_online()
        require_room(self.room)
        # What is stored is announced, also when the requester goes away in between.
        return await asyncio.shield(self._accept(wanted, agent))

    async def first_of(self, wanted: Submission) -> CommandId | None:
        """The command that it repeats; None where it is the first. Stores nothing.

        Raises AgentNotFound, Denied or IdempotencyConflict.
        """
        await self._allowed(wanted)
        return await self._first_of(wanted)

    async def _allowed(self, wanted: Submission) -> Agent:
        agent = await self.agents.get(wanted.agent_id)
        authorize(wanted.principal, Verb.EXECUTE, agent)
        return agent

    async def _first_of(self, wanted: Submission) -> CommandId | None:
        key = self._key(wanted)
        return None if key is None else await self.commands.first_of(key, self.clock.now())

    async def _accept(self, wanted: Submission, agent: Agent) -> CommandId:
        command, order = self._command(wanted, agent)
        sealed = self.sealer.seal_run(order)
        stored = await self.commands.add(
            command, sealed, self._key(wanted), waiting_max=WAITING_MAX
        )
        if stored == command.id:
            command.announce(sealed)
            self.bus.publish(command.pull_events())
        return stored

    def _key(self, wanted: Submission) -> IdempotencyKey | None:
        if wanted.idempotency_key is None:
            return None
        return IdempotencyKey(wanted.principal.name, wanted.idempotency_key, wanted.fingerprint)

    def _command(self, wanted: Submission, agent: Agent) -> tuple[Command, RunOrder]:
        now = self.clock.now()
        command_id = CommandId(self.new_id())
        target = agent.resolve_target(wanted.execution_target)
        expires_at = now + timedelta(seconds=wanted.start_within_s)
        command = Command(
            id=command_id,
            agent_id=agent.id,
            text=wanted.line.text,
            execution_target=target,
            requester=wanted.principal.name,
            created_at=now,
            expires_at=expires_at,
            max_output_bytes=self.max_output_bytes,
            timeout_s=wanted.timeout_s,
            # A session that is served here is offered it at once: said in the same commit.
            offered_epoch=self.handover.served_epoch(agent.id),
        )
        order = RunOrder(
            command_id=command_id,
            agent_id=agent.id,
            line=wanted.line,
            execution_target=target,
            timeout_s=wanted.timeout_s,
            max_output_bytes=self.max_output_bytes,
            requester=wanted.principal.name,
            issued_at=now,
            expires_at=expires_at,
        )
        return command, order
