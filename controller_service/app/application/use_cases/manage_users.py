"""Accounts: the administrator's part and one's own."""

from dataclasses import dataclass, replace

from app.application.authorization import Verb, authorize
from app.application.ports.clock import Clock
from app.application.ports.repositories import UserRepository
from app.application.ports.security import PasswordHasher
from app.domain.errors import InvalidCredentials
from app.domain.ids import UserName
from app.domain.models.selector import Selector
from app.domain.models.user import Principal, Role, User


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """An account that an administrator wants made."""

    name: UserName
    password: str
    role: Role
    selector: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManageUsers:
    """Create, list and delete accounts; each raises Denied unless an administrator asks."""

    users: UserRepository
    hasher: PasswordHasher
    clock: Clock

    async def create(self, principal: Principal, wanted: NewAccount) -> User:
        """Make an account; raises UserExists or InvalidSelector."""
        authorize(principal, Verb.MANAGE_USERS)
        return await self._add(wanted)

    async def all(self, principal: Principal) -> list[User]:
        """Every account, by name."""
        authorize(principal, Verb.MANAGE_USERS)
        return await self.users.all()

    async def delete(self, principal: Principal, name: UserName) -> None:
        """Delete an account and its tokens; raises UserNotFound or LastAdministrator."""
        authorize(principal, Verb.MANAGE_USERS)
        await self.users.remove(name)

    async def ensure_first_administrator(self, wanted: NewAccount) -> bool:
        """Make the first administrator; False, and nothing changes, where any account exists."""
        if await self.users.all():
            return False
        await self._add(wanted)
        return True

    async def reset_password(self, name: UserName, password: str) -> None:
        """Set a password from the controller's own machine; raises UserNotFound."""
        user = await self.users.get(name)
        await self.users.replace(
            replace(user, password_hash=await self.hasher.hash(password), is_disabled=False)
        )

    async def _add(self, wanted: NewAccount) -> User:
        if wanted.selector is not None:
            Selector.parse(wanted.selector)
        user = User(
            name=wanted.name,
            password_hash=await self.hasher.hash(wanted.password),
            role=wanted.role,
            selector=wanted.selector,
            created_at=self.clock.now(),
        )
        await self.users.add(user)
        return user


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOwnPassword:
    """A new password for the one who asks, who has to know the old one."""

    users: UserRepository
    hasher: PasswordHasher

    async def __call__(self, principal: Principal, current: str, new: str) -> None:
        """Store it; raises InvalidCredentials."""
        authorize(principal, Verb.CHANGE_OWN_PASSWORD)
        user = await self.users.get(principal.name)
        if not await self.hasher.verify(current, user.password_hash):
            raise InvalidCredentials("the current password is wrong")
        await self.users.replace(replace(user, password_hash=await self.hasher.hash(new)))
