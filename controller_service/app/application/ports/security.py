"""Passwords, tokens and signatures."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.domain.ids import AgentId, UserName
from app.domain.models.order import ControlOrder, RunOrder, SealedOrder


class PasswordHasher(Protocol):
    """One-way hashes of passwords."""

    async def hash(self, password: str) -> str:
        """A salted hash; raises Throttled when too many are waiting."""
        ...

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether the password fits; None takes the same time and gives False."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a signed token says: whose it is, and, for an agent's, which agent's."""

    subject: UserName
    agent_id: AgentId | None
    issued_at: datetime
    expires_at: datetime


class TokenIssuer(Protocol):
    """Signed, short-lived tokens."""

    def issue(self, subject: UserName, *, agent_id: AgentId | None = None) -> tuple[str, Claims]:
        """A user's token, or with `agent_id` an agent's; they are never taken for each other."""
        ...

    def read_user(self, token: str) -> Claims:
        """Claims of a user's token; raises Unauthenticated or TokenExpired."""
        ...

    def read_agent(self, token: str) -> Claims:
        """Claims of an agent's token; raises Unauthenticated or TokenExpired."""
        ...


class OrderSealer(Protocol):
    """Turns an order into the bytes that are stored and forwarded, with their signature."""

    def seal_run(self, order: RunOrder) -> SealedOrder:
        """Encode and sign."""
        ...

    def seal_control(self, order: ControlOrder) -> SealedOrder:
        """Encode and sign."""
        ...


class Attempts(Protocol):
    """Counts failed sign-ins per account and address."""

    def check(self, username: str, address: str) -> None:
        """Raise TooManyAttempts, with the seconds to wait, while there were too many."""
        ...

    def failed(self, username: str, address: str) -> None:
        """Count one."""
        ...
