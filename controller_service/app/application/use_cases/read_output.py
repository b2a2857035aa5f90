"""Stored output as lines or as the exact bytes of one stream."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final

from app.application.output_lines import LinePage, WantedLines, read_lines
from app.application.ports.output_log import OutputLog
from app.application.use_cases.queries import Queries
from app.domain.errors import OutputDamaged
from app.domain.ids import CommandId
from app.domain.models.command import Command
from app.domain.models.output import Stream
from app.domain.models.user import Principal

#: Bytes of a stream that are read, and so held, at once.
READ_MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOutput:
    """What commands wrote. Raises CommandNotFound for what the principal may not see."""

    queries: Queries
    output: OutputLog
    compile_filter: Callable[[str], Callable[[str], bool]]

    async def lines(
        self,
        principal: Principal,
        command_id: CommandId,
        wanted: WantedLines,
        *,
        pattern: str | None,
    ) -> LinePage:
        """A page of lines; raises InvalidFilter."""
        command = await self.queries.see_command(principal, command_id)
        if pattern is not None:
            wanted = replace(wanted, matches=self.compile_filter(pattern))
        return await read_lines(self.output, command, wanted)

    async def bytes_of(
        self, command: Command, stream: Stream, *, start: int, end: int
    ) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `end`, as stored; raises OutputDamaged for a gap."""
        while start < end:
            piece_end = min(start + READ_MAX_BYTES, end)
            pieces = await self.output.read_stream(command.id, stream, start=start, end=piece_end)
            if sum(map(len, pieces)) != piece_end - start:
                raise OutputDamaged(f"bytes {start} to {piece_end} of {stream} are not all there")
            for piece in pieces:
                yield piece
            start = piece_end
