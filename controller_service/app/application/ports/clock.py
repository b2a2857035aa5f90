"""What time it is."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Gives the time."""

    def now(self) -> datetime:
        """The present time in UTC, aware."""
        ...
