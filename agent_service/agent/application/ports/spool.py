"""What commands wrote, until the controller has it."""

from typing import Protocol

from agent.domain.ids import CommandId
from agent.domain.models.output import Chunk, OutputTotals, Position
from agent.domain.models.transmission import Written


class Spool(Protocol):
    """Keeps the bytes of each command in the order in which they came; who runs it fills it.

    Chunks are cut when they are read, from the place where the controller stands, so nothing of
    the cutting has to survive. Bounded in bytes: who fills it waits while it is full, but a
    command of which nothing is kept waits for nobody.
    """

    def seek(self, command_id: CommandId, position: Position) -> None:
        """Read on from `position`: what lies before it is stored by the controller."""
        ...

    def next_chunk(self, command_id: CommandId) -> Chunk | None:
        """The chunk that follows; None where nothing more is there now.

        Raises SpoolUnreadable where that cannot be found out now.
        """
        ...

    def acknowledge(self, command_id: CommandId, position: Position) -> None:
        """Everything before `position` may go; a repeat changes nothing."""
        ...

    def finish(self, command_id: CommandId, written: Written) -> None:
        """The command's processes write no more."""
        ...

    def totals(self, command_id: CommandId) -> OutputTotals:
        """The account of what was given; complete when it is finished and all was given."""
        ...

    def disown(self, command_id: CommandId) -> None:
        """The controller has something else than was sent: the account says so from now on."""
        ...

    def forget(self, command_id: CommandId) -> None:
        """Let go of everything of a command."""
        ...
