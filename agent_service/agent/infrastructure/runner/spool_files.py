"""The files of the spool, and how much of them somebody has yet to take.

Part of the runner: nothing here but what Python itself starts with.
"""

from __future__ import annotations

import contextlib
import itertools
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

#: Empty files that are kept for the next commands.
EMPTY_MAX: Final = 256
#: What their names begin with; no command's do.
EMPTY: Final = "+empty"


class SpoolFiles:
    """Opens and removes files of one folder; `held` counts bytes that were kept and not taken.

    What is removed is emptied and used again. A file system that has just deleted many files looks
    for a long time for one to create (ext4 passes over what it deleted in the last seconds): with
    hundreds of short commands a second that was most of what the runner did.
    """

    def __init__(self, folder: str) -> None:
        self.held = 0
        self._folder = folder
        self._empty: list[str] = []
        self._numbers = itertools.count()

    def open(self, path: str, flags: int) -> int:
        """The descriptor of the file, which is made where there is none; raises OSError."""
        if self._empty and not os.path.exists(path):
            os.rename(self._empty.pop(), path)
        return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def empty(self, paths: Iterable[str]) -> None:
        """Keep the files for others, without their contents; nobody may have them open."""
        for path in paths:
            with contextlib.suppress(OSError):
                if len(self._empty) >= EMPTY_MAX:
                    os.unlink(path)
                    continue
                os.truncate(path, 0)
                fresh = f"{self._folder}/{EMPTY}.{next(self._numbers)}"
                os.rename(path, fresh)
                self._empty.append(fresh)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove the files, as far as they are there and that is possible."""
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def clear(self) -> None:
        """Remove the empty files, also those of runners before."""
        self._empty.clear()
        names = [name for name in os.listdir(self._folder) if name.startswith(EMPTY)]
        self.remove(f"{self._folder}/{name}" for name in names)
