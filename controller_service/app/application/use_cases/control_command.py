"""Ask for something to be done with a command."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from app.application.authorization import Verb, authorize
from app.application.event_bus import EventBus
from app.application.ports.clock import Clock
from app.application.ports.repositories import AgentRepository, CommandRepository
from app.application.ports.security import OrderSealer
from app.application.use_cases.queries import visible_command
from app.domain.events import ControlRequested
from app.domain.ids import CommandId, ControlId
from app.domain.models.command import Command
from app.domain.models.order import ControlOrder, PendingControl
from app.domain.models.states import Action
from app.domain.models.user import Principal

#: How long a control order is good: longer than any command waits for its agent.
CONTROL_GOOD_FOR: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCommand:
    """Cancel, kill, pause or resume a command.

    Raises CommandNotFound, Denied or InvalidState; nothing is stored then. One that no agent can
    know of is cancelled at once; any other when its agent has done so and says it.
    """

    agents: AgentRepository
    commands: CommandRepository
    sealer: OrderSealer
    bus: EventBus
    clock: Clock
    new_id: Callable[[], str]

    async def __call__(
        self, principal: Principal, command_id: CommandId, action: Action
    ) -> Command:
        """Store what is asked for, announce it, and return the command as it is now."""
        command, agent = await visible_command(self.commands, self.agents, principal, command_id)
        authorize(principal, Verb.CONTROL, agent)
        now = self.clock.now()
        order = ControlOrder(
            control_id=ControlId(self.new_id()),
            command_id=command_id,
            agent_id=command.agent_id,
            action=action,
            requester=principal.name,
            issued_at=now,
            expires_at=now + CONTROL_GOOD_FOR,
        )
        pending = PendingControl(
            order.control_id, command_id, action, command.state, self.sealer.seal_control(order)
        )
        changed = await self.commands.request(
            command_id, pending, lambda found: found.request(action, at=now)
        )
        self.bus.publish([*changed.pull_events(), ControlRequested(command_id, changed.agent_id)])
        return changed
