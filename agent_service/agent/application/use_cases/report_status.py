"""Say what runs and what waits here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.application.delivery import Delivery
from agent.application.running import Running
from agent.application.supervisor import Supervisor
from agent.domain.ids import AgentId, CommandId
from agent.domain.models.execution import State


@dataclass(frozen=True, slots=True)
class CommandStatus:
    """Where one command stands; `started_at` is None for one that waits for its turn."""

    command_id: CommandId
    state: State
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class Status:
    """What this agent has in hand; `is_connected`: whether the controller is there."""

    agent_id: AgentId
    is_connected: bool
    commands: Sequence[CommandStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStatus:
    """What runs, then what waits, in order."""

    agent_id: AgentId
    supervisor: Supervisor
    delivery: Delivery

    def __call__(self) -> Status:
        """The status now."""
        here = [*self.supervisor.running, *self.supervisor.waiting]
        is_connected = self.delivery.is_serving
        return Status(self.agent_id, is_connected, [_status(running) for running in here])


def _status(running: Running) -> CommandStatus:
    execution = running.execution
    return CommandStatus(execution.id, execution.state, execution.started_at)
