"""Ending a process tree, and proving that it is gone."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from agent.application.ports.clock import Clock
from agent.application.ports.executor import RunningProcess
from agent.domain.models.execution import StopFailure
from agent.domain.models.executor import Impulse, Survivors

#: Between asking a tree to end and killing it; between killing it and saying that it stays.
TERM_GRACE_S: Final = 5.0
KILL_GRACE_S: Final = 3.0
#: How often a dying tree is looked at: first, at most, and once it has outlived a kill.
LOOK_FIRST_S: Final = 0.01
LOOK_MAX_S: Final = 0.2
LOOK_LATE_S: Final = 2.0


class Force(IntEnum):
    """How a tree is ended: asked first, or killed at once."""

    ASK = 0
    KILL = 1


@dataclass(slots=True, kw_only=True)
class TreeStop:
    """The stop of one process tree; `force` may be raised while it is under way.

    `failed` is called once with what is left when the tree outlives being killed.
    """

    process: RunningProcess
    clock: Clock
    failed: Callable[[StopFailure], None]
    force: Force
    term_grace_s: float = TERM_GRACE_S
    #: Set when nothing of the tree is left.
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    #: Whether anything was alive when the stop began: if not, it had ended by itself.
    found_any: bool = False

    def insist(self, force: Force) -> None:
        """Kill from now on, if that is more than what was asked for before."""
        self.force = max(self.force, force)

    async def run(self) -> None:
        """Return, with `gone` set, when nothing of the tree is left, however long that takes."""
        await self._end()
        self.gone.set()

    async def _end(self) -> None:
        if self.force is Force.ASK and await self._ask():
            return
        deadline = self.clock.monotonic() + KILL_GRACE_S
        pause = LOOK_FIRST_S
        while True:
            left = await self.process.signal(Impulse.KILL)
            self._note(left)
            if not left.pids:
                return
            if self.clock.monotonic() >= deadline:
                break
            await self.clock.sleep(pause)
            pause = min(2 * pause, LOOK_MAX_S)
        self.failed(_failure(left))
        while (await self.process.signal(Impulse.KILL)).pids:
            await self.clock.sleep(LOOK_LATE_S)

    def _note(self, alive: Survivors) -> None:
        self.found_any = self.found_any or bool(alive.pids)

    async def _ask(self) -> bool:
        """Whether the tree was gone within its grace."""
        deadline = self.clock.monotonic() + self.term_grace_s
        self._note(await self.process.signal(Impulse.TERMINATE))
        await self.process.signal(Impulse.CONTINUE)  # who is stopped cannot end
        pause = LOOK_FIRST_S
        while self.force is Force.ASK and self.clock.monotonic() < deadline:
            if not (await self.process.signal(Impulse.PROBE)).pids:
                return True
            await self.clock.sleep(pause)
            pause = min(2 * pause, LOOK_MAX_S)
        return False


def _failure(left: Survivors) -> StopFailure:
    if left.denied:
        message = "the agent's account may not end these processes"
        return StopFailure("stop_not_permitted", message, tuple(left.pids))
    message = "these processes were killed and have not ended yet"
    return StopFailure("stop_incomplete", message, tuple(left.pids))
