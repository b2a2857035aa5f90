"""End an agent's session, or take its changed facts."""

from dataclasses import dataclass

from app.application.event_bus import EventBus
from app.application.ports.clock import Clock
from app.application.ports.repositories import AgentRepository
from app.domain.errors import AgentNotFound
from app.domain.models.agent import Agent, AgentFacts, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAgent:
    """End a session. Its commands stay in their state until the agent is back."""

    agents: AgentRepository
    bus: EventBus
    clock: Clock

    async def __call__(self, session: Session) -> None:
        """End it; nothing happens where a newer one is open or the agent was deleted."""
        now = self.clock.now()

        def release(agent: Agent) -> None:
            agent.release(session.epoch, at=now)

        try:
            agent = await self.agents.change(session.agent_id, release)
        except AgentNotFound:
            return
        self.bus.publish(agent.pull_events())


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeAgent:
    """Take what an agent newly says of itself."""

    agents: AgentRepository
    bus: EventBus
    clock: Clock

    async def __call__(self, session: Session, facts: AgentFacts) -> None:
        """Store the facts unless the session is an older one."""
        now = self.clock.now()

        def describe(agent: Agent) -> None:
            if agent.epoch == session.epoch:
                agent.describe(facts, at=now)

        agent = await self.agents.change(session.agent_id, describe)
        self.bus.publish(agent.pull_events())
