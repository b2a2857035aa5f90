"""Pages of lines out of a command's stored output."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.application.ports.output_log import OutputLog, require_from
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

    `total_lines` is how many the command has so far; `matched_lines` how many of those scanned,
    from the wanted offset on, were wanted; `next_offset` continues, and is None when nothing more
    will come.
    """

    lines: Sequence[Line]
    total_lines: int
    matched_lines: int
    next_offset: int | None
    is_complete: bool
    missing: Sequence[Missing]


@dataclass(slots=True)
class _Scan:
    """What one scan has found; `is_full`: the page has no room for the line `next_number`."""

    wanted: WantedLines
    splitter: LineSplitter
    lines: list[Line] = field(default_factory=list)
    next_number: int = 0
    size: int = 0
    is_full: bool = False

    def take(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self._consider_all(self.splitter.feed(chunk))

    def finish(self) -> None:
        self._consider_all(self.splitter.finish())

    def _consider_all(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if not self.is_full and line.number >= self.wanted.offset:
                self._consider(line)

    def _consider(self, line: Line) -> None:
        wanted = self.wanted
        is_wanted = wanted.stream in (None, line.stream) and (
            wanted.matches is None or wanted.matches(line.text)
        )
        if is_wanted and (len(self.lines) >= wanted.limit or self.size >= PAGE_MAX_BYTES):
            self.is_full = True
            return
        self.next_number = line.number + 1
        if is_wanted:
            self.lines.append(line)
            self.size += len(line.data)


async def read_lines(output: OutputLog, command: Command, wanted: WantedLines) -> LinePage:
    """A page of the command's lines, as far as two seconds of scanning reach.

    Lines count from 0 over both streams in the order in which they end. A line without its
    newline is given once the command is final. Scanning begins at the last mark before the
    wanted offset, so that a page costs the same wherever it lies. Raises OutputDamaged.
    """
    scan, seq = await _begin(output, command, wanted)
    deadline = time.monotonic() + SCAN_MAX_S
    while seq < command.stored.next_seq and not scan.is_full and time.monotonic() < deadline:
        chunks = await output.read(command.id, from_seq=seq, max_bytes=READ_MAX_BYTES)
        require_from(chunks, seq)
        await asyncio.to_thread(scan.take, chunks)
        seq += len(chunks)
    if seq >= command.stored.next_seq and command.is_final:
        scan.finish()
    return _page(command, scan, is_at_end=seq >= command.stored.next_seq)


async def _begin(output: OutputLog, command: Command, wanted: WantedLines) -> tuple[_Scan, int]:
    """A scan and the chunk that it reads first."""
    mark = await output.mark_before(command.id, wanted.offset)
    if mark is None:
        return _Scan(wanted, LineSplitter(), next_number=wanted.offset), 0
    rests = [
        b"".join(await output.read_stream(command.id, stream, start=end - length, end=end))
        for stream, end, length in (
            (Stream.STDOUT, mark.totals.stdout_bytes, mark.lines.stdout_rest),
            (Stream.STDERR, mark.totals.stderr_bytes, mark.lines.stderr_rest),
        )
    ]
    splitter = LineSplitter.resumed(
        mark, rests[0], rests[1], command.finished_at or command.created_at
    )
    return _Scan(wanted, splitter, next_number=wanted.offset), mark.totals.next_seq


def _page(command: Command, scan: _Scan, *, is_at_end: bool) -> LinePage:
    is_complete = is_at_end and command.is_final and not scan.is_full
    return LinePage(
        lines=scan.lines,
        total_lines=command.lines.with_rests if command.is_final else command.lines.ended,
        matched_lines=len(scan.lines),
        next_offset=None if is_complete else scan.next_number,
        is_complete=is_complete,
        missing=command.missing,
    )
