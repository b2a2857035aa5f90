"""Lines of output: two streams cut at newlines, numbered together as their lines end."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from app.domain.models.output import Chunk, Stream

#: A longer line is cut here, and marked.
LINE_MAX_BYTES: Final = 64 * 1024


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
        """What never got its newline; nothing follows."""
        waiting = [(r.at, s, r.data) for s, r in self._rests.items() if r.data and r.at]
        for at, stream, data in sorted(waiting, key=lambda found: found[0]):
            yield from self._line(stream, data, at)
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
