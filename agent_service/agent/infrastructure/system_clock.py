"""The host's time."""

import asyncio
from datetime import UTC, datetime
from time import monotonic


class SystemClock:
    """A Clock over the system's."""

    def now(self) -> datetime:
        """The time of day."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)
