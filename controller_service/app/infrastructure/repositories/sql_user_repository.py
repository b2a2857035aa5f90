"""Accounts and named tokens in SQL."""

from sqlalchemy import Connection, delete, insert, select, update

from app.domain.errors import LastAdministrator, TokenNotFound, UserExists, UserNotFound
from app.domain.ids import TokenId, UserName
from app.domain.models.user import NamedToken, Role, User
from app.infrastructure.database.ports import Database
from app.infrastructure.database.tables import TOKENS, USERS
from app.infrastructure.repositories.rows import token_of, token_values, user_of, user_values


class SqlUserRepository:
    """A UserRepository over SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, user: User) -> None:
        """Store a new account."""

        def work(connection: Connection) -> None:
            if _find(connection, user.name) is not None:
                raise UserExists(f"the user {user.name} exists: choose another name")
            connection.execute(insert(USERS), user_values(user))

        await self._database.write(work)

    async def get(self, name: UserName) -> User:
        """One account."""
        return await self._database.read(lambda connection: _load(connection, name))

    async def all(self) -> list[User]:
        """Every account, by name."""
        query = select(USERS).order_by(USERS.c.name)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [user_of(row) for row in rows]

    async def replace(self, user: User) -> None:
        """Store a changed account."""

        def work(connection: Connection) -> None:
            _load(connection, user.name)
            query = update(USERS).where(USERS.c.name == user.name)
            connection.execute(query.values(user_values(user)))

        await self._database.write(work)

    async def remove(self, name: UserName) -> None:
        """Delete an account and its tokens."""

        def work(connection: Connection) -> None:
            user = _load(connection, name)
            if user.role is Role.ADMIN and not _other_administrators(connection, name):
                raise LastAdministrator(f"{name} is the only administrator: make another first")
            connection.execute(delete(USERS).where(USERS.c.name == name))

        await self._database.write(work)

    async def add_token(self, token: NamedToken) -> None:
        """Store a named token."""

        def work(connection: Connection) -> None:
            _load(connection, token.owner)
            connection.execute(insert(TOKENS), token_values(token))

        await self._database.write(work)

    async def tokens(self, owner: UserName) -> list[NamedToken]:
        """The owner's named tokens, oldest first."""
        query = select(TOKENS).where(TOKENS.c.owner == owner).order_by(TOKENS.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [token_of(row) for row in rows]

    async def token_by_digest(self, digest: str) -> NamedToken | None:
        """The token with this digest, if there is one."""
        query = select(TOKENS).where(TOKENS.c.digest == digest)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else token_of(row)

    async def remove_token(self, owner: UserName, token_id: TokenId) -> None:
        """Delete a named token."""
        query = delete(TOKENS).where(TOKENS.c.owner == owner, TOKENS.c.id == token_id)

        def work(connection: Connection) -> None:
            if connection.execute(query).rowcount == 0:
                raise TokenNotFound(f"{owner} has no token {token_id}")

        await self._database.write(work)


def _find(connection: Connection, name: UserName) -> User | None:
    row = connection.execute(select(USERS).where(USERS.c.name == name)).one_or_none()
    return None if row is None else user_of(row)


def _load(connection: Connection, name: UserName) -> User:
    user = _find(connection, name)
    if user is None:
        raise UserNotFound(f"there is no user {name}")
    return user


def _other_administrators(connection: Connection, name: UserName) -> bool:
    query = select(USERS.c.name).where(
        USERS.c.role == Role.ADMIN.value, USERS.c.name != name, USERS.c.is_disabled.is_(False)
    )
    return connection.execute(query).first() is not None
