"""Questions that change nothing, answered within what the asker may see."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from app.application.authorization import Verb, authorize, may_see
from app.application.ports.clock import Clock
from app.application.ports.output_log import OutputLog
from app.application.ports.repositories import AgentRepository, CommandFilter, CommandRepository
from app.domain.errors import AgentNotFound, CommandNotFound
from app.domain.ids import AgentId, CommandId
from app.domain.models.agent import Agent
from app.domain.models.command import Command
from app.domain.models.output import Stream
from app.domain.models.selector import Selector
from app.domain.models.user import Principal

#: The end of each stream that a result carries.
TAIL_MAX_BYTES: Final = 1024 * 1024


async def visible_command(
    commands: CommandRepository,
    agents: AgentRepository,
    principal: Principal,
    command_id: CommandId,
) -> tuple[Command, Agent]:
    """A command and its agent; raises CommandNotFound where the principal may not see it."""
    command = await commands.get(command_id)
    try:
        agent = await agents.get(command.agent_id)
    except AgentNotFound:
        agent = Agent(id=command.agent_id)  # deleted since: only its labels are gone
    if not may_see(principal, agent):
        raise CommandNotFound(f"there is no command {command_id}")
    return command, agent


@dataclass(frozen=True, slots=True)
class SeenAgent:
    """An agent, how many of its commands are not final, and when it was last there."""

    agent: Agent
    running: int
    last_seen_at: datetime | None = field(compare=False)  # passes by itself: no change


@dataclass(frozen=True, slots=True)
class Page:
    """Commands, newest first; `next_before` starts the next page, None on the last."""

    commands: Sequence[Command]
    next_before: CommandId | None


@dataclass(frozen=True, slots=True)
class Tails:
    """The end of each stream, at most TAIL_MAX_BYTES."""

    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """What may be read; each method raises Denied, and NotFound for what may not be seen."""

    agents: AgentRepository
    commands: CommandRepository
    output: OutputLog
    clock: Clock

    async def see_agents(
        self, principal: Principal, *, selector: Selector, is_online: bool | None = None
    ) -> list[SeenAgent]:
        """Agents that the principal may see and the selector matches, by id."""
        authorize(principal, Verb.SEE_AGENTS)
        running = await self.commands.count_unfinished()
        return [
            self._seen(agent, running.get(agent.id, 0))
            for agent in await self.agents.all()
            if may_see(principal, agent)
            and selector.matches(agent.labels)
            and is_online in (None, agent.is_online)
        ]

    async def see_agent(self, principal: Principal, agent_id: AgentId) -> SeenAgent:
        """One agent."""
        agent = await self.agents.get(agent_id)
        authorize(principal, Verb.SEE_AGENTS, agent)
        running = await self.commands.count_unfinished()
        return self._seen(agent, running.get(agent_id, 0))

    def _seen(self, agent: Agent, running: int) -> SeenAgent:
        # A session that answers the pings of its transport is there now.
        last_seen_at = self.clock.now() if agent.is_online else agent.last_seen_at
        return SeenAgent(agent, running, last_seen_at)

    async def is_online(self, agent_id: AgentId) -> bool:
        """Whether the agent has a session; for one whom the asker has just been allowed to use."""
        return (await self.agents.get(agent_id)).is_online

    async def see_command(self, principal: Principal, command_id: CommandId) -> Command:
        """One command."""
        authorize(principal, Verb.SEE_COMMANDS)
        command, _ = await visible_command(self.commands, self.agents, principal, command_id)
        return command

    async def see_commands(
        self, principal: Principal, wanted: CommandFilter, *, before: CommandId | None, limit: int
    ) -> Page:
        """A page of commands of the agents that the principal may see."""
        authorize(principal, Verb.SEE_COMMANDS)
        if principal.selectors:
            visible = [a.id for a in await self.agents.all() if may_see(principal, a)]
            asked = wanted.agent_ids
            wanted = replace(wanted, agent_ids=[a for a in visible if asked is None or a in asked])
        found = await self.commands.page(wanted, before=before, limit=limit + 1)
        is_last = len(found) <= limit
        return Page(found[:limit], None if is_last else found[limit - 1].id)

    async def require_storage(self) -> None:
        """Return when the store answers; raises StorageUnavailable."""
        await self.commands.count_unfinished()

    async def tails(self, command: Command) -> Tails:
        """What a result carries of the command's output."""
        return Tails(
            await self._tail(command, Stream.STDOUT), await self._tail(command, Stream.STDERR)
        )

    async def _tail(self, command: Command, stream: Stream) -> bytes:
        end = command.stored.bytes_of(stream)
        if end == 0:
            return b""
        start = max(end - TAIL_MAX_BYTES, 0)
        return b"".join(await self.output.read_stream(command.id, stream, start=start, end=end))
