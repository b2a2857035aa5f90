"""Accounts and named tokens in this process's memory."""

from app.domain.errors import LastAdministrator, TokenNotFound, UserExists, UserNotFound
from app.domain.ids import TokenId, UserName
from app.domain.models.user import NamedToken, Role, User


class InMemoryUserRepository:
    """A UserRepository over dictionaries; accounts and tokens are immutable, so none is copied."""

    def __init__(self) -> None:
        self._users: dict[UserName, User] = {}
        self._tokens: dict[TokenId, NamedToken] = {}

    async def add(self, user: User) -> None:
        """Store a new account."""
        if user.name in self._users:
            raise UserExists(f"the user {user.name} exists: choose another name")
        self._users[user.name] = user

    async def get(self, name: UserName) -> User:
        """One account."""
        return self._stored(name)

    async def all(self) -> list[User]:
        """Every account, by name."""
        return [self._users[name] for name in sorted(self._users)]

    async def replace(self, user: User) -> None:
        """Store a changed account."""
        self._stored(user.name)
        self._users[user.name] = user

    async def remove(self, name: UserName) -> None:
        """Delete an account and its tokens."""
        user = self._stored(name)
        if user.role is Role.ADMIN and not self._has_other_administrator(name):
            raise LastAdministrator(f"{name} is the only administrator: make another first")
        del self._users[name]
        self._tokens = {key: t for key, t in self._tokens.items() if t.owner != name}

    async def add_token(self, token: NamedToken) -> None:
        """Store a named token."""
        self._stored(token.owner)
        self._tokens[token.id] = token

    async def tokens(self, owner: UserName) -> list[NamedToken]:
        """The owner's named tokens, oldest first."""
        return [self._tokens[key] for key in sorted(self._tokens) if self._is_of(key, owner)]

    async def token_by_digest(self, digest: str) -> NamedToken | None:
        """The token with this digest, if there is one."""
        return next((t for t in self._tokens.values() if t.digest == digest), None)

    async def remove_token(self, owner: UserName, token_id: TokenId) -> None:
        """Delete a named token."""
        if not self._is_of(token_id, owner):
            raise TokenNotFound(f"{owner} has no token {token_id}")
        del self._tokens[token_id]

    def _stored(self, name: UserName) -> User:
        try:
            return self._users[name]
        except KeyError as exc:
            raise UserNotFound(f"there is no user {name}") from exc

    def _is_of(self, token_id: TokenId, owner: UserName) -> bool:
        token = self._tokens.get(token_id)
        return token is not None and token.owner == owner

    def _has_other_administrator(self, name: UserName) -> bool:
        return any(
            user.role is Role.ADMIN and user.name != name and not user.is_disabled
            for user in self._users.values()
        )
