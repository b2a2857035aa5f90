"""Whether the controller takes new work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.domain.errors import Draining


class Lifecycle:
    """Ready from the start; draining from the first `drain` on, for good."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()
        self._deadlines: set[asyncio.Timeout] = set()

    @property
    def is_draining(self) -> bool:
        """Whether the controller is stopping."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Take no new work from now on, and let nobody wait any longer."""
        self._draining.set()
        for deadline in self._deadlines:
            if deadline.expired():
                continue  # its block is about to end, and it cannot be moved any more
            deadline.reschedule(asyncio.get_running_loop().time())

    def require_ready(self) -> None:
        """Raise Draining once the controller is stopping."""
        if self.is_draining:
            raise Draining("the controller is stopping: try again when it is back")

    async def until_draining(self) -> None:
        """Return when the controller begins to stop."""
        await self._draining.wait()

    @asynccontextmanager
    async def deadline(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError in the block after `seconds`, or when the controller drains."""
        async with asyncio.timeout(0 if self.is_draining else seconds) as deadline:
            self._deadlines.add(deadline)
            try:
                yield
            finally:
                self._deadlines.discard(deadline)
