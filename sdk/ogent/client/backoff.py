"""How long to wait before trying again, and when to give up."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_FLOOR_S: Final = 0.05


@dataclass(slots=True)
class Backoff:
    """Exponential delays with full jitter, until trying has lasted `limit_s` since `reset`."""

    limit_s: float
    first_s: float = 0.25
    cap_s: float = 5.0
    monotonic: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    _tries: int = field(default=0, init=False)
    _failing_since: float | None = field(default=None, init=False)

    def next_delay_s(self) -> float | None:
        """Seconds to wait after a failure; None where it is time to give up."""
        now = self.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= self.limit_s:
            return None
        ceiling = min(self.cap_s, self.first_s * 2 ** min(self._tries, 16))
        self._tries += 1
        return _FLOOR_S + self.uniform(0.0, ceiling)

    def reset(self) -> None:
        """It went well: start over with the first delay and the full limit."""
        self._tries = 0
        self._failing_since = None
