"""Failed sign-ins counted in moving windows, by the library `limits`."""

import time
from typing import Final

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app.domain.errors import TooManyAttempts

#: Failures within five minutes: of one account from one address, and of one address in all.
PER_ACCOUNT: Final = RateLimitItemPerMinute(10, 5)
PER_ADDRESS: Final = RateLimitItemPerMinute(60, 5)


class LimitsAttempts:
    """Attempts in this process's memory.

    The account's window counts per address, so that nobody is locked out by somebody else's
    failures from elsewhere.
    """

    def __init__(self) -> None:
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    def check(self, username: str, address: str) -> None:
        """Raise TooManyAttempts while there were too many."""
        for limit, key in self._limits(username, address):
            if not self._windows.test(limit, *key):
                reset = self._windows.get_window_stats(limit, *key).reset_time
                wait_s = max(reset - time.time(), 1.0)
                raise TooManyAttempts(
                    f"too many failed sign-ins: try again in {wait_s:.0f} s", retry_after_s=wait_s
                )

    def failed(self, username: str, address: str) -> None:
        """Count one."""
        for limit, key in self._limits(username, address):
            self._windows.hit(limit, *key)

    def _limits(
        self, username: str, address: str
    ) -> tuple[tuple[RateLimitItemPerMinute, tuple[str, ...]], ...]:
        return (PER_ACCOUNT, ("account", username, address)), (PER_ADDRESS, ("address", address))
