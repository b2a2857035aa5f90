"""Pages of lines out of a command's stored output."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.application.ports.output_log import OutputLog
from app.domain.models.command import Command
from app.domain.models.lines import Line, LineSplitter
from app.domain.models.output import Chunk, Missing, Stream

#: How long one scan may take; what it did not reach is read with the next `offset`.
SCAN_MAX_S: Final = 2.0
#: Bytes that a scan reads at once.
READ_MAX_BYTES: Final = 1024 * 1024
#: Text that a page carries at most, so that 10,000 long lines do not fill the memory.
PAGE_MAX_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedLines:
    """Which lines: of `stream` (None is both), matching, from line number `offset` on."""

    stream: Stream | None = None
    matches: Callable[[str], bool] | None = None
    limit: int = 1000
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LinePage:
    """Lines, and how much was looked at to find them.

    `total_lines` were scanned, `matched_lines` of them were wanted; `next_offset` continues, and
    is None when nothing more will come.
    """

    lines: Sequence[Line]
    total_lines: int
    matched_lines: int
    next_offset: int | None
    is_complete: bool
    missing: Sequence[Missing]


@dataclass(slots=True)
class _Scan:
    """What one scan has found; `first_left_out`: the first match that the page has no room for."""

    wanted: WantedLines
    splitter: LineSplitter = field(default_factory=LineSplitter)
    lines: list[Line] = field(default_factory=list)
    matched: int = 0
    size: int = 0
    first_left_out: int | None = None

    def take(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            for line in self.splitter.feed(chunk):
                self._consider(line)

    def finish(self) -> None:
        for line in self.splitter.finish():
            self._consider(line)

    def _consider(self, line: Line) -> None:
        wanted = self.wanted
        if wanted.stream not in (None, line.stream):
            return
        if wanted.matches is not None and not wanted.matches(line.text):
            return
        self.matched += 1
        if line.number < wanted.offset:
            return
        if len(self.lines) < wanted.limit and self.size < PAGE_MAX_BYTES:
            self.lines.append(line)
            self.size += len(line.data)
        elif self.first_left_out is None:
            self.first_left_out = line.number


async def read_lines(output: OutputLog, command: Command, wanted: WantedLines) -> LinePage:
    """A page of the command's lines, as far as two seconds of scanning reach.

    Lines count from 0 over both streams in the order in which they end. A line without its
    newline is given once the command is final.
    """
    scan = _Scan(wanted)
    deadline = time.monotonic() + SCAN_MAX_S
    seq = 0
    while seq < command.stored.next_seq and time.monotonic() < deadline:
        chunks = await output.read(command.id, from_seq=seq, max_bytes=READ_MAX_BYTES)
        await asyncio.to_thread(scan.take, chunks)
        seq += len(chunks)
    is_at_end = seq >= command.stored.next_seq
    if is_at_end and command.is_final:
        scan.finish()
    return _page(command, scan, is_at_end=is_at_end)


def _page(command: Command, scan: _Scan, *, is_at_end: bool) -> LinePage:
    scanned = scan.splitter.next_number
    is_complete = is_at_end and command.is_final
    next_offset = scan.first_left_out
    if next_offset is None and not is_complete:
        next_offset = scanned
    return LinePage(scan.lines, scanned, scan.matched, next_offset, is_complete, command.missing)
