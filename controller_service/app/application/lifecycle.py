"""Whether the controller takes new work."""

import asyncio

from app.domain.errors import Draining


class Lifecycle:
    """Ready from the start; draining from the first `drain` on, for good."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        """Whether the controller is stopping."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Take no new work from now on."""
        self._draining.set()

    def require_ready(self) -> None:
        """Raise Draining once the controller is stopping."""
        if self.is_draining:
            raise Draining("the controller is stopping: try again when it is back")

    async def until_draining(self) -> None:
        """Return when the controller begins to stop."""
        await self._draining.wait()
