"""Whether there is room for more."""

from typing import Protocol


class StorageRoom(Protocol):
    """The room that the store has left."""

    def has_room(self) -> bool:
        """Whether new commands and new output may be stored. Cheap, and at most 1 s old."""
        ...
