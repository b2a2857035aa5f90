"""The controller's time, as far as the agent can know it."""

from datetime import datetime, timedelta

from agent.application.ports.clock import Clock


class ControllerTime:
    """Goes on from the last time that the controller told, however this host's clock is set.

    Until it was told once, it is this host's time and `ahead_s`, as the last session had it.
    """

    def __init__(self, clock: Clock, ahead_s: float = 0.0) -> None:
        self._clock = clock
        self._told = clock.now() + timedelta(seconds=ahead_s)
        self._told_at = clock.monotonic()

    @property
    def ahead_s(self) -> float:
        """Seconds by which it is ahead of this host's time."""
        return (self.now() - self._clock.now()).total_seconds()

    def tell(self, server_time: datetime) -> None:
        """The controller says that it is `server_time` now."""
        self._told, self._told_at = server_time, self._clock.monotonic()

    def now(self) -> datetime:
        """The controller's time now; aware, UTC."""
        return self._told + timedelta(seconds=self._clock.monotonic() - self._told_at)
