"""Open an agent's session and agree on what both sides hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.application.dispatcher import agent_state_lost
from app.application.event_bus import EventBus
from app.application.ports.clock import Clock
from app.application.ports.repositories import AgentRepository, CommandRepository, Standing
from app.domain.ids import AgentId, CommandId, SessionId
from app.domain.models.agent import Agent, AgentFacts, Session, believed_epoch
from app.domain.models.output import OutputTotals
from app.domain.models.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What an agent says when it connects; `held` are the commands it holds as unfinished."""

    agent_id: AgentId
    sid: SessionId
    facts: AgentFacts
    labels: Mapping[str, str]
    last_epoch: int
    held: frozenset[CommandId]


@dataclass(frozen=True, slots=True)
class Resume:
    """From where the agent sends a command again; `is_dropped`: it is to forget it."""

    command_id: CommandId
    stored: OutputTotals
    is_dropped: bool


@dataclass(frozen=True, slots=True)
class Registered:
    """The session, and what both sides agreed on."""

    session: Session
    server_time: datetime
    resume: Sequence[Resume]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAgent:
    """Open an agent's next session. A command that its agent has no record of becomes `lost`."""

    agents: AgentRepository
    commands: CommandRepository
    bus: EventBus
    clock: Clock

    async def __call__(self, wanted: Registration) -> Registered:
        """Store the new epoch, settle what was lost, and say from where to go on."""
        session = await self._open(wanted)
        last_epoch = believed_epoch(wanted.last_epoch)
        unfinished = {c.id: c for c in await self.commands.standings(wanted.agent_id)}
        for command in unfinished.values():
            if command.id not in wanted.held and _is_lost(command, last_epoch):
                await self._lose(command.id)
        resume = [_resume(command_id, unfinished.get(command_id)) for command_id in wanted.held]
        return Registered(session, self.clock.now(), resume)

    async def _open(self, wanted: Registration) -> Session:
        now = self.clock.now()
        sessions: list[Session] = []

        def register(agent: Agent) -> None:
            sessions.append(
                agent.register(
                    wanted.sid, wanted.facts, wanted.labels, at=now, last_epoch=wanted.last_epoch
                )
            )

        agent = await self.agents.change(wanted.agent_id, register, create=True)
        self.bus.publish(agent.pull_events())
        return sessions[-1]

    async def _lose(self, command_id: CommandId) -> None:
        now = self.clock.now()
        changed = await self.commands.change(
            command_id, lambda command: command.lose(agent_state_lost(), at=now)
        )
        self.bus.publish(changed.pull_events())


def _is_lost(command: Standing, last_epoch: int) -> bool:
    """Whether an agent that does not hold `command` may nevertheless have run it.

    One that is still queued can safely be offered again to an agent whose journal reaches back
    to the session of the first offer: it never arrived there.
    """
    if command.offered_epoch is None:
        return False
    return command.state is not State.QUEUED or command.offered_epoch > last_epoch


def _resume(command_id: CommandId, command: Standing | None) -> Resume:
    if command is None:
        return Resume(command_id, OutputTotals(), is_dropped=True)
    return Resume(command_id, command.stored, is_dropped=False)
