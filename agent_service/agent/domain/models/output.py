"""What a command writes: two streams, cut into chunks that are numbered together."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes as they were read from one stream; never empty."""

    stream: Stream
    data: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one stream, of 1 to CHUNK_MAX_BYTES bytes.

    `seq` numbers the chunks of a command from 0 over both streams; `offset` is the first byte's
    place within its stream; `at` is when it was read.
    """

    seq: int
    stream: Stream
    offset: int
    data: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a command's output: the next chunk, and the bytes of each stream before it."""

    next_seq: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StreamTotals:
    """`written` counts what the process wrote; `kept` and `digest` cover what became chunks."""

    written: int
    kept: int
    digest: str


@dataclass(frozen=True, slots=True)
class OutputTotals:
    """All that a command wrote."""

    next_seq: int
    stdout: StreamTotals
    stderr: StreamTotals


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
    """SHA-256 over the SHA-256 digests of consecutive blocks of DIGEST_BLOCK_BYTES."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._block = hashlib.sha256()
        self._filled = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        view = memoryview(data)
        while view:
            part = view[: DIGEST_BLOCK_BYTES - self._filled]
            self._block.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == DIGEST_BLOCK_BYTES:
                self._whole.update(self._block.digest())
                self._block, self._filled = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        """The digest of what came so far, in hexadecimal."""
        whole = self._whole.copy()
        if self._filled:
            whole.update(self._block.digest())
        return whole.hexdigest()


class _StreamCutter:
    """One stream: what of it is held back, and what was counted."""

    def __init__(self) -> None:
        self.held = b""
        self.written = 0
        self.kept = 0
        self.digest = BlockDigest()

    def cut(self, data: bytes) -> Iterator[bytes]:
        """`data` after what was held, in pieces that end with a character."""
        data = self.held + data if self.held else data
        start = 0
        while start < len(data):
            part = data[start : start + CHUNK_MAX_BYTES]
            tail = incomplete_tail(part)
            if tail == len(data) - start:
                break
            part = part[:-tail] if tail else part
            start += len(part)
            yield part
        self.held = data[start:]

    def totals(self) -> StreamTotals:
        return StreamTotals(self.written, self.kept, self.digest.hexdigest())


class Transcript:
    """Turns what a command writes into chunks, and keeps account of it.

    No chunk ends inside a character that the next bytes could complete: at most 3 bytes wait for
    them. Beyond `max_bytes` of both streams together, bytes are counted and no chunk is made.
    """

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._is_full = False
        self._next_seq = 0
        self._streams = {stream: _StreamCutter() for stream in Stream}

    def feed(self, piece: Piece, *, at: datetime) -> list[Chunk]:
        """The chunks that `piece` completes."""
        cutter = self._streams[piece.stream]
        cutter.written += len(piece.data)
        return self._keep(piece.stream, list(cutter.cut(piece.data)), at)

    def finish(self, *, at: datetime) -> list[Chunk]:
        """What was held back, now that nothing follows."""
        chunks: list[Chunk] = []
        for stream, cutter in self._streams.items():
            held, cutter.held = cutter.held, b""
            chunks += self._keep(stream, [held] if held else [], at)
        return chunks

    def totals(self) -> OutputTotals:
        """The account so far; complete after `finish`."""
        stdout, stderr = (self._streams[stream].totals() for stream in Stream)
        return OutputTotals(self._next_seq, stdout, stderr)

    def _keep(self, stream: Stream, parts: list[bytes], at: datetime) -> list[Chunk]:
        fitting = (self._fit(part) for part in parts)
        return [self._chunk(stream, part, at) for part in fitting if part]

    def _fit(self, part: bytes) -> bytes:
        """As much of `part` as may be kept; after the first cut nothing, so that no gap arises."""
        if self._is_full:
            return b""
        if len(part) > self._room:
            self._is_full = True
            part = part[: self._room]
            part = part[: len(part) - incomplete_tail(part)]
        self._room -= len(part)
        return part

    def _chunk(self, stream: Stream, data: bytes, at: datetime) -> Chunk:
        cutter = self._streams[stream]
        chunk = Chunk(self._next_seq, stream, cutter.kept, data, at)
        self._next_seq += 1
        cutter.kept += len(data)
        cutter.digest.update(data)
        return chunk
