"""Take an order to run, once."""

from dataclasses import dataclass

from agent.application.controller_time import ControllerTime
from agent.application.ports.journal import Journal
from agent.application.supervisor import Supervisor
from agent.domain.errors import OrderExpired, WrongAgent
from agent.domain.ids import AgentId
from agent.domain.models.execution import State
from agent.domain.models.order import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptOrder:
    """Store an order in the journal and hand it to the supervisor.

    Raises WrongAgent, OrderExpired, AgentBusy or AgentStopping; nothing was stored then and
    nothing runs.
    """

    agent_id: AgentId
    journal: Journal
    supervisor: Supervisor
    time: ControllerTime

    async def __call__(self, order: Order) -> State:
        """Its state; the order of a known command runs nothing, whatever else it says."""
        if order.agent_id != self.agent_id:
            raise WrongAgent(f"the order is for agent {order.agent_id}")
        known = await self.journal.state_of(order.id)
        if known is not None:
            return known
        now = self.time.now()
        if now > order.expires_at:
            raise OrderExpired("the order came after the time by which it had to start")
        self.supervisor.require_room()
        if await self.journal.accept(order, now=now):
            self.supervisor.submit(order)
        return State.ACCEPTED
