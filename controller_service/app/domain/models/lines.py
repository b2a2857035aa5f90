"""Lines of output: two streams cut at newlines, numbered together as their lines end."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from app.domain.models.output import Chunk, OutputTotals, Stream

#: A longer line is cut here, and marked.
LINE_MAX_BYTES: Final = 64 * 1024
#: Output between two marks, about: what a page of lines reads at most before its first line.
MARK_EVERY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LineCount:
    """How many lines have ended, and how many bytes of each stream wait for their newline."""

    ended: int = 0
    stdout_rest: int = 0
    stderr_rest: int = 0

    def after(self, chunk: Chunk) -> "LineCount":
        """The count with `chunk` appended: what a LineSplitter fed with it would give."""
        if chunk.stream is Stream.STDOUT:
            ended, rest = _count(self.stdout_rest, chunk.data)
            return replace(self, ended=self.ended + ended, stdout_rest=rest)
        ended, rest = _count(self.stderr_rest, chunk.data)
        return replace(self, ended=self.ended + ended, stderr_rest=rest)

    @property
    def with_rests(self) -> int:
        """Lines in all once nothing follows: what waits for its newline counts as a line."""
        return self.ended + (self.stdout_rest > 0) + (self.stderr_rest > 0)


@dataclass(frozen=True, slots=True)
class LineMark:
    """A place in a command's output from which its lines can be read without what precedes."""

    totals: OutputTotals
    lines: LineCount


def marks_between(before: OutputTotals, after: OutputTotals) -> bool:
    """Whether a mark is due: the output grew over a multiple of MARK_EVERY_BYTES."""
    grown = [t.stdout_bytes + t.stderr_bytes for t in (before, after)]
    return grown[0] // MARK_EVERY_BYTES != grown[1] // MARK_EVERY_BYTES


def _count(rest: int, data: bytes) -> tuple[int, int]:
    """Lines that end in `data` after `rest` bytes without a newline, and the bytes left over."""
    ended = place = 0
    while (window_end := place + LINE_MAX_BYTES - rest + 1) <= len(data):
        newline = data.rfind(b"\n", place, window_end)
        if newline < 0:  # no newline within the longest line: it is cut
            ended, place = ended + 1, window_end - 1
        else:
            ended, place = ended + data.count(b"\n", place, newline + 1), newline + 1
        rest = 0
    last = data.rfind(b"\n", place)
    if last < 0:
        return ended, rest + len(data) - place
    return ended + data.count(b"\n", place), len(data) - last - 1


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its newline; `is_cut`: it goes on in the next line of its stream."""

    number: int
    stream: Stream
    data: bytes
    at: datetime
    is_cut: bool

    @property
    def text(self) -> str:
        """The line as text, undecodable bytes replaced."""
        return self.data.decode("utf-8", "replace")


@dataclass(slots=True)
class _Rest:
    """What of a stream has no newline yet, and when it came."""

    data: bytes = b""
    at: datetime | None = None


@dataclass(slots=True)
class LineSplitter:
    """Takes chunks in order and gives lines as they end; holds at most one line per stream."""

    next_number: int = 0
    _rests: dict[Stream, _Rest] = field(
        default_factory=lambda: {stream: _Rest() for stream in Stream}
    )

    @classmethod
    def resumed(cls, mark: LineMark, stdout: bytes, stderr: bytes, at: datetime) -> "LineSplitter":
        """A splitter that goes on at `mark`, given what waited there for its newline."""
        rests = {Stream.STDOUT: _Rest(stdout, at), Stream.STDERR: _Rest(stderr, at)}
        return cls(mark.lines.ended, rests)

    def feed(self, chunk: Chunk) -> Iterator[Line]:
        """Lines that end in `chunk`."""
        rest = self._rests[chunk.stream]
        parts = (rest.data + chunk.data).split(b"\n")
        last = parts.pop()
        for part in parts:
            yield from self._line(chunk.stream, part, chunk.at)
        while len(last) > LINE_MAX_BYTES:
            yield self._next(chunk.stream, last[:LINE_MAX_BYTES], chunk.at, is_cut=True)
            last = last[LINE_MAX_BYTES:]
        rest.data, rest.at = last, chunk.at

    def finish(self) -> Iterator[Line]:
        """What never got its newline, stdout first; nothing follows."""
        for stream, rest in self._rests.items():
            if rest.data and rest.at is not None:
                yield from self._line(stream, rest.data, rest.at)
                self._rests[stream] = _Rest()

    def _line(self, stream: Stream, data: bytes, at: datetime) -> Iterator[Line]:
        while len(data) > LINE_MAX_BYTES:
            yield self._next(stream, data[:LINE_MAX_BYTES], at, is_cut=True)
            data = data[LINE_MAX_BYTES:]
        yield self._next(stream, data, at, is_cut=False)

    def _next(self, stream: Stream, data: bytes, at: datetime, *, is_cut: bool) -> Line:
        line = Line(self.next_number, stream, data, at, is_cut)
        self.next_number += 1
        return line
