"""Waiting for a bell, and looking by oneself where it stays silent."""

import asyncio
from contextlib import suppress

from app.application.ports.wakeups import Bell


async def rung_or_due(bell: Bell, after_s: float) -> None:
    """Return when `bell` has rung, or after `after_s` seconds without it.

    Wake-ups may be lost: whoever changed the store may be cancelled, or die, before telling it.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(after_s):
            await bell.wait()
