"""Wake-ups within one process."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class InProcessBell:
    """A bell that rings once for any number of notifications."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Let the present or the next wait return."""
        self._rung.set()

    async def wait(self) -> None:
        """Return as soon as it was rung since the last return."""
        await self._rung.wait()
        self._rung.clear()


class InProcessWakeups:
    """Wakeups for one controller; memory is one entry per open bell."""

    def __init__(self) -> None:
        self._bells: dict[str, set[InProcessBell]] = {}

    def notify(self, topic: str) -> None:
        """Ring every bell of `topic`."""
        for bell in self._bells.get(topic, ()):
            bell.ring()

    @contextmanager
    def listen(self, topic: str) -> Iterator[InProcessBell]:
        """A bell of `topic`, for as long as the context is open."""
        bell = InProcessBell()
        bells = self._bells.setdefault(topic, set())
        bells.add(bell)
        try:
            yield bell
        finally:
            bells.discard(bell)
            if not bells and self._bells.get(topic) is bells:
                del self._bells[topic]
