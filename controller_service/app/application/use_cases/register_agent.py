"""Open an agent's session and agree on what both sides hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.application.dispatcher import agent_state_lost
from app.application.event_bus import EventBus
from app.application.ports.clock import Clock
from app.application.ports.repositories import AgentRepository, CommandRepository
from app.domain.ids import AgentId, CommandId, SessionId
from app.domain.models.agent import Agent, AgentFacts, Session, believed_epoch
from app.domain.models.command import Command
from app.domain.models.output import OutputTotals
from app.domain.models.states import STOPS, State


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
    """Open an agent's next session. A command that its agent has no record of becomes `lost`.

    Afterwards no agent has a command that is still queued: what it holds is in its journal, and
    `dispatched`; what never arrived there and is to be stopped is cancelled, not started first.
    """

    agents: AgentRepository
    commands: CommandRepository
    bus: EventBus
    clock: Clock

    async def __call__(self, wanted: Registration) -> Registered:
        """Store the new epoch, settle what was lost, and say from where to go on."""
        session = await self._open(wanted)
        last_epoch = believed_epoch(wanted.last_epoch)
        unfinished = {c.id: c for c in await self.commands.unfinished(wanted.agent_id)}
        for command in unfinished.values():
            await self._settle(command, is_held=command.id in wanted.held, last_epoch=last_epoch)
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

    async def _settle(self, command: Command, *, is_held: bool, last_epoch: int) -> None:
        """Say of one command what follows from the agent's holding it or not."""
        now = self.clock.now()
        if is_held:
            if command.state is State.QUEUED:
                await self._change(command.id, lambda found: found.acknowledge(at=now))
        elif _is_lost(command, last_epoch):
            await self._change(command.id, lambda found: found.lose(agent_state_lost(), at=now))
        elif command.requested_action in STOPS:
            await self._change(command.id, lambda found: found.stop_unheard(at=now))

    async def _change(self, command_id: CommandId, change: Callable[[Command], object]) -> None:
        def work(command: Command) -> None:
            change(command)

        changed = await self.commands.change(command_id, work)
        self.bus.publish(changed.pull_events())


def _is_lost(command: Command, last_epoch: int) -> bool:
    """Whether an agent that does not hold `command` may nevertheless have run it.

    One that is still queued can safely be offered again to an agent whose journal reaches back
    to the session of the first offer: it never arrived there.
    """
    if command.offered_epoch is None:
        return False
    return command.state is not State.QUEUED or command.offered_epoch > last_epoch


def _resume(command_id: CommandId, command: Command | None) -> Resume:
    if command is None:
        return Resume(command_id, OutputTotals(), is_dropped=True)
    return Resume(command_id, command.stored, is_dropped=False)
