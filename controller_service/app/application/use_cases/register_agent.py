"""Open an agent's session and agree on what both sides hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.application.dispatcher import agent_state_lost
from app.application.event_bus import EventBus
from app.application.full_disk import once_there_is_room
from app.application.ports.clock import Clock
from app.application.ports.repositories import AgentRepository, CommandRepository, Standing
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
    """The session, and what both sides agreed on.

    `is_older_copy`: the agent's data folder does not know a session that was acknowledged from it.
    """

    session: Session
    server_time: datetime
    resume: Sequence[Resume]
    is_older_copy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmEpoch:
    """Take an agent's word that its session's epoch is on its disk, before it is given orders."""

    agents: AgentRepository

    async def __call__(self, session: Session) -> None:
        """Store it, once there is room; raises AgentNotFound for one that was deleted."""

        def confirm(agent: Agent) -> None:
            agent.confirm(session.epoch)

        await once_there_is_room(lambda: self.agents.change(session.agent_id, confirm))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAgent:
    """Open an agent's next session. A command that its agent has no record of becomes `lost`.

    Afterwards no agent has a command that is still queued: what it holds is in its journal, and
    `dispatched`; what never arrived there and is to be stopped is cancelled, not started first.

    An agent whose data folder is an older copy may hold what has run since then, or runs elsewhere:
    whatever it was ever offered becomes `lost`, and it is told to drop what it holds.
    """

    agents: AgentRepository
    commands: CommandRepository
    bus: EventBus
    clock: Clock

    async def __call__(self, wanted: Registration) -> Registered:
        """Store the new epoch, settle what was lost, and say from where to go on."""
        session, is_older_copy = await self._open(wanted)
        unfinished = {c.id: c for c in await self.commands.standings(wanted.agent_id)}
        # What an older copy knows and holds is worth nothing: as if it were wiped.
        held = frozenset[CommandId]() if is_older_copy else wanted.held
        last_epoch = 0 if is_older_copy else believed_epoch(wanted.last_epoch)
        for command in unfinished.values():
            await self._settle(command, is_held=command.id in held, last_epoch=last_epoch)
        resume = [
            _resume(found, unfinished.get(found) if found in held else None)
            for found in wanted.held
        ]
        return Registered(session, self.clock.now(), resume, is_older_copy)

    async def _open(self, wanted: Registration) -> tuple[Session, bool]:
        """Its next session, and whether its data folder is an older copy."""
        now = self.clock.now()
        opened: list[tuple[Session, bool]] = []

        def register(agent: Agent) -> None:
            is_older_copy = agent.has_forgotten(wanted.last_epoch)
            session = agent.register(
                wanted.sid, wanted.facts, wanted.labels, at=now, last_epoch=wanted.last_epoch
            )
            opened.append((session, is_older_copy))

        agent = await self.agents.change(wanted.agent_id, register, create=True)
        self.bus.publish(agent.pull_events())
        return opened[-1]

    async def _settle(self, command: Standing, *, is_held: bool, last_epoch: int) -> None:
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
