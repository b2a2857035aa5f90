"""Reads the two pipes of a process, gathers small writes, and holds back when nobody takes them."""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Sequence
from typing import Final

from agent.domain.models.output import CHUNK_MAX_BYTES, Piece, Stream

#: What was written is handed on so long after its first byte, or when so much is there.
GATHER_S: Final = 0.004
GATHER_MAX_BYTES: Final = CHUNK_MAX_BYTES
#: Asked of the system for each pipe: fewer switches between command and agent.
PIPE_BYTES: Final = 1024 * 1024
_READ_SMALL: Final = 16 * 1024
#: How much of an abandoned pipe is thrown away at once, and how often.
_DRAIN_BYTES: Final = 256 * 1024
_DRAIN_PAUSE_S: Final = 0.01


def pipe_for_output() -> tuple[int, int]:
    """Read and write end of a pipe as large as the system allows; reading does not block."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    with contextlib.suppress(OSError):  # this account may have reached its limit
        fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return read_end, write_end


class Pump:
    """Takes what is written to two pipes; owns their read ends.

    At most GATHER_MAX_BYTES are held: beyond that the pipes fill up, and who writes
    to them waits.
    """

    def __init__(self, stdout: int, stderr: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = {stdout: Stream.STDOUT, stderr: Stream.STDERR}
        self._left: dict[int, int] | None = None  # once abandoned: bytes still to be read
        self._pieces: list[Piece] = []
        self._size = 0
        self._is_reading = False
        self._timer: asyncio.TimerHandle | None = None
        self._ready = asyncio.Event()
        self._watch()

    async def read(self) -> Sequence[Piece]:
        """What has come since the last call; empty at the end."""
        await self._ready.wait()
        pieces, self._pieces, self._size = self._pieces, [], 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._open:
            self._ready.clear()
            self._watch()
        return _joined(pieces)

    def abandon(self) -> None:
        """Take what is in the pipes now, then end; what comes later is thrown away."""
        if self._left is None:
            self._left = {fd: _available(fd) for fd in self._open}
            for fd in [fd for fd, left in self._left.items() if not left]:
                self._give_away(fd)

    def close(self) -> None:
        """Close what is still open; who writes there is told by SIGPIPE."""
        self._unwatch()
        for fd in self._open:
            os.close(fd)
        self._open.clear()
        self._ready.set()

    def _watch(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            for fd in self._open:
                self._loop.add_reader(fd, self._on_readable, fd)

    def _unwatch(self) -> None:
        if self._is_reading:
            self._is_reading = False
            for fd in self._open:
                self._loop.remove_reader(fd)

    def _on_readable(self, fd: int) -> None:
        try:
            data = os.read(fd, self._wanted(fd))
        except BlockingIOError:
            return
        if not data:
            self._end(fd)
            os.close(fd)
            return
        self._pieces.append(Piece(self._open[fd], data))
        self._size += len(data)
        if self._size >= GATHER_MAX_BYTES:
            self._unwatch()
            self._ready.set()
        elif self._timer is None and not self._ready.is_set():
            self._timer = self._loop.call_later(GATHER_S, self._ready.set)
        if self._left is not None:
            self._left[fd] -= len(data)
            if self._left[fd] <= 0:
                self._give_away(fd)

    def _wanted(self, fd: int) -> int:
        """How much to read, so that what is gathered never exceeds one chunk."""
        is_little = self._size == 0 and _available(fd) <= _READ_SMALL
        wanted = _READ_SMALL if is_little else GATHER_MAX_BYTES - self._size
        return min(wanted, self._left[fd]) if self._left is not None else wanted

    def _give_away(self, fd: int) -> None:
        self._end(fd)
        _Drain(fd, self._loop)

    def _end(self, fd: int) -> None:
        if self._is_reading:
            self._loop.remove_reader(fd)
        del self._open[fd]
        if not self._open:
            self._is_reading = False
            self._ready.set()


class _Drain:
    """Throws away what children write to a pipe that nobody reads any more, at a bounded rate."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._loop = loop
        self._watch()

    def _watch(self) -> None:
        self._loop.add_reader(self._fd, self._on_readable)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._fd)
        try:
            has_ended = not os.read(self._fd, _DRAIN_BYTES)
        except BlockingIOError:
            has_ended = False
        if has_ended:
            os.close(self._fd)
        else:
            self._loop.call_later(_DRAIN_PAUSE_S, self._watch)


def _available(fd: int) -> int:
    """Bytes that lie in the pipe now."""
    answer = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", answer)[0])


def _joined(pieces: list[Piece]) -> list[Piece]:
    """The same bytes with neighbours of one stream in one piece."""
    if len(pieces) <= 1:
        return pieces
    runs: list[tuple[Stream, list[bytes]]] = []
    for piece in pieces:
        if runs and runs[-1][0] is piece.stream:
            runs[-1][1].append(piece.data)
        else:
            runs.append((piece.stream, [piece.data]))
    return [Piece(stream, b"".join(parts)) for stream, parts in runs]
