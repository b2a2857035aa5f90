"""The controller's time, as far as the agent can know it."""

from datetime import datetime, timedelta

from agent.application.ports.clock import Clock


class ControllerTime:
    """Goes on from the last time that the controller told, however this host's clock is set.

    Until it was told once, it is this host's time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told = clock.now()
        self._told_at = clock.monotonic()

    def tell(self, server_time: datetime) -> None:
        """The controller says that it is `server_time` now."""
        self._told, self._told_at = server_time, self._clock.monotonic()

    def now(self) -> datetime:
        """The controller's time now; aware, UTC."""
        return self._told + timedelta(seconds=self._clock.monotonic() - self._told_at)
