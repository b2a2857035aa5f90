"""Room that somebody gives and takes."""


class InMemoryRoom:
    """A StorageRoom that has room while it is said to have."""

    def __init__(self) -> None:
        self.is_there = True

    def has_room(self) -> bool:
        """Whether there is."""
        return self.is_there
