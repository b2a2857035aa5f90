"""Recent rows kept beside a repository, so that what was just written need not be read again.

Whatever passes through here is remembered as it was stored, and each entry for LIFETIME_S at the
most: that is how long a change that another process made may stay unseen here.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from cachetools import TTLCache

from app.application.ports.repositories import (
    AgentRepository,
    CommandFilter,
    CommandRepository,
    IdempotencyKey,
    Removal,
    Standing,
    UserRepository,
)
from app.domain.ids import AgentId, CommandId, ControlId, TokenId, UserName
from app.domain.models.agent import Agent, Session
from app.domain.models.command import Command
from app.domain.models.order import PendingControl, QueuedRun, SealedOrder
from app.domain.models.output import Chunk
from app.domain.models.user import NamedToken, User
from app.infrastructure.repositories.caching_output_log import CachingOutputLog

K = TypeVar("K")
V = TypeVar("V")

LIFETIME_S: Final = 1.0
#: Entries that are remembered: accounts and their tokens, agents.
ACCOUNTS_MAX: Final = 1024
AGENTS_MAX: Final = 4096
#: Text of the commands that are remembered; a command counts for at least 1 KiB.
COMMANDS_MAX_BYTES: Final = 2 * 1024 * 1024
_COMMAND_MIN_BYTES: Final = 1024


class CachingUserRepository:
    """A UserRepository over another; every change made through it is seen at once."""

    def __init__(self, users: UserRepository) -> None:
        self._users = users
        self._by_name: TTLCache[UserName, User] = _cache(ACCOUNTS_MAX)
        self._by_digest: TTLCache[str, NamedToken] = _cache(ACCOUNTS_MAX)
        self._changes = 0

    async def add(self, user: User) -> None:
        """Store a new account."""
        await self._users.add(user)

    async def get(self, name: UserName) -> User:
        """One account."""
        known = self._by_name.get(name)
        if known is not None:
            return known
        before = self._changes
        user = await self._users.get(name)
        if before == self._changes:  # else it may have been read before the change
            self._by_name[name] = user
        return user

    async def all(self) -> list[User]:
        """Every account, by name."""
        return await self._users.all()

    async def replace(self, user: User) -> None:
        """Store a changed account."""
        await self._users.replace(user)
        self._forget()

    async def remove(self, name: UserName) -> None:
        """Delete an account and its tokens."""
        await self._users.remove(name)
        self._forget()

    async def add_token(self, token: NamedToken) -> None:
        """Store a named token."""
        await self._users.add_token(token)

    async def tokens(self, owner: UserName) -> list[NamedToken]:
        """The owner's named tokens, oldest first."""
        return await self._users.tokens(owner)

    async def token_by_digest(self, digest: str) -> NamedToken | None:
        """The token with this digest, if there is one."""
        known = self._by_digest.get(digest)
        if known is not None:
            return known
        before = self._changes
        token = await self._users.token_by_digest(digest)
        if token is not None and before == self._changes:
            self._by_digest[digest] = token
        return token

    async def remove_token(self, owner: UserName, token_id: TokenId) -> None:
        """Delete a named token."""
        await self._users.remove_token(owner, token_id)
        self._forget()

    def _forget(self) -> None:
        self._changes += 1
        self._by_name.clear()
        self._by_digest.clear()


class CachingAgentRepository:
    """An AgentRepository over another."""

    def __init__(self, agents: AgentRepository) -> None:
        self._agents = agents
        self._known: TTLCache[AgentId, Agent] = _cache(AGENTS_MAX)
        self._changes = 0

    async def get(self, agent_id: AgentId) -> Agent:
        """One agent."""
        known = self._known.get(agent_id)
        if known is not None:
            return known.snapshot()
        before = self._changes
        agent = await self._agents.get(agent_id)
        if before == self._changes:
            self._known[agent_id] = agent.snapshot()
        return agent

    async def all(self) -> list[Agent]:
        """Every agent, by id."""
        return await self._agents.all()

    async def change(
        self, agent_id: AgentId, change: Callable[[Agent], None], *, create: bool = False
    ) -> Agent:
        """Change one agent."""
        agent = await self._agents.change(agent_id, change, create=create)
        self._changes += 1
        self._known[agent_id] = agent.snapshot()
        return agent

    async def release_all(self, *, at: datetime) -> None:
        """End every session."""
        await self._agents.release_all(at=at)
        self._changes += 1
        self._known.clear()

    async def remove(self, agent_id: AgentId) -> None:
        """Forget an agent."""
        await self._agents.remove(agent_id)
        self._changes += 1
        self._known.pop(agent_id, None)


class CachingCommandRepository:
    """A CommandRepository over another; what commands write goes to `output` on the way."""

    def __init__(self, commands: CommandRepository, output: CachingOutputLog) -> None:
        self._commands = commands
        self._output = output
        self._known: TTLCache[CommandId, Command] = TTLCache(
            COMMANDS_MAX_BYTES, LIFETIME_S, timer=time.monotonic, getsizeof=_size
        )
        self._changes = 0

    async def add(
        self,
        command: Command,
        sealed: SealedOrder,
        key: IdempotencyKey | None = None,
        *,
        waiting_max: int | None = None,
    ) -> CommandId:
        """Store a new command with its order, or find the first of its key."""
        stored = await self._commands.add(command, sealed, key, waiting_max=waiting_max)
        if stored == command.id:
            self._known[stored] = command.snapshot()
        return stored

    async def first_of(self, key: IdempotencyKey, now: datetime) -> CommandId | None:
        """The command that a key was used for."""
        return await self._commands.first_of(key, now)

    async def get(self, command_id: CommandId) -> Command:
        """One command."""
        known = self._known.get(command_id)
        if known is not None:
            return known.snapshot()
        before = self._changes
        command = await self._commands.get(command_id)
        if before == self._changes:
            self._known[command_id] = command.snapshot()
        return command

    async def change(
        self,
        command_id: CommandId,
        change: Callable[[Command], None],
        *,
        session: Session | None = None,
    ) -> Command:
        """Change one command and store the chunks it took."""
        taken: list[Chunk] = []

        def noting(command: Command) -> None:
            change(command)
            taken[:] = command.new_chunks

        changed = await self._commands.change(command_id, noting, session=session)
        self._output.remember(command_id, taken)
        return self._remember(changed)

    async def request(
        self, command_id: CommandId, control: PendingControl, change: Callable[[Command], bool]
    ) -> Command:
        """Change one command and keep a control order for its agent."""
        return self._remember(await self._commands.request(command_id, control, change))

    async def page(
        self, wanted: CommandFilter, *, before: CommandId | None, limit: int
    ) -> list[Command]:
        """At most `limit` commands, newest first."""
        return await self._commands.page(wanted, before=before, limit=limit)

    async def largest_id(self) -> CommandId | None:
        """The largest id of all commands."""
        return await self._commands.largest_id()

    async def standings(self, agent_id: AgentId) -> list[Standing]:
        """Where every unfinished command of the agent stands, oldest first."""
        return await self._commands.standings(agent_id)

    async def overdue(self, now: datetime, *, limit: int) -> list[CommandId]:
        """Queued commands that were never offered and whose time has passed."""
        return await self._commands.overdue(now, limit=limit)

    async def count_unfinished(self) -> dict[AgentId, int]:
        """How many commands of each agent are not final."""
        return await self._commands.count_unfinished()

    async def queued_runs(
        self, agent_id: AgentId, *, after: CommandId | None, limit: int
    ) -> list[QueuedRun]:
        """Run orders of the agent's queued commands, oldest first."""
        return await self._commands.queued_runs(agent_id, after=after, limit=limit)

    async def pending_controls(self, agent_id: AgentId) -> list[PendingControl]:
        """Control orders that the agent has not acknowledged, oldest first."""
        return await self._commands.pending_controls(agent_id)

    async def drop_control(self, control_id: ControlId) -> None:
        """Forget a control order."""
        await self._commands.drop_control(control_id)

    async def remove_finished(self, before: datetime, *, max_rows: int, max_bytes: int) -> Removal:
        """Delete finished commands, the oldest first, within bounds."""
        removal = await self._commands.remove_finished(
            before, max_rows=max_rows, max_bytes=max_bytes
        )
        self._changes += 1
        self._known.clear()  # also the one whose removal has only begun
        for command_id in removal.gone:
            self._output.forget(command_id)
        return removal

    def _remember(self, command: Command) -> Command:
        # Changes of one command come back in the order in which they were stored.
        self._changes += 1
        self._known[command.id] = command.snapshot()
        return command


def _cache(size: int) -> "TTLCache[K, V]":
    return TTLCache(size, LIFETIME_S, timer=time.monotonic)


def _size(command: Command) -> int:
    return _COMMAND_MIN_BYTES + len(command.text)
