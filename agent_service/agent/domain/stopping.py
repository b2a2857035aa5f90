"""Ending a process tree, step by step, and proving that it is gone.

Imported by the runner, which is to stay small: nothing here but what Python itself starts with.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

#: Between asking a tree to end and killing it; between killing it and saying that it stays.
TERM_GRACE_S: Final = 5.0
KILL_GRACE_S: Final = 3.0
#: How often a dying tree is looked at: first, at most, and once it has outlived a kill.
LOOK_FIRST_S: Final = 0.01
LOOK_MAX_S: Final = 0.2
LOOK_LATE_S: Final = 2.0


class Impulse(StrEnum):
    """What can be sent to every process of a tree; PROBE only looks."""

    TERMINATE = "terminate"
    KILL = "kill"
    PAUSE = "pause"
    CONTINUE = "continue"
    PROBE = "probe"


class Force(IntEnum):
    """How a tree is ended: asked first, or killed at once."""

    ASK = 0
    KILL = 1


class Survivors:
    """The live processes of a tree, and those among them that may not be signalled."""

    __slots__ = ("denied", "pids")

    def __init__(self, pids: Sequence[int] = (), denied: Sequence[int] = ()) -> None:
        self.pids = tuple(pids)
        self.denied = tuple(denied)


class TreeStop:
    """The stop of one process tree; whoever drives it sends the impulses and says who lived.

    `found_any`: whether anything was alive when the stop began; if not, it had ended by itself.
    `failure` is a code and a sentence once the tree has outlived being killed; the stop goes on.
    """

    def __init__(self, force: Force, *, now: float) -> None:
        self.force = force
        self._met_nobody = False
        self.is_gone = False
        self.found_any = False
        self.failure: tuple[str, str] | None = None
        self.left: Sequence[int] = ()
        self._ask_until = now + TERM_GRACE_S
        self._was_asked = False
        self._kill_until: float | None = None
        self._pause_s = LOOK_FIRST_S

    def insist(self, force: Force) -> None:
        """Kill from now on, if that is more than what was asked for before."""
        self.force = max(self.force, force)

    def impulses(self, now: float) -> Sequence[Impulse]:
        """What to send at `now`, in order; then `note` what the first of them met."""
        if self.force is Force.ASK and now < self._ask_until:
            if self._was_asked:
                return (Impulse.PROBE,)
            self._was_asked = True
            return (Impulse.TERMINATE, Impulse.CONTINUE)  # who is stopped cannot end
        if self._kill_until is None:
            self._kill_until = now + KILL_GRACE_S
            self._pause_s = LOOK_FIRST_S
        return (Impulse.KILL,)

    def note(self, alive: Survivors, now: float) -> float | None:
        """Who lived when an impulse was sent; after how many seconds to look again, None: gone."""
        self.found_any = self.found_any or bool(alive.pids)
        self.left = alive.pids
        if not alive.pids:
            # Believed the second time: one look cannot see who is born behind its back.
            self.is_gone, self._met_nobody = self._met_nobody, True
            return None if self.is_gone else LOOK_FIRST_S
        self._met_nobody = False
        if self._kill_until is not None and now >= self._kill_until:
            self.failure = self.failure or _failure(alive)
            return LOOK_LATE_S
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LOOK_MAX_S)
        return pause_s


def _failure(left: Survivors) -> tuple[str, str]:
    if left.denied:
        return "stop_not_permitted", "the agent's account may not end these processes"
    return "stop_incomplete", "these processes were killed and have not ended yet"
