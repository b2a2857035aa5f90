"""Take an order to run, once."""

import asyncio
from dataclasses import dataclass

from agent.application.controller_time import ControllerTime
from agent.application.ports.journal import Journal, Known
from agent.application.supervisor import Supervisor
from agent.domain.errors import JournalUnavailable, NoRoom, OrderExpired, WrongAgent
from agent.domain.ids import AgentId
from agent.domain.models.execution import State
from agent.domain.models.order import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptOrder:
    """Store an order in the journal and hand it to the supervisor.

    Raises WrongAgent, OrderExpired, AgentBusy, AgentStopping or NoRoom; nothing was stored then
    and nothing runs.
    """

    agent_id: AgentId
    journal: Journal
    supervisor: Supervisor
    time: ControllerTime

    async def __call__(self, order: Order) -> Known:
        """Where it stands; the order of a known command runs nothing, whatever else it says."""
        if order.agent_id != self.agent_id:
            raise WrongAgent(f"the order is for agent {order.agent_id}")
        known = self.journal.known(order.id)
        if known is not None:
            return known
        if self.time.now() > order.expires_at:
            raise OrderExpired("the order came after the time by which it had to start")
        self.supervisor.require_room()
        # What is stored is run, also when the session ends in between.
        return await asyncio.shield(self._accept(order))

    async def _accept(self, order: Order) -> Known:
        keeper = self.supervisor.reserve(order)
        try:
            is_new = await self.journal.accept(order, keeper=keeper, now=self.time.now())
        except JournalUnavailable as exc:
            self.supervisor.give_back()
            raise NoRoom(f"the agent cannot remember the order: {exc.message}") from exc
        if is_new:
            self.supervisor.submit(order, keeper)
        else:
            self.supervisor.give_back()
        return self.journal.known(order.id) or Known(State.ACCEPTED, is_held=True)
