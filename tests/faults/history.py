"""What was done to a system, and when: the story that a failing check prints."""

import time


class History:
    """Notes in the order in which things happened."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._notes: list[tuple[float, str]] = []

    def note(self, what: str) -> None:
        self._notes.append((time.monotonic() - self._began_at, what))

    def story(self) -> str:
        return "\n".join(f"  {at:8.3f} s  {what}" for at, what in self._notes)
