"""A way to run commands."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from agent.domain.models.execution import Ending, Failure, State, StopFailure
from agent.domain.models.executor import Place
from agent.domain.models.order import Order
from agent.domain.stopping import Force

StopFailed = Callable[[StopFailure], None]


class RunningProcess(Protocol):
    """The first process of a command, and the tree below it.

    Whoever owns it keeps its deadline and carries out a stop to the end, also when nobody is here
    any more; what is asked for below is in its hands when the call returns.
    """

    @property
    def started_at(self) -> datetime:
        """When it was started."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether it stands still, as asked."""
        ...

    async def wait(self) -> Ending:
        """How it ended, once its output is complete; it may be called again."""
        ...

    async def stop(self, ended_as: State, force: Force, failure: Failure | None) -> None:
        """Begin to end the whole tree as `ended_as`; the first reason counts, any may hurry.

        Nothing happens once the first process has ended by itself. A tree that outlives being
        killed is told to who started or took over, and the stop goes on.
        """
        ...

    async def pause(self) -> bool:
        """Stop the tree's clock; False where it is being stopped, or has ended."""
        ...

    async def resume(self) -> bool:
        """Let a paused tree go on; False where it is being stopped, or has ended."""
        ...


class Executor(Protocol):
    """Starts processes for orders; what they write goes into the spool."""

    @property
    def keeper(self) -> str:
        """Who would own what is started now; its name is in the journal before the start."""
        ...

    async def start(self, order: Order, place: Place, stop_failed: StopFailed) -> RunningProcess:
        """Start the order's process.

        Raises CannotStart, and then nothing ran or will; NoRoomToStart, and then it may be tried
        again; and StartedBefore for an order that was started once, by whomever.
        """
        ...

    async def take_over(self, order: Order, keeper: str, stop_failed: StopFailed) -> RunningProcess:
        """The process that `keeper` was to start for the order before this agent's own start.

        Raises NeverStarted where it certainly was not, StartedBefore where that cannot be known.
        """
        ...
