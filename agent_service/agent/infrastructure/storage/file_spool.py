"""A Spool over the files into which the runner records.

The runner fills them and deletes from them; here they are read, checked against the checksums of
their index, and what cannot be found out again is written beside: gaps, and digests of blocks.
"""

import errno
import hashlib
import logging
import os
import re
import zlib
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from agent.domain.errors import SpoolUnreadable
from agent.domain.ids import CommandId
from agent.domain.models.output import (
    CHUNK_MAX_BYTES,
    Chunk,
    Counts,
    Missing,
    OutputTotals,
    Piece,
    Position,
    Stream,
)
from agent.domain.models.transmission import Transmission, Written
from agent.infrastructure.runner.records import (
    INDEX_RECORD,
    INDEX_RECORDS,
    PROGRESS,
    SEGMENT_BYTES,
    STREAMS,
    Damage,
    frame,
    frames_in,
    from_json,
    index_name,
    segment_name,
    to_json,
    unpack_index,
)
from agent.infrastructure.storage.identity import FILE_MODE
from agent.infrastructure.storage.journal_records import from_micros

log = logging.getLogger(__name__)

#: Files that are open for reading at once, of all commands together.
OPEN_MAX: Final = 64
#: Failures that say nothing about the file.
_NOT_NOW: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EACCES})
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STREAMS: Final = tuple(Stream(name) for name in STREAMS)


def file_stem(command_id: CommandId) -> str:
    """What the names of a command's files begin with, whatever its id looks like."""
    if _PLAIN_NAME.fullmatch(command_id):
        return command_id
    return f"id-{hashlib.sha256(command_id.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


class SpoolOwner(Protocol):
    """Who fills the files, and deletes them."""

    def release(self, command_id: CommandId, stored: Counts, unneeded: Counts) -> None:
        """The controller has what lies before `stored`; nobody reads before `unneeded` again."""
        ...

    def forget(self, command_id: CommandId) -> None:
        """Nothing of the command is needed any more."""
        ...


class FileSpool:
    """A Spool; `owner` is told what may go."""

    def __init__(self, folder: Path, owner: SpoolOwner) -> None:
        self._folder = folder
        self._owner = owner
        self._shelves: dict[CommandId, _Shelf] = {}
        self._files = OpenFiles(folder)

    def seek(self, command_id: CommandId, position: Position) -> None:
        """Read on from `position`."""
        self._of(command_id).transmission.seek(position)

    def next_chunk(self, command_id: CommandId) -> Chunk | None:
        """The chunk that follows."""
        return self._of(command_id).transmission.next_chunk()

    def acknowledge(self, command_id: CommandId, position: Position) -> None:
        """Everything before `position` may go, unless it is still needed for hashing."""
        shelf = self._of(command_id)
        shelf.progress.note_blocks(shelf.transmission)
        stored = [shelf.transmission.place_of(s, position.bytes_of(s)) for s in Stream]
        needed = [shelf.progress.needed_from(shelf.transmission, s) for s in Stream]
        unneeded = Counts(*(min(pair) for pair in zip(stored, needed, strict=True)))
        shelf.recording.let_go(unneeded)
        self._owner.release(command_id, Counts(*stored), unneeded)

    def finish(self, command_id: CommandId, written: Written) -> None:
        """The command's processes write no more."""
        shelf = self._of(command_id)
        shelf.recording.is_complete = True
        shelf.transmission.finish(written)

    def totals(self, command_id: CommandId) -> OutputTotals:
        """The account of what was given."""
        return self._of(command_id).transmission.totals()

    def disown(self, command_id: CommandId) -> None:
        """The account says from now on that nothing is proven."""
        self._of(command_id).transmission.disown()

    def forget(self, command_id: CommandId) -> None:
        """Let go of everything of a command."""
        shelf = self._shelves.pop(command_id, None)
        if shelf is not None:
            shelf.recording.close()
        self._owner.forget(command_id)

    def close(self) -> None:
        """Close every file."""
        self._files.close()
        self._shelves.clear()

    def _of(self, command_id: CommandId) -> "_Shelf":
        shelf = self._shelves.get(command_id)
        if shelf is None:
            shelf = self._shelves[command_id] = _Shelf(self._folder, command_id, self._files)
        return shelf


class _Shelf:
    """One command: its recording, and how far that was transmitted."""

    def __init__(self, folder: Path, command_id: CommandId, files: "OpenFiles") -> None:
        self.recording = FileRecording(folder, command_id, files)
        self.progress = _Progress(folder / f"{file_stem(command_id)}.{PROGRESS}")
        self.transmission = Transmission(
            self.recording,
            self.progress,
            gaps=self.progress.gaps,
            blocks=self.progress.blocks,
            unproven=self.progress.unproven,
        )


class _Progress:
    """What a later process could not find out again; a Ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.gaps: list[Missing] = []
        self.unproven: list[Stream] = []
        self.blocks: dict[Stream, list[bytes]] = {stream: [] for stream in Stream}
        self._written: dict[Stream, int] = dict.fromkeys(Stream, 0)
        self._waiting: list[dict[str, Any]] = []
        self._read()

    def note_gap(self, gap: Missing, *, is_sent_past: bool) -> None:
        """Write down what is left out."""
        facts = {"gap": [gap.stream.value, gap.offset, gap.length], "past": is_sent_past}
        self._waiting.append(facts)
        self._write()

    def note_blocks(self, transmission: Transmission) -> None:
        """Write down the digests of blocks that are complete by now."""
        for stream in Stream:
            digests = transmission.blocks_of(stream)
            known = self._written[stream] + self._on_the_way(stream)
            if len(digests) > known:
                words = [digest.hex() for digest in digests[known:]]
                self._waiting.append({"blocks": words, "stream": stream.value})
        if self._waiting:
            self._write()

    def needed_from(self, transmission: Transmission, stream: Stream) -> int:
        """Before which place nothing is needed any more.

        A gap that the disk did not take keeps everything. Digests that it did not take keep
        nothing: on a full disk nothing could go otherwise, and a restart that misses them says so.
        """
        if any("gap" in facts for facts in self._waiting):
            return 0
        return transmission.needed_from(stream, self._written[stream] + self._on_the_way(stream))

    def _on_the_way(self, stream: Stream) -> int:
        own = (f["blocks"] for f in self._waiting if f.get("stream") == stream.value)
        return sum(len(words) for words in own)

    def _write(self) -> None:
        try:
            self._append(b"".join(frame(to_json(facts)) for facts in self._waiting))
        except OSError as exc:
            log.error("%s cannot be written, and is tried again: %s", self._path, exc)
            return
        for facts in self._waiting:
            if "blocks" in facts:
                self._written[Stream(facts["stream"])] += len(facts["blocks"])
        self._waiting.clear()

    def _append(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, FILE_MODE)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, size)  # half a record is none
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def _read(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as exc:
            log.error("%s cannot be read: %s", self._path, exc)
            self.unproven = list(Stream)
            return
        for part in frames_in(data):
            if isinstance(part, Damage):
                log.error("%s is damaged: digests end there", self._path)
                self.unproven = list(Stream)
            else:
                self._take(from_json(part))

    def _take(self, facts: dict[str, Any]) -> None:
        if "gap" in facts:
            word, offset, length = facts["gap"]
            self.gaps.append(Missing(Stream(word), offset, length))
            if facts["past"]:
                self.unproven.append(Stream(word))
        else:
            stream = Stream(facts["stream"])
            self.blocks[stream] += [bytes.fromhex(word) for word in facts["blocks"]]
            self._written[stream] = len(self.blocks[stream])


class FileRecording:
    """A Recording over files that the runner fills while they are read.

    It reads on from where it stood as long as it is asked for what follows, and looks for any
    other place from the beginning of the index.
    """

    def __init__(self, folder: Path, command_id: CommandId, files: "OpenFiles") -> None:
        self.is_complete = False
        self._folder = folder
        self._stem = file_stem(command_id)
        self._command_id = command_id
        self._files = files
        self._place = 0
        self._cursor = [0, 0]
        self._seen = _Seen()

    def read(self, after: Counts) -> Piece | Missing | None:
        """The first that came of all that lies behind `after`, joined with what follows on it."""
        if [after.stdout, after.stderr] != self._cursor:
            self._restart(after)
        found = self._next()
        while isinstance(found, Piece) and len(found.data) < CHUNK_MAX_BYTES:
            more = self._next_of(found)
            if more is None:
                break
            found = replace(found, data=found.data + more.data)
        if found is not None:
            length = len(found.data) if isinstance(found, Piece) else found.length
            self._cursor[_STREAMS.index(found.stream)] = found.offset + length
        return found

    def let_go(self, before: Counts) -> None:
        """Close what ends before there: a file that is open takes its room after its removal."""
        for name, place in zip(STREAMS, (before.stdout, before.stderr), strict=True):
            self._files.close(f"{self._stem}.{name}-", below=place // SEGMENT_BYTES)

    def close(self) -> None:
        """Close the files."""
        self._files.close(f"{self._stem}.")

    def _restart(self, after: Counts) -> None:
        self._cursor = [after.stdout, after.stderr]
        self._place = self._first_place()
        self._seen = _Seen()

    def _first_place(self) -> int:
        """The first record that is still there."""
        if self._path(index_name(0)).exists():
            return 0
        left = sorted(self._folder.glob(f"{self._stem}.index-*"))
        return int(left[0].name.rpartition("-")[2]) * INDEX_RECORDS if left else 0

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._stem}.{name}"

    def _next_of(self, piece: Piece) -> Piece | None:
        """What follows on `piece`, if the next that came does; nothing else is taken."""
        kept = (self._place, self._seen, list(self._cursor))
        self._cursor[_STREAMS.index(piece.stream)] = piece.offset + len(piece.data)
        found = self._next()
        joins = (
            isinstance(found, Piece)
            and found.stream is piece.stream
            and found.offset == piece.offset + len(piece.data)
            and len(found.data) + len(piece.data) <= CHUNK_MAX_BYTES
        )
        if joins and isinstance(found, Piece):
            return found
        self._place, self._seen, self._cursor = kept
        return None

    def _next(self) -> Piece | Missing | None:
        while True:
            record = self._record(self._place)
            if record is None:
                return None
            if record == b"":  # damaged: what it stood for shows as a gap of its stream
                if self._record(self._place + 1) is None and not self.is_complete:
                    return None  # it may just be being written
                if self._record(self._place) == b"":  # as that may have been so a moment ago
                    self._pass(damaged=True)
                continue
            found = self._read_record(*record)
            if found is not None:
                return found
            if self._record(self._place + 1) is None:
                return None  # the last one, which may still grow
            again = self._record(self._place)  # as long as it was the last one it may have grown
            if again == record:
                self._pass(damaged=False)

    def _pass(self, *, damaged: bool) -> None:
        if damaged:
            log.error("command %s: a record of its output's index is damaged", self._command_id)
        self._place += 1
        self._seen = _Seen()
        part, number = divmod(self._place, INDEX_RECORDS)
        if not number:  # the part before may be removed while this one is read
            self._files.close(f"{self._stem}.index-", below=part)

    def _record(self, place: int) -> tuple[int, int, int, int, int] | bytes | None:
        """A record's facts; None where there is none, b"" for a damaged one."""
        part, number = divmod(place, INDEX_RECORDS)
        raw = self._pread(index_name(part), INDEX_RECORD.size, number * INDEX_RECORD.size)
        if len(raw) < INDEX_RECORD.size:
            return None
        return unpack_index(raw) or b""

    def _read_record(
        self, number: int, length: int, offset: int, at_us: int, crc: int
    ) -> Piece | Missing | None:
        """What a record holds behind the cursor; None where nothing is left of it."""
        stream, cursor, end = _STREAMS[number], self._cursor[number], offset + length
        if end <= cursor:
            return None
        if offset > cursor:
            return Missing(stream, cursor, offset - cursor)
        seen = self._seen
        data = self._pread(
            segment_name(number, offset // SEGMENT_BYTES),
            length - seen.length,
            offset % SEGMENT_BYTES + seen.length,
        )
        if len(data) == length - seen.length:
            grown = _Seen(length, zlib.crc32(data, seen.crc))
            if grown.crc == crc:
                self._seen = grown
                begin = cursor - offset - seen.length
                return Piece(stream, cursor, data[begin:], from_micros(at_us))
        log.error(
            "command %s: bytes %d to %d of %s are damaged", self._command_id, cursor, end, stream
        )
        return Missing(stream, cursor, end - cursor)

    def _pread(self, name: str, size: int, place: int) -> bytes:
        try:
            return os.pread(self._opened(name), size, place)
        except FileNotFoundError:
            return b""
        except OSError as exc:
            if exc.errno in _NOT_NOW:
                raise SpoolUnreadable(f"{name} cannot be read now: {exc.strerror}") from exc
            # What cannot be read is a gap, and not the agent's end.
            log.error("command %s: %s cannot be read: %s", self._command_id, name, exc)
            return b""

    def _opened(self, name: str) -> int:
        return self._files.opened(self._path(name))


class OpenFiles:
    """Descriptors of files that were read last, of all commands together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[str, int] = OrderedDict()

    def opened(self, path: Path) -> int:
        """The file's descriptor; raises OSError."""
        found = self._open.pop(path.name, None)
        if found is None:
            found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if len(self._open) >= OPEN_MAX:
                os.close(self._open.popitem(last=False)[1])
        self._open[path.name] = found
        return found

    def close(self, prefix: str = "", *, below: int | None = None) -> None:
        """Close those whose names begin so; of numbered ones those whose number is `below`."""
        for name in [name for name in self._open if name.startswith(prefix)]:
            if below is None or int(name.removeprefix(prefix)) < below:
                os.close(self._open.pop(name))


class _Seen:
    """How much of the present record was read, and the checksum of that."""

    __slots__ = ("crc", "length")

    def __init__(self, length: int = 0, crc: int = 0) -> None:
        self.length = length
        self.crc = crc
