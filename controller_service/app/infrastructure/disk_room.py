"""Room on the file system of the database."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: How long what the file system said counts.
LOOK_EVERY_S: Final = 1.0


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write where `path` is."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class DiskRoom:
    """A StorageRoom: there is room while `min_free_bytes` are free where `path` is."""

    def __init__(
        self,
        path: Path,
        *,
        min_free_bytes: int,
        free: Callable[[Path], int] = free_bytes,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._min_free_bytes = min_free_bytes
        self._free = free
        self._timer = timer
        self._look_at = timer()
        self._has_room = True

    def has_room(self) -> bool:
        """Whether there is; asked of the file system once in LOOK_EVERY_S at the most."""
        if self._timer() >= self._look_at:
            self._look_at = self._timer() + LOOK_EVERY_S
            self._look()
        return self._has_room

    def _look(self) -> None:
        free = self._free(self._path)
        had_room, self._has_room = self._has_room, free >= self._min_free_bytes
        if had_room and not self._has_room:
            log.warning(
                "the disk is nearly full: new commands are refused, output waits at its agents",
                free_bytes=free,
                min_free_bytes=self._min_free_bytes,
                path=str(self._path),
            )
        elif self._has_room and not had_room:
            log.info("the disk has room again", free_bytes=free)
