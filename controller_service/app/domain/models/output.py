"""Output of a command: chunks of two streams, numbered together, without gaps."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.domain.errors import OutputGap

#: Chunks that a command may have, beside one for each BYTES_PER_CHUNK of its bound: each costs a
#: row, however small it is. A command that prints a byte ten times a second takes weeks for them.
CHUNKS_MAX: Final = 1_000_000
BYTES_PER_CHUNK: Final = 64


class Stream(StrEnum):
    """Which of a process's two outputs."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one stream.

    `seq` numbers the chunks of a command from 0; `offset` is the first byte's place within its
    stream; `at` is when the agent read it.
    """

    seq: int
    stream: Stream
    offset: int
    data: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Missing:
    """Bytes of a stream that were written and are not stored."""

    stream: Stream
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class OutputTotals:
    """What is stored of a command's output: chunks in all, bytes of each stream."""

    next_seq: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0

    def bytes_of(self, stream: Stream) -> int:
        """Bytes stored of `stream`."""
        return self.stdout_bytes if stream is Stream.STDOUT else self.stderr_bytes

    def is_within(self, max_bytes: int) -> bool:
        """Whether a command may have so much output, whose order allows `max_bytes` of it."""
        if self.stdout_bytes + self.stderr_bytes > max_bytes:
            return False
        return self.next_seq <= CHUNKS_MAX + max_bytes // BYTES_PER_CHUNK

    def is_repeat(self, chunk: Chunk) -> bool:
        """Whether the chunk lies wholly within what is stored: a frame that came twice."""
        return chunk.seq < self.next_seq

    def after(self, chunk: Chunk) -> "OutputTotals":
        """The totals with `chunk` appended; raises OutputGap unless it is exactly the next."""
        stored = self.bytes_of(chunk.stream)
        if chunk.seq != self.next_seq or chunk.offset != stored:
            raise OutputGap(
                f"chunk {chunk.seq} at {chunk.stream} byte {chunk.offset} does not follow "
                f"chunk {self.next_seq - 1} and byte {stored}"
            )
        grown = stored + len(chunk.data)
        if chunk.stream is Stream.STDOUT:
            return replace(self, next_seq=chunk.seq + 1, stdout_bytes=grown)
        return replace(self, next_seq=chunk.seq + 1, stderr_bytes=grown)
