"""Find out who somebody is."""

from dataclasses import dataclass

from app.application.ports.clock import Clock
from app.application.ports.repositories import UserRepository
from app.application.ports.security import Attempts, Claims, PasswordHasher, TokenIssuer
from app.application.tokens import is_named_token, token_digest
from app.domain.errors import (
    Denied,
    InvalidCredentials,
    TokenExpired,
    Unauthenticated,
    UserNotFound,
)
from app.domain.ids import AgentId, UserName
from app.domain.models.selector import Selector
from app.domain.models.user import NamedToken, Principal, Role, User, at_least

_WRONG = "unknown user or wrong password"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A user name and a password for a token.

    Raises InvalidCredentials, the same for an unknown user, a wrong password and a disabled
    account; TooManyAttempts after repeated failures; Denied for an agent's token that the
    account may not have.
    """

    users: UserRepository
    hasher: PasswordHasher
    tokens: TokenIssuer
    attempts: Attempts

    async def __call__(
        self, username: str, password: str, *, address: str, agent_id: AgentId | None = None
    ) -> tuple[str, Claims]:
        """The token and what it says."""
        self.attempts.check(username, address)
        user = await self._find(username)
        fits = await self.hasher.verify(password, user.password_hash if user else None)
        if user is None or not fits or user.is_disabled:
            self.attempts.failed(username, address)
            raise InvalidCredentials(_WRONG)
        if agent_id is not None and user.role not in (Role.AGENT, Role.ADMIN):
            raise Denied(f"{user.name} is {user.role}: an agent signs in with the role agent")
        if agent_id is None and user.role is Role.AGENT:
            raise Denied(f"{user.name} is an agent's account: ask with scope=agent:AGENT_ID")
        return self.tokens.issue(user.name, agent_id=agent_id)

    async def _find(self, username: str) -> User | None:
        try:
            return await self.users.get(UserName(username))
        except UserNotFound:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticate:
    """A token for the principal who shows it. Raises Unauthenticated or TokenExpired."""

    users: UserRepository
    tokens: TokenIssuer
    clock: Clock

    async def __call__(self, token: str) -> Principal:
        """The user behind a signed token or a named one, with his rights as they are now."""
        if is_named_token(token):
            return await self._by_named_token(token)
        claims = self.tokens.read_user(token)
        user = await self._account(claims.subject)
        return _principal(user, user.role, (user.selector,), claims)

    async def agent(self, token: str) -> AgentId:
        """Which agent a token opens the agents' door for."""
        claims = self.tokens.read_agent(token)
        user = await self._account(claims.subject)
        _require_agents_role(user)
        if claims.agent_id is None:
            raise Unauthenticated("the token is not an agent's")
        return claims.agent_id

    def agent_account(self, token: str) -> UserName:
        """The account that an agent's token was given to, as the token says."""
        return self.tokens.read_agent(token).subject

    async def require_agent_account(self, name: UserName) -> None:
        """Return while the account may be an agent's; raises Unauthenticated after that."""
        _require_agents_role(await self._account(name))

    async def _by_named_token(self, token: str) -> Principal:
        found = await self.users.token_by_digest(token_digest(token))
        if found is None:
            raise Unauthenticated("the token is not known here: sign in again")
        if found.expires_at is not None and found.expires_at <= self.clock.now():
            raise TokenExpired("the token has expired: make a new one")
        user = await self._account(found.owner)
        return _principal(user, _lower(user, found), (user.selector, found.selector), found)

    async def _account(self, name: UserName) -> User:
        try:
            user = await self.users.get(name)
        except UserNotFound as exc:
            raise Unauthenticated("the token's account does not exist any more") from exc
        if user.is_disabled:
            raise Unauthenticated("the token's account is disabled")
        return user


def _require_agents_role(user: User) -> None:
    if user.role not in (Role.AGENT, Role.ADMIN):
        raise Unauthenticated("the account may not be an agent's any more")


def _lower(user: User, token: NamedToken) -> Role:
    """The lesser of both roles: a token never rises with, nor above, its owner."""
    return token.role if at_least(user.role, token.role) else user.role


def _principal(
    user: User, role: Role, selectors: tuple[str | None, ...], source: Claims | NamedToken
) -> Principal:
    texts = [text for text in selectors if text]
    return Principal(
        name=user.name,
        role=role,
        selectors=tuple(Selector.parse(text) for text in texts),
        selector_text=",".join(texts) or None,
        expires_at=source.expires_at,
    )
