"""Do to an execution what a user asked for."""

from dataclasses import dataclass

from agent.application.ports.journal import Journal
from agent.application.supervisor import Supervisor
from agent.domain.errors import UnknownCommand, WrongAgent
from agent.domain.ids import AgentId
from agent.domain.models.execution import FINAL, State
from agent.domain.models.order import Control


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlExecution:
    """Cancel, kill, pause or resume; when it returns, whoever owns the command will see to it.

    Raises WrongAgent, UnknownCommand, or InvalidState where the action makes no sense. A repeat
    changes nothing.
    """

    agent_id: AgentId
    journal: Journal
    supervisor: Supervisor

    async def __call__(self, control: Control) -> State:
        """The command's state as it was when the control arrived."""
        if control.agent_id != self.agent_id:
            raise WrongAgent(f"the order is for agent {control.agent_id}")
        known = self.journal.known(control.command_id)
        if known is None:
            raise UnknownCommand(f"there is no command {control.command_id} here")
        if known.state not in FINAL:
            await self.supervisor.control(control.command_id, control.action)
        return known.state
