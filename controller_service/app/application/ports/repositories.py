"""Where aggregates are kept.

A change is a function over the aggregate. The repository loads it, calls the function and stores
the outcome in one transaction; when the call returns, it is durable. The function may run in
another thread and must touch nothing but the aggregate; what it raises undoes the change and
reaches the caller. Changes of one aggregate happen one after the other, in the order of the calls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.domain.ids import AgentId, CommandId, ControlId, TokenId, UserName
from app.domain.models.agent import Agent, Session
from app.domain.models.command import Command
from app.domain.models.order import PendingControl, QueuedRun, SealedOrder
from app.domain.models.output import OutputTotals
from app.domain.models.states import Action, State
from app.domain.models.user import NamedToken, User


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandFilter:
    """Which commands a list holds; `agent_ids` None means any agent."""

    agent_ids: Sequence[AgentId] | None = None
    states: Sequence[State] | None = None
    requester: UserName | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A requester's word for one submission; `fingerprint` tells whether a repeat is the same."""

    requester: UserName
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Removal:
    """What one batch removed; `is_all` says that nothing older is left.

    Commands that are `gone` leave nothing behind. One whose removal has only begun is not found
    any more, either.
    """

    gone: Sequence[CommandId] = ()
    is_all: bool = True


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an unfinished command stands, without its text: of those there may be very many."""

    id: CommandId
    state: State
    offered_epoch: int | None
    requested_action: Action | None
    stored: OutputTotals


class CommandRepository(Protocol):
    """Commands, their orders and, as they grow, their output."""

    async def add(
        self,
        command: Command,
        sealed: SealedOrder,
        key: IdempotencyKey | None = None,
        *,
        waiting_max: int | None = None,
    ) -> CommandId:
        """Store a new command with its order, and return its id.

        When `key` was used before, nothing is stored: the id of the first command comes back, or
        IdempotencyConflict is raised where the fingerprint differs. Otherwise raises
        TooManyCommands, and stores nothing, where `waiting_max` of its agent's are queued already.
        """
        ...

    async def first_of(self, key: IdempotencyKey, now: datetime) -> CommandId | None:
        """The command that `key` was used for, if it was; raises as `add` and stores nothing."""
        ...

    async def get(self, command_id: CommandId) -> Command:
        """One command; raises CommandNotFound."""
        ...

    async def change(
        self,
        command_id: CommandId,
        change: Callable[[Command], None],
        *,
        session: Session | None = None,
    ) -> Command:
        """Change one command and store the chunks it took; raises CommandNotFound.

        With `session`, before the change: raises CommandNotFound where the command is another
        agent's, and StaleSession where a newer session of its agent is open.
        """
        ...

    async def request(
        self, command_id: CommandId, control: PendingControl, change: Callable[[Command], bool]
    ) -> Command:
        """Change one command and, where `change` gives True, keep `control` for its agent.

        It takes the place of an earlier one that the agent has not acknowledged.
        """
        ...

    async def page(
        self, wanted: CommandFilter, *, before: CommandId | None, limit: int
    ) -> list[Command]:
        """At most `limit` commands, newest first, all older than `before`."""
        ...

    async def largest_id(self) -> CommandId | None:
        """The largest id of all commands, also of those being removed; None where there is none."""
        ...

    async def standings(self, agent_id: AgentId) -> list[Standing]:
        """Where every command of the agent stands that is not final, oldest first."""
        ...

    async def overdue(self, now: datetime, *, limit: int) -> list[CommandId]:
        """Queued commands that were never offered and whose `expires_at` is not after `now`."""
        ...

    async def count_unfinished(self) -> dict[AgentId, int]:
        """How many commands of each agent are not final; agents without any are absent."""
        ...

    async def queued_runs(
        self, agent_id: AgentId, *, after: CommandId | None, limit: int
    ) -> list[QueuedRun]:
        """Run orders of the agent's queued commands, oldest first."""
        ...

    async def pending_controls(self, agent_id: AgentId) -> list[PendingControl]:
        """Control orders that the agent has not acknowledged, oldest first."""
        ...

    async def drop_control(self, control_id: ControlId) -> None:
        """Forget a control order: it was acknowledged. A repeat changes nothing."""
        ...

    async def remove_finished(self, before: datetime, *, max_rows: int, max_bytes: int) -> Removal:
        """Delete commands that were settled before `before`, oldest first, and all that is theirs.

        A call deletes about `max_rows` commands and chunks and `max_bytes` of output at most, but
        something; it is to be repeated until everything is removed. What it frees goes back to the
        file system, where the store can do so, in steps as small. Unfinished commands are never
        touched; idempotency keys keep to their own time.
        """
        ...


class AgentRepository(Protocol):
    """Agents that have ever registered."""

    async def get(self, agent_id: AgentId) -> Agent:
        """One agent; raises AgentNotFound."""
        ...

    async def all(self) -> list[Agent]:
        """Every agent, by id."""
        ...

    async def change(
        self, agent_id: AgentId, change: Callable[[Agent], None], *, create: bool = False
    ) -> Agent:
        """Change one agent; see the module. Raises AgentNotFound unless `create`."""
        ...

    async def release_all(self, *, at: datetime) -> None:
        """End every session: this controller has just started, and none can be open."""
        ...

    async def remove(self, agent_id: AgentId) -> None:
        """Forget an agent; raises AgentNotFound."""
        ...


class UserRepository(Protocol):
    """Accounts and named tokens."""

    async def add(self, user: User) -> None:
        """Store a new account; raises UserExists."""
        ...

    async def get(self, name: UserName) -> User:
        """One account; raises UserNotFound."""
        ...

    async def all(self) -> list[User]:
        """Every account, by name."""
        ...

    async def replace(self, user: User) -> None:
        """Store a changed account; raises UserNotFound."""
        ...

    async def remove(self, name: UserName) -> None:
        """Delete an account and its tokens; raises UserNotFound, LastAdministrator."""
        ...

    async def add_token(self, token: NamedToken) -> None:
        """Store a named token; raises UserNotFound where its owner is gone."""
        ...

    async def tokens(self, owner: UserName) -> list[NamedToken]:
        """The owner's named tokens, oldest first."""
        ...

    async def token_by_digest(self, digest: str) -> NamedToken | None:
        """The token with this digest, if there is one."""
        ...

    async def remove_token(self, owner: UserName, token_id: TokenId) -> None:
        """Delete a named token; raises TokenNotFound."""
        ...
