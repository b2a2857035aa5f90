"""One Engine.IO socket as its door sees it: who, how much so far, and when it has to end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Link:
    """A peer's socket, over all the requests that it consists of.

    It is admitted once a CONNECT was accepted. After `end_at` no wait for its peer lasts longer
    than until then, so that a peer that neither reads nor leaves cannot hold it open. `drained`
    waits until its connection's buffer is nearly empty, where the server can tell.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.sid: str | None = None
        self.is_admitted = False
        self.is_cut = False
        self.spent_bytes = 0
        self.drained: Callable[[], Awaitable[object]] | None = None
        self.overdue: asyncio.TimerHandle | None = None
        self._ends_at: float | None = None
        self._waits: set[asyncio.Timeout] = set()

    async def within(self, wait: Awaitable[T]) -> T:
        """What `wait` gives; raises TimeoutError when the link has to end before."""
        async with asyncio.timeout_at(self._ends_at) as deadline:
            self._waits.add(deadline)
            try:
                return await wait
            finally:
                self._waits.discard(deadline)

    def end_at(self, when: float) -> None:
        """Let every wait, those under way as well, end at `when` on the loop's clock."""
        self._ends_at = when
        for deadline in self._waits:
            if not deadline.expired():
                deadline.reschedule(when)

    def forget_overdue(self) -> None:
        """It was admitted, or is over: its time to CONNECT counts no more."""
        if self.overdue is not None:
            self.overdue.cancel()
            self.overdue = None
