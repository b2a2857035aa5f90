"""Moves what a command writes from its pipes into its files.

Part of the runner: nothing here but what Python itself starts with.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import termios
import time
import zlib

from agent.infrastructure.runner.records import (
    INDEX_RECORD,
    INDEX_RECORDS,
    SEGMENT_BYTES,
    STREAMS,
    index_name,
    pack_index,
    segment_name,
    unpack_index,
)
from agent.infrastructure.runner.spool_files import SpoolFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

#: What is moved at once; a record of the index covers no more.
TURN_BYTES: Final = 256 * 1024
#: A record takes what follows on the same stream within this time.
RECORD_SPAN_US: Final = 20_000
#: Asked of the system for each pipe: fewer switches between command and runner.
PIPE_BYTES: Final = 1024 * 1024

_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_SEGMENT: Final = re.compile(r"(stdout|stderr|index)-(\d{8})")


def pipe_for_output() -> tuple[int, int]:
    """Read and write end of a pipe as large as the system allows; reading does not block."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    with contextlib.suppress(OSError):  # this account may have reached its limit
        fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return read_end, write_end


def bytes_in(pipe: int) -> int:
    """Bytes that lie in the pipe now."""
    answer = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", answer)[0])


class _OpenRecord:
    """The last record of the index, which still grows."""

    __slots__ = ("at_us", "crc", "is_written", "length", "offset", "stream")

    def __init__(self, stream: int, offset: int, at_us: int) -> None:
        self.stream = stream
        self.offset = offset
        self.at_us = at_us
        self.length = 0
        self.crc = 0
        self.is_written = False

    def may_take(self, stream: int, now_us: int) -> bool:
        """Whether what follows on `stream` belongs to it."""
        return (
            self.stream == stream
            and self.length < TURN_BYTES
            and 0 <= now_us - self.at_us < RECORD_SPAN_US
            and (self.offset + self.length) % SEGMENT_BYTES != 0
        )


class Recorder:
    """The two streams of one command, in files; streams are numbered as in STREAMS.

    `written` counts what came, `kept` what was stored of it, `released` what need not be kept any
    more. Beyond `max_bytes` of both streams together, bytes are counted and thrown away.
    """

    def __init__(self, stem: str, max_bytes: int, null: int, files: SpoolFiles) -> None:
        self.written = [0, 0]
        self.kept = [0, 0]
        self.released = [0, 0]
        self._stem = stem
        self._room = max_bytes
        self._null = null
        self._spool = files
        self._files: dict[int, int] = {}
        self._first = [0, 0]  # the first segment that is still there
        self._index = -1
        self._records = 0
        self._index_held = 0
        self._first_index = 0
        #: How far each finished part of the index reaches.
        self._index_ends: list[tuple[int, int]] = []
        self._open: _OpenRecord | None = None

    @property
    def held(self) -> int:
        """Bytes that somebody has yet to take, and what the index of them takes."""
        left = self.kept[0] + self.kept[1] - self.released[0] - self.released[1]
        return left + self._index_held if left else 0

    def take(self, stream: int, pipe: int, most: int) -> int:
        """Move up to `most` bytes; how many came, 0 at the end of the stream.

        Raises BlockingIOError where nothing is there, and OSError where the disk does not take
        it: then it is still in the pipe, and the next call goes on.
        """
        self._write_record()
        if not self._room:
            moved = os.splice(pipe, self._null, most, flags=_SPLICE_FLAGS)
            self.written[stream] += moved
            return moved
        if self._has_ended(stream, pipe):
            return 0
        now_us = time.time_ns() // 1000
        record = self._record_for(stream, now_us)
        at = self.kept[stream] % SEGMENT_BYTES
        file = self._file(stream)
        room = min(most, self._room, TURN_BYTES - record.length, SEGMENT_BYTES - at)
        moved = os.splice(pipe, file, room, offset_dst=at, flags=_SPLICE_FLAGS)
        if moved:
            self._note(record, stream, moved, os.pread(file, moved, at))
        return moved

    def flush(self) -> None:
        """Write what is not in the index yet; raises OSError."""
        self._write_record()

    def release(self, stdout: int, stderr: int, *, unlink: tuple[int, int]) -> None:
        """Bytes before these places are stored elsewhere; files that end before `unlink` go."""
        for stream, place in enumerate((stdout, stderr)):
            before, after = self.released[stream], min(place, self.kept[stream])
            if after > before:
                self.released[stream] = after
                self._spool.held -= after - before
            needless = min(unlink[stream], self.kept[stream])
            while (self._first[stream] + 1) * SEGMENT_BYTES <= needless:
                self._spool.remove([self._path(segment_name(stream, self._first[stream]))])
                self._first[stream] += 1
        if self.released == self.kept:
            self._let_go_of_index(self._index_held)
        while self._index_ends and all(
            end <= place for end, place in zip(self._index_ends[0], unlink, strict=True)
        ):
            self._index_ends.pop(0)
            self._spool.remove([self._path(index_name(self._first_index))])
            self._first_index += 1
            self._let_go_of_index(INDEX_RECORDS * INDEX_RECORD.size)

    def _let_go_of_index(self, size: int) -> None:
        gone = min(size, self._index_held)
        self._index_held -= gone
        self._spool.held -= gone

    def forget(self) -> None:
        """Nothing of it has to be taken any more: its files may go."""
        self.release(*self.kept, unlink=(0, 0))
        for stream, kept in enumerate(self.kept):
            numbers = range(self._first[stream], -(-kept // SEGMENT_BYTES))
            self._spool.empty(self._path(segment_name(stream, number)) for number in numbers)
        numbers = range(self._first_index, self._index + 1)
        self._spool.empty(self._path(index_name(number)) for number in numbers)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _has_ended(self, stream: int, pipe: int) -> bool:
        """Whether a stream has ended for which no file is open: none is made for nothing."""
        if stream in self._files or bytes_in(pipe):
            return False
        asked = select.poll()
        asked.register(pipe, select.POLLIN)
        return [event for _, event in asked.poll(0)] == [select.POLLHUP]

    def _record_for(self, stream: int, now_us: int) -> _OpenRecord:
        if self._open is None or not self._open.may_take(stream, now_us):
            if self._open is not None and self._open.length:
                self._records += 1
                self._index_held += INDEX_RECORD.size
                self._spool.held += INDEX_RECORD.size
            self._open = _OpenRecord(stream, self.kept[stream], now_us)
        return self._open

    def _note(self, record: _OpenRecord, stream: int, moved: int, data: bytes) -> None:
        self.written[stream] += moved
        self.kept[stream] += moved
        self._spool.held += moved
        self._room -= moved
        record.length += moved
        record.crc = zlib.crc32(data, record.crc)
        record.is_written = False
        if self.kept[stream] % SEGMENT_BYTES == 0:
            os.close(self._files.pop(stream))
        self._write_record()

    def _write_record(self) -> None:
        """Put the open record into the index, in place of its shorter self."""
        record = self._open
        if record is None or record.is_written or not record.length:
            return
        part, place = divmod(self._records, INDEX_RECORDS)
        packed = pack_index(record.stream, record.length, record.offset, record.at_us, record.crc)
        os.pwrite(self._index_file(part), packed, place * INDEX_RECORD.size)
        record.is_written = True

    def _index_file(self, part: int) -> int:
        if part != self._index:
            if self._index >= 0:
                self._index_ends.append((self.kept[0], self.kept[1]))
                os.close(self._files.pop(-1))
            self._index = part
        return self._opened(-1, index_name(part))

    def _file(self, stream: int) -> int:
        return self._opened(stream, segment_name(stream, self.kept[stream] // SEGMENT_BYTES))

    def _opened(self, key: int, name: str) -> int:
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = self._spool.open(f"{self._stem}.{name}", os.O_RDWR)
        return file

    def _path(self, name: str) -> str:
        return f"{self._stem}.{name}"


def found_in(stem: str, names: Sequence[str], files: SpoolFiles) -> Recorder:
    """The recorder of a command that another runner has recorded; it takes nothing more.

    `names` are those of its files, without the stem.
    """
    recorder = Recorder(stem, 0, -1, files)
    numbers: dict[str, list[int]] = {"stdout": [], "stderr": [], "index": []}
    for name in names:
        if matched := _SEGMENT.fullmatch(name):
            numbers[matched[1]].append(int(matched[2]))
    ends = _ends_in(f"{stem}.{index_name(part)}" for part in numbers["index"])
    for stream, name in enumerate(STREAMS):
        end = ends[stream]
        if numbers[name]:
            first, last = min(numbers[name]), max(numbers[name])
            size = os.stat(f"{stem}.{segment_name(stream, last)}").st_size
            end = max(end, last * SEGMENT_BYTES + size)
        else:  # all of it was taken, up to the end of a file
            first = -(-end // SEGMENT_BYTES)
        recorder.kept[stream] = end
        recorder._first[stream] = first
        recorder.released[stream] = min(first * SEGMENT_BYTES, end)
    if numbers["index"]:
        recorder._first_index, recorder._index = min(numbers["index"]), max(numbers["index"])
    recorder.written = list(recorder.kept)
    files.held += recorder.held
    return recorder


def _ends_in(indexes: Iterable[str]) -> list[int]:
    """Up to where the parts of an index have recorded each stream."""
    ends = [0, 0]
    for path in indexes:
        with open(path, "rb") as file:
            raw = file.read()
        for at in range(0, len(raw) - INDEX_RECORD.size + 1, INDEX_RECORD.size):
            record = unpack_index(raw[at : at + INDEX_RECORD.size])
            if record is not None:
                stream, length, offset, _, _ = record
                ends[stream] = max(ends[stream], offset + length)
    return ends
