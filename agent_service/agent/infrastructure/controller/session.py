"""Sessions with the controller, one after the other, for as long as the agent lives."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from agent.domain.errors import LinkLost
from agent.infrastructure.controller.sign_in import SignInFailed

log = logging.getLogger(__name__)

#: The longest pause between two tries.
PAUSE_MAX_S: Final = 30.0
#: A session that lasted so long was a good one: the next try comes soon.
GOOD_SESSION_S: Final = 10.0


class GivenUp(Exception):
    """As many tries have failed in a row as were allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pauses that grow from `first_s` to PAUSE_MAX_S, each of a random part of its full length.

    The random part keeps agents that lost one controller together from coming back together.
    `max_attempts` 0 has no end.
    """

    first_s: float
    max_attempts: int
    fraction: Callable[[], float] = random.random

    def pause_s(self, failures: int) -> float:
        """The pause after that many failures in a row, 1 or more; raises GivenUp."""
        if self.max_attempts and failures > self.max_attempts:
            raise GivenUp(f"{failures} tries to reach the controller have failed")
        longest = min(self.first_s * float(1 << min(failures - 1, 16)), PAUSE_MAX_S)
        return longest * self.fraction()


async def keep_session(
    sign_in: Callable[[], Awaitable[str]],
    serve: Callable[[str], Awaitable[None]],
    backoff: Backoff,
) -> None:
    """Sign in and `serve` with the token, again and again; raises GivenUp and what is not ours.

    `serve` returns or raises LinkLost when its session is over.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        good_from, asked_s = math.inf, 0.0
        try:
            token = await sign_in()
            good_from = loop.time() + GOOD_SESSION_S
            await serve(token)
            reason = "the controller closed the session"
        except SignInFailed as exc:
            reason, asked_s = f"cannot sign in: {exc}", exc.retry_after_s
        except LinkLost as exc:
            reason = str(exc)
        failures = 1 if loop.time() > good_from else failures + 1
        pause_s = max(backoff.pause_s(failures), asked_s)
        log.warning("%s; next try in %.1f s", reason, pause_s)
        await asyncio.sleep(pause_s)
