"""Time."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The time of the agent's machine."""

    def now(self) -> datetime:
        """The time of day: aware, UTC; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of `monotonic`."""
        ...
