"""Agree with the controller, at the beginning of a session, on what both sides hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.application.controller_time import ControllerTime
from agent.application.delivery import Delivery
from agent.application.ports.controller_link import HostFacts, Registration
from agent.application.ports.journal import Journal
from agent.application.supervisor import Supervisor
from agent.domain.ids import AgentId, CommandId
from agent.domain.models.output import Position


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """What the controller has stored of a command; `is_dropped`: it wants no more of it."""

    command_id: CommandId
    stored: Position
    is_dropped: bool


@dataclass(frozen=True, slots=True)
class Registered:
    """The controller's answer to a registration."""

    epoch: int
    server_time: datetime
    resume: Sequence[ResumePoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeSession:
    """Say what the agent holds, and take over what the controller answers."""

    agent_id: AgentId
    facts: HostFacts
    labels: Mapping[str, str]
    journal: Journal
    delivery: Delivery
    supervisor: Supervisor
    time: ControllerTime

    async def registration(self) -> Registration:
        """What to register with."""
        return Registration(
            agent_id=self.agent_id,
            facts=self.facts,
            labels=self.labels,
            last_epoch=await self.journal.epoch(),
            held=self.delivery.held(),
        )

    async def __call__(self, answer: Registered) -> Mapping[CommandId, Position]:
        """Store the epoch; from where each command is to be sent again.

        A command that the controller regards as final or does not know is forgotten here, and
        stopped if it still runs: nobody could ever stop it or see its output.
        """
        self.time.tell(answer.server_time)
        await self.journal.store_epoch(answer.epoch, ahead_s=self.time.ahead_s)
        for point in answer.resume:
            if point.is_dropped:
                self.supervisor.discard(point.command_id)
                await self.delivery.drop(point.command_id)
        self.supervisor.confirm()
        return {p.command_id: p.stored for p in answer.resume if not p.is_dropped}
