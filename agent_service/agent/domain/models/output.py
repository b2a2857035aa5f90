"""What a command writes: two streams, cut into chunks that are numbered together."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

#: The largest chunk, and the block that a digest is made of.
CHUNK_MAX_BYTES: Final = 256 * 1024
DIGEST_BLOCK_BYTES: Final = 1024 * 1024

#: For a first byte of a UTF-8 character: how long it is, and what its second byte may be.
_CHARACTERS: Final = (
    (range(0xC2, 0xE0), 2, range(0x80, 0xC0)),
    (range(0xE0, 0xE1), 3, range(0xA0, 0xC0)),
    (range(0xE1, 0xED), 3, range(0x80, 0xC0)),
    (range(0xED, 0xEE), 3, range(0x80, 0xA0)),
    (range(0xEE, 0xF0), 3, range(0x80, 0xC0)),
    (range(0xF0, 0xF1), 4, range(0x90, 0xC0)),
    (range(0xF1, 0xF4), 4, range(0x80, 0xC0)),
    (range(0xF4, 0xF5), 4, range(0x80, 0x90)),
)


class Stream(StrEnum):
    """Which of a process's two outputs."""

    STDOUT = "stdout"
    STDERR = "stderr"

    @property
    def other(self) -> "Stream":
        """The other one."""
        return Stream.STDERR if self is Stream.STDOUT else Stream.STDOUT


@dataclass(frozen=True, slots=True)
class Counts:
    """Bytes of each stream."""

    stdout: int = 0
    stderr: int = 0

    def of(self, stream: Stream) -> int:
        """Bytes of `stream`."""
        return self.stdout if stream is Stream.STDOUT else self.stderr


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one stream as they came, at `offset` within it; never empty."""

    stream: Stream
    offset: int
    data: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Missing:
    """Bytes that were written, at `offset` within their stream, and cannot be had any more."""

    stream: Stream
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Position:
    """A place in what is sent of a command: the next chunk, and the bytes of each stream before."""

    next_seq: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0

    def bytes_of(self, stream: Stream) -> int:
        """Bytes of `stream` before this place."""
        return self.stdout_bytes if stream is Stream.STDOUT else self.stderr_bytes


#: Nothing was sent yet.
START: Final = Position()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one stream, of 1 to CHUNK_MAX_BYTES bytes.

    `seq` numbers the chunks of a command from 0 over both streams; `offset` is the first byte's
    place within what is sent of its stream; `at` is when it was written.
    """

    seq: int
    stream: Stream
    offset: int
    data: bytes
    at: datetime
    #: Bytes of the other stream that were sent before it.
    other: int = 0

    @property
    def after(self) -> Position:
        """The place behind it."""
        end = self.offset + len(self.data)
        if self.stream is Stream.STDOUT:
            return Position(self.seq + 1, end, self.other)
        return Position(self.seq + 1, self.other, end)


@dataclass(frozen=True, slots=True)
class StreamTotals:
    """`written` counts what the process wrote; `sent` and `digest` cover what became chunks.

    `digest` is empty where it cannot be made any more, since something of the stream is missing.
    """

    written: int
    sent: int
    digest: str


@dataclass(frozen=True, slots=True)
class OutputTotals:
    """All that a command wrote, and what of it can never be sent."""

    next_seq: int
    stdout: StreamTotals
    stderr: StreamTotals
    missing: Sequence[Missing] = ()


def incomplete_tail(data: bytes) -> int:
    """How many bytes at the end of `data`, 0 to 3, begin a character that more may complete."""
    for length in range(1, min(len(data), 3) + 1):
        first = data[-length]
        if first < 0x80:
            return 0
        if first >= 0xC0:
            return length if _may_continue(data[-length:]) else 0
    return 0


def _may_continue(begun: bytes) -> bool:
    for firsts, size, seconds in _CHARACTERS:
        if begun[0] in firsts:
            return len(begun) < size and (len(begun) == 1 or begun[1] in seconds)
    return False


class BlockDigest:
    """SHA-256 over the SHA-256 digests of consecutive blocks of DIGEST_BLOCK_BYTES.

    A half-made hash cannot be stored, so a digest goes on from the `blocks` that were complete.
    """

    def __init__(self, blocks: Sequence[bytes] = ()) -> None:
        self.blocks = list(blocks)
        self._block = hashlib.sha256()
        self._filled = 0

    @property
    def covered(self) -> int:
        """Bytes that were taken."""
        return len(self.blocks) * DIGEST_BLOCK_BYTES + self._filled

    def update(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        view = memoryview(data)
        while view:
            part = view[: DIGEST_BLOCK_BYTES - self._filled]
            self._block.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == DIGEST_BLOCK_BYTES:
                self.blocks.append(self._block.digest())
                self._block, self._filled = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        """The digest of what came so far, in hexadecimal."""
        whole = hashlib.sha256(b"".join(self.blocks))
        if self._filled:
            whole.update(self._block.digest())
        return whole.hexdigest()


class Transcript:
    """Cuts what a command wrote into chunks, from `start` on.

    No chunk ends inside a character that the next bytes could complete: at most 3 bytes of each
    stream wait for them.
    """

    def __init__(self, start: Position) -> None:
        self._next = start
        self._held: dict[Stream, Piece] = {}

    def feed(self, piece: Piece) -> list[Chunk]:
        """The chunks that `piece` completes."""
        held = self._held.pop(piece.stream, None)
        data = held.data + piece.data if held else piece.data
        chunks: list[Chunk] = []
        start = 0
        while start < len(data):
            part = data[start : start + CHUNK_MAX_BYTES]
            tail = incomplete_tail(part)
            if tail == len(data) - start:
                self._held[piece.stream] = replace(piece, data=data[start:])
                break
            part = part[:-tail] if tail else part
            start += len(part)
            chunks.append(self._chunk(piece.stream, part, piece.at))
        return chunks

    def break_off(self, stream: Stream, *, is_kept: bool = True) -> list[Chunk]:
        """What was held back, since what would complete it does not follow; or drop it."""
        held = self._held.pop(stream, None)
        return [self._chunk(stream, held.data, held.at)] if held and is_kept else []

    def _chunk(self, stream: Stream, data: bytes, at: datetime) -> Chunk:
        here = self._next
        chunk = Chunk(
            here.next_seq, stream, here.bytes_of(stream), data, at, here.bytes_of(stream.other)
        )
        self._next = chunk.after
        return chunk
