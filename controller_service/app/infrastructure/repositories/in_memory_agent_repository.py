"""Agents in this process's memory."""

from collections.abc import Callable
from copy import deepcopy
from datetime import datetime

from app.domain.errors import AgentNotFound
from app.domain.ids import AgentId
from app.domain.models.agent import Agent


class InMemoryAgentRepository:
    """An AgentRepository over a dictionary; what goes in or out is a copy."""

    def __init__(self) -> None:
        self._agents: dict[AgentId, Agent] = {}

    async def get(self, agent_id: AgentId) -> Agent:
        """One agent."""
        return deepcopy(self._stored(agent_id))

    async def all(self) -> list[Agent]:
        """Every agent, by id."""
        return [deepcopy(self._agents[agent_id]) for agent_id in sorted(self._agents)]

    async def change(
        self, agent_id: AgentId, change: Callable[[Agent], None], *, create: bool = False
    ) -> Agent:
        """Change one agent, or a new one where `create` allows it."""
        if create and agent_id not in self._agents:
            agent = Agent(id=agent_id)
        else:
            agent = deepcopy(self._stored(agent_id))
        change(agent)
        kept = deepcopy(agent)
        kept.pull_events()  # they are the caller's to publish
        self._agents[agent_id] = kept
        return agent

    async def release_all(self, *, at: datetime) -> None:
        """End every session."""
        for agent in self._agents.values():
            if agent.is_online:
                agent.sid, agent.last_seen_at = None, at

    async def remove(self, agent_id: AgentId) -> None:
        """Forget an agent."""
        self._stored(agent_id)
        del self._agents[agent_id]

    def newest_epoch(self, agent_id: AgentId) -> int | None:
        """The number of the agent's newest session, None for an agent that is not known."""
        agent = self._agents.get(agent_id)
        return None if agent is None else agent.epoch

    def _stored(self, agent_id: AgentId) -> Agent:
        try:
            return self._agents[agent_id]
        except KeyError as exc:
            raise AgentNotFound(f"there is no agent {agent_id}") from exc
