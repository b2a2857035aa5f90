"""Frames of one agent's session, in the order in which they came."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.application.use_cases.record_reports import Recorded, Report
from app.domain.errors import Throttled
from app.domain.ids import CommandId

#: Frames and bytes of output that one session may have waiting; agents send far less unasked.
FRAMES_MAX: Final = 8192
BYTES_MAX: Final = 16 * 1024 * 1024
#: How long a little output waits for the result that may follow it: one transaction then takes
#: both. More than URGENT_BYTES wait for nothing.
LINGER_S: Final = 0.001
URGENT_BYTES: Final = 64 * 1024


class InboxFull(Throttled):
    """The agent sends more than its window allows."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A report about a command; `recorded` hears what is stored, where its sender waits for it."""

    command_id: CommandId
    report: Report
    size: int
    recorded: asyncio.Future[Recorded] | None


class Inbox:
    """A bounded queue that is emptied at once: all that waits becomes one transaction."""

    def __init__(self) -> None:
        self._frames: deque[Waiting] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._is_closed = False

    def put(self, waiting: Waiting) -> None:
        """Append; raises InboxFull, and appends nothing, over a bound."""
        if len(self._frames) >= FRAMES_MAX or self._bytes + waiting.size > BYTES_MAX:
            raise InboxFull("more is under way than the session's window allows")
        self._frames.append(waiting)
        self._bytes += waiting.size
        self._arrived.set()
        if waiting.recorded is not None or self._bytes >= URGENT_BYTES:
            self._is_urgent.set()

    async def take(self) -> list[Waiting]:
        """All that waits, at least one frame.

        A little output alone is given a moment, since the result often follows on its heels.
        """
        await self.arrived()
        await self._linger()
        self._arrived.clear()
        self._is_urgent.clear()
        frames = list(self._frames)
        self._frames.clear()
        self._bytes = 0
        return frames

    async def arrived(self) -> None:
        """Return when something waits."""
        await self._arrived.wait()

    def take_without_output(self) -> list[Waiting]:
        """All that waits of commands of which no output waits; the rest stays, in its order."""
        writing = {waiting.command_id for waiting in self._frames if waiting.size}
        taken = [waiting for waiting in self._frames if waiting.command_id not in writing]
        self._frames = deque(w for w in self._frames if w.command_id in writing)
        if not self._frames:
            self._arrived.clear()
            self._is_urgent.clear()
        return taken

    def put_back(self, frames: Sequence[Waiting]) -> None:
        """Let frames that could not be stored wait again, before all that came since."""
        self._frames.extendleft(reversed(frames))
        self._bytes += sum(waiting.size for waiting in frames)
        self._arrived.set()
        if self._is_closed:
            self.close()

    async def _linger(self) -> None:
        if self._is_urgent.is_set():
            return
        try:
            async with asyncio.timeout(LINGER_S):
                await self._is_urgent.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Let everybody who waits for a frame that was never stored know it."""
        self._is_closed = True
        for waiting in self._frames:
            if waiting.recorded is not None:
                waiting.recorded.cancel()
        self._frames.clear()
