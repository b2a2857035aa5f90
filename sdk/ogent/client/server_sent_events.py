"""Server-sent events out of bytes that arrive in arbitrary pieces."""

from dataclasses import dataclass
from typing import Final

from ogent.client.errors import ProtocolError

#: Largest event: a result with 1 MiB of each stream, every byte of it escaped, fits well.
EVENT_MAX_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event; `data` joins its data lines with newlines, `id` is None where it has none."""

    event: str
    data: bytes
    id: str | None = None


class ServerSentEventParser:
    r"""Collects bytes and gives events; how the bytes were cut changes nothing.

    Lines end with `\n` or `\r\n`. Comments, events without data and unknown fields are dropped.
    What a broken connection left unfinished is never given.
    """

    def __init__(self, max_bytes: int = EVENT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0  # no newline lies before this index, so nothing is searched twice
        self._event = ""
        self._id: str | None = None
        self._data: list[bytes] = []
        self._held = 0  # bytes in _data

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """The events that `piece` completes, in order; raises ProtocolError over the bound."""
        buffer = self._buffer
        buffer += piece
        events: list[ServerSentEvent] = []
        start = 0
        end = buffer.find(b"\n", self._searched)
        while end >= 0:
            self._line(bytes(memoryview(buffer)[start:end]), events)
            start = end + 1
            end = buffer.find(b"\n", start)
        del buffer[:start]
        self._searched = len(buffer)
        if self._held + len(buffer) > self._max_bytes:
            raise ProtocolError(f"an event of more than {self._max_bytes} bytes")
        return events

    def _line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        line = line.removesuffix(b"\r")
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
                self._held += len(value)
            case b"event":
                self._event = value.decode(errors="replace")
            case b"id":
                self._id = value.decode(errors="replace")

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            events.append(ServerSentEvent(self._event or "message", data, self._id))
        self._forget()

    def _forget(self) -> None:
        self._event = ""
        self._id = None
        self._data = []
        self._held = 0
