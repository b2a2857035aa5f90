"""Time that passes when a test says so."""

from datetime import datetime, timedelta

from tests.builders import NOW


class ManualClock:
    """A Clock that stands still between calls of `advance`."""

    def __init__(self, at: datetime = NOW) -> None:
        self._now = at

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
