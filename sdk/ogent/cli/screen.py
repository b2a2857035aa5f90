"""The user's stdout and stderr: command output exactly, our own words on stderr."""

import asyncio
import os
import select
import stat
from typing import Final

from ogent.cli.escape_filter import EscapeFilter
from ogent.cli.render import escape
from ogent.protocol.states import Stream

_FDS: Final = {Stream.STDOUT: 1, Stream.STDERR: 2}
#: A pipe that is writable takes this much without blocking.
_PIECE_BYTES: Final = select.PIPE_BUF
_ERASE: Final = b"\r\x1b[K"


class OutputClosed(Exception):
    """Nobody reads our output any more."""


class FdWriter:
    """Writes to a file descriptor without ever blocking the event loop.

    So Ctrl-C works while a pager holds everything up. There is no deadline: people read slowly.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._piece = None if stat.S_ISREG(os.fstat(fd).st_mode) else _PIECE_BYTES

    async def write(self, data: bytes) -> None:
        """Write all of `data`; raises OutputClosed where its reader has gone."""
        view = memoryview(data)
        while view:
            await self._writable()
            try:
                view = view[os.write(self._fd, view[: self._piece]) :]
            except BlockingIOError:
                continue
            except OSError as exc:  # EPIPE, or EIO where the terminal hung up; a full disk below
                raise _closed_or(exc) from exc

    async def _writable(self) -> None:
        while not select.select([], [self._fd], [], 0)[1]:
            loop = asyncio.get_running_loop()
            ready = asyncio.Event()
            loop.add_writer(self._fd, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_writer(self._fd)


def _closed_or(exc: OSError) -> Exception:
    import errno

    return OutputClosed() if exc.errno in (errno.EPIPE, errno.EIO) else exc


class Screen:
    """Where a followed command is shown.

    On a terminal escape sequences other than colours are removed unless `raw`; into pipes and
    files bytes go as they are. A progress line is drawn only where stderr is a terminal and
    nothing unfinished stands on its line. With `silent` output is dropped.
    """

    def __init__(self, *, raw: bool = False, silent: bool = False) -> None:
        self._silent = silent
        self._writers = {stream: FdWriter(fd) for stream, fd in _FDS.items()}
        self._ttys = {stream for stream, fd in _FDS.items() if os.isatty(fd)}
        self._filters = {} if raw else {stream: EscapeFilter() for stream in self._ttys}
        self._lock = asyncio.Lock()
        self._progress_shown = False
        self._at_line_start = True

    @property
    def talks(self) -> bool:
        """Whether a person watches stderr."""
        return Stream.STDERR in self._ttys

    @property
    def width(self) -> int:
        """Columns that a progress line may take."""
        try:
            return max(10, os.get_terminal_size(2).columns - 1)
        except OSError:
            return 79

    async def output(self, stream: Stream, data: bytes) -> None:
        """Show a piece of the command's output; raises OutputClosed."""
        if self._silent:
            return
        if stream in self._filters:
            data = self._filters[stream].feed(data)
        await self._write(stream, data)

    async def finish(self) -> None:
        """Show what the filters hold back, and leave no colours and no progress line behind."""
        self.erase_progress()
        for stream, filter_ in self._filters.items():
            await self._write(stream, filter_.finish())

    async def _write(self, stream: Stream, data: bytes) -> None:
        if not data:
            return
        async with self._lock:
            self.erase_progress()
            await self._writers[stream].write(data)
            if stream in self._ttys:
                self._at_line_start = data.endswith(b"\n")

    def say(self, text: str) -> None:
        """Say something of our own on stderr, on a line of its own; safe for any text."""
        self.erase_progress()
        lead = "" if self._at_line_start or not self.talks else "\n"
        lines = "".join(f"{escape(line)}\n" for line in text.split("\n"))
        self._at_line_start = True
        _write_now(f"{lead}ogent: {lines}".encode())

    def show_progress(self, text: str) -> None:
        """Draw the progress line, or draw it anew."""
        if self.talks and self._at_line_start and not self._lock.locked():
            self._progress_shown = True
            _write_now(_ERASE + escape(text).encode())

    def erase_progress(self) -> None:
        """Take the progress line away, where there is one."""
        if self._progress_shown:
            self._progress_shown = False
            _write_now(_ERASE)


def _write_now(data: bytes) -> None:
    """Write a short line to stderr; a stderr that is gone is no reason to stop."""
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        return
