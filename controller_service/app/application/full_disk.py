"""What happens when there is no room: new work is refused, what has to be stored waits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from app.application.ports.storage_room import StorageRoom
from app.domain.errors import StorageFull

T = TypeVar("T")

#: After this time what the full disk did not take is tried again.
FULL_PAUSE_S: Final = 1.0


def require_room(room: StorageRoom) -> None:
    """Raise StorageFull where nothing new may be stored."""
    if not room.has_room():
        raise StorageFull(
            "the controller's disk has less than MIN_FREE_BYTES left, nothing was stored: make "
            "room there, or shorten RETENTION_DAYS, then submit again"
        )


async def once_there_is_room(store: Callable[[], Awaitable[T]]) -> T:
    """What `store` gives; it is tried again and again while it raises StorageFull.

    A session would otherwise end, come back, and end again.
    """
    while True:
        try:
            return await store()
        except StorageFull:
            await asyncio.sleep(FULL_PAUSE_S)
