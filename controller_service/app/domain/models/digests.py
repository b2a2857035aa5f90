"""Digests of output: whether what was sent and what is stored are the same bytes."""

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Final, Self

from app.domain.models.output import Chunk, Stream

#: A digest covers the SHA-256 digests of a stream's consecutive blocks of this size.
DIGEST_BLOCK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class DigestBlock:
    """The SHA-256 digest of one full block of a stream; `number` counts them from 0."""

    stream: Stream
    number: int
    digest: bytes


class StreamDigest:
    """SHA-256 over the SHA-256 digests of a stream's consecutive blocks of DIGEST_BLOCK_BYTES.

    It never changes: `after` makes another one. A half-made hash cannot be stored, digests of full
    blocks can: from these, and the bytes after them, it is made again.
    """

    def __init__(self, full_blocks: Sequence[bytes] = ()) -> None:
        self._whole = hashlib.sha256(b"".join(full_blocks))
        self._block = hashlib.sha256()
        self._full = len(full_blocks)
        self._filled = 0

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    @property
    def covered(self) -> int:
        """Bytes of the stream that it covers."""
        return self._full * DIGEST_BLOCK_BYTES + self._filled

    @property
    def full_blocks(self) -> int:
        """Blocks among them that are full."""
        return self._full

    def after(self, data: bytes) -> tuple[Self, list[bytes]]:
        """The digest with `data` appended, and the digests of blocks that became full."""
        twin = copy(self)
        twin._whole, twin._block = self._whole.copy(), self._block.copy()
        return twin, twin._take(memoryview(data))

    def _take(self, data: memoryview) -> list[bytes]:
        full: list[bytes] = []
        while data:
            part = data[: DIGEST_BLOCK_BYTES - self._filled]
            self._block.update(part)
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == DIGEST_BLOCK_BYTES:
                full.append(self._block.digest())
                self._whole.update(full[-1])
                self._block, self._filled, self._full = hashlib.sha256(), 0, self._full + 1
        return full

    def hexdigest(self) -> str:
        """The digest, in hexadecimal."""
        whole = self._whole.copy()
        if self._filled:
            whole.update(self._block.digest())
        return whole.hexdigest()


_OF_NOTHING: Final = StreamDigest()


@dataclass(frozen=True, slots=True)
class OutputDigests:
    """The digests of both streams of a command, as far as they are stored."""

    stdout: StreamDigest = _OF_NOTHING
    stderr: StreamDigest = _OF_NOTHING

    def of(self, stream: Stream) -> StreamDigest:
        """The digest of `stream`."""
        return self.stdout if stream is Stream.STDOUT else self.stderr

    def after(self, chunk: Chunk) -> tuple["OutputDigests", list[DigestBlock]]:
        """The digests with `chunk` appended, and the blocks that became full with it."""
        before = self.of(chunk.stream)
        digest, full = before.after(chunk.data)
        blocks = [
            DigestBlock(chunk.stream, number, found)
            for number, found in enumerate(full, before.full_blocks)
        ]
        if chunk.stream is Stream.STDOUT:
            return replace(self, stdout=digest), blocks
        return replace(self, stderr=digest), blocks
