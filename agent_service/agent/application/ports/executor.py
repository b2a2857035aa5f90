"""A way to run commands."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from agent.domain.models.executor import Exit, Impulse, Place, Survivors
from agent.domain.models.order import Order
from agent.domain.models.output import Piece


class RunningProcess(Protocol):
    """The first process of a command, and the tree below it."""

    async def read(self) -> Sequence[Piece]:
        """What was written since the last call, in the order of its arrival.

        Waits until there is something; empty once both streams have ended and all was read.
        Small writes are gathered for some milliseconds. While nobody reads, the command is slowed
        down: at most some hundred KiB are held here.
        """
        ...

    async def wait(self) -> Exit:
        """How the first process ended; it may be called again.

        Raises EndUnknown where it has ended and the system does not say how.
        """
        ...

    def abandon_output(self) -> None:
        """Read nothing more: `read` gives what it has, then ends.

        Children that still hold the streams may go on writing; it is drained and dropped.
        """
        ...

    async def signal(self, impulse: Impulse) -> Survivors:
        """Send `impulse` to every live process of the tree; who was alive when it was sent.

        The tree holds the first process, all its descendants, and who left it but carries its
        mark. With PROBE nothing is sent.
        """
        ...


class Executor(Protocol):
    """Starts processes for orders."""

    def run(self, order: Order, place: Place) -> AbstractAsyncContextManager[RunningProcess]:
        """Enter to start the process; leave to let go of it, which ends nothing.

        Entering raises SpawnFailed, and then nothing ran.
        """
        ...
