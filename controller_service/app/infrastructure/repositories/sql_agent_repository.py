"""Agents in SQL."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from app.domain.errors import AgentNotFound
from app.domain.ids import AgentId
from app.domain.models.agent import Agent
from app.infrastructure.database.ports import Database
from app.infrastructure.database.tables import AGENTS
from app.infrastructure.repositories.rows import agent_of, agent_values, to_micros

# Built once: SQLAlchemy then finds its compiled form by identity.
_BY_ID = select(AGENTS).where(AGENTS.c.id == bindparam("wanted"))


class SqlAgentRepository:
    """An AgentRepository over SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, agent_id: AgentId) -> Agent:
        """One agent."""
        return await self._database.read(lambda connection: _load(connection, agent_id))

    async def all(self) -> list[Agent]:
        """Every agent, by id."""
        query = select(AGENTS).order_by(AGENTS.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [agent_of(row) for row in rows]

    async def change(
        self, agent_id: AgentId, change: Callable[[Agent], None], *, create: bool = False
    ) -> Agent:
        """Change one agent, or a new one where `create` allows it."""

        def work(connection: Connection) -> Agent:
            found = _find(connection, agent_id)
            if found is None and not create:
                raise _not_found(agent_id)
            agent = found or Agent(id=agent_id)
            change(agent)
            if found is None:
                connection.execute(insert(AGENTS), agent_values(agent))
            else:
                query = update(AGENTS).where(AGENTS.c.id == agent_id)
                connection.execute(query.values(agent_values(agent)))
            return agent

        return await self._database.write(work)

    async def release_all(self, *, at: datetime) -> None:
        """End every session."""
        query = update(AGENTS).where(AGENTS.c.sid.is_not(None))
        query = query.values(sid=None, last_seen_at=to_micros(at))
        await self._database.write(lambda connection: connection.execute(query).close())

    async def remove(self, agent_id: AgentId) -> None:
        """Forget an agent."""

        def work(connection: Connection) -> None:
            _load(connection, agent_id)
            connection.execute(delete(AGENTS).where(AGENTS.c.id == agent_id))

        await self._database.write(work)


def _find(connection: Connection, agent_id: AgentId) -> Agent | None:
    row = connection.execute(_BY_ID, {"wanted": agent_id}).one_or_none()
    return None if row is None else agent_of(row)


def _load(connection: Connection, agent_id: AgentId) -> Agent:
    agent = _find(connection, agent_id)
    if agent is None:
        raise _not_found(agent_id)
    return agent


def _not_found(agent_id: AgentId) -> AgentNotFound:
    return AgentNotFound(f"there is no agent {agent_id}")
