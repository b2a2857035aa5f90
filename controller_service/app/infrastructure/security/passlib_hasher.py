"""Argon2 hashes by passlib, in threads of their own: the one module that imports it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self, TypeVar

from passlib.context import CryptContext

from app.domain.errors import Throttled

T = TypeVar("T")

#: Threads that hash: one hash costs 64 MiB for a moment and a core for a tenth of a second.
THREADS: Final = 2
#: Hashes that may wait; beyond it sign-ins are asked to come back.
WAITING_MAX: Final = 64
#: A hash that nobody's password has, with the costs of today: making one would delay every start.
_OF_NOBODY: Final = (
    "$argon2id$v=19$m=65536,t=3,p=4"
    "$KcVYS4lxTgnhnBNiLAWAcA$Id1c90oQcosRUKrG/hPgK+5hxWJR506UPIF5Lt/XwMg"
)


class PasslibHasher:
    """A PasswordHasher with Argon2id; open while its context is."""

    def __init__(self) -> None:
        self._context = CryptContext(schemes=["argon2"])
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="password-hasher")
        self._waiting = 0
        is_outdated = self._context.needs_update(_OF_NOBODY)
        self._dummy = self._context.hash("nobody has this") if is_outdated else _OF_NOBODY

    async def __aenter__(self) -> Self:
        """Ready at once."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """A salted hash."""
        return await self._run(lambda: str(self._context.hash(password)))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether the password fits; against no hash at all it takes as long."""
        known = password_hash or self._dummy
        fits = await self._run(lambda: bool(self._context.verify(password, known)))
        return fits and password_hash is not None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise Throttled("too many sign-ins at once: try again in a moment", retry_after_s=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1
