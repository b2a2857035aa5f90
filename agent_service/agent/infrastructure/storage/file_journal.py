"""A Journal in a file: records with length and checksum, made durable in groups.

See docs/adr/0010 for its form and for why no damage makes a command start twice.
"""

import asyncio
import errno
import logging
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Final

from agent.application.ports.journal import Known, Unfinished
from agent.domain.errors import JournalUnavailable
from agent.domain.ids import CommandId
from agent.domain.models.execution import Outcome, State
from agent.domain.models.order import Order
from agent.infrastructure.runner.records import Damage, frame, frames_in
from agent.infrastructure.storage import journal_records as records
from agent.infrastructure.storage.identity import FILE_MODE, FOLDER_MODE
from agent.infrastructure.storage.journal_state import JournalState, Released

log = logging.getLogger(__name__)

#: A file that has grown so large, and to so many times its size when it was new, is written anew.
REWRITE_MIN_BYTES: Final = 8 * 1024 * 1024
REWRITE_FACTOR: Final = 4
#: That nothing more has to be told of a command is written so late, or with what comes before.
RELEASE_DELAY_S: Final = 1.0
#: Damaged pieces that are kept for people to look at; older ones go.
DAMAGED_MAX: Final = 32

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class _Place(Enum):
    """Where frames belong: behind all others, at the head in place of the old, in a new file."""

    END = "end"
    HEAD = "head"
    NEW_FILE = "new file"


@dataclass(slots=True)
class _Work:
    """Frames that wait for the disk, where they belong, and what is true once they are there."""

    data: bytes
    place: _Place
    done: asyncio.Future[None]
    apply: Callable[[], None]


class FileJournal:
    """A Journal over an open file, written by a thread of its own."""

    def __init__(self, folder: Path, state: JournalState) -> None:
        self._folder = folder
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._file = _LogFile(folder)
        self._works: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="journal")
        self._accepting: dict[CommandId, asyncio.Future[None]] = {}
        self._late: list[Released] = []
        self._late_timer: asyncio.TimerHandle | None = None
        self._must_rewrite = True
        #: What waits for a new file; how many pieces of work the thread has.
        self._backlog: list[_Work] = []
        self._under_way = 0

    async def open(self) -> None:
        """Begin a new file with all that is known; without room for that, go on with the old."""
        self._thread.start()
        try:
            await self._write()
        except JournalUnavailable as exc:
            log.error("%s; the old file is used until there is", exc)
            self._must_rewrite = not await asyncio.to_thread(self._file.reopen)

    async def close(self) -> None:
        """Write what waits, and end the thread."""
        if self._late_timer is not None:
            self._late_timer.cancel()
        with suppress(JournalUnavailable):
            await self._write()
        self._works.put(None)
        await asyncio.to_thread(self._thread.join)
        self._file.close()

    async def epoch(self) -> int:
        """The last epoch that was stored."""
        return self._state.epoch

    async def store_epoch(self, epoch: int, *, ahead_s: float = 0.0) -> None:
        """Remember the epoch, and how the clocks differ."""
        data = frame(records.epoch_record(epoch, ahead_s))
        await asyncio.shield(self._put(data, _Place.HEAD, partial(self._know, epoch, ahead_s)))

    def ahead_s(self) -> float:
        """How far the controller's clock was ahead."""
        return self._state.ahead_s

    def held_size(self) -> int:
        """Characters of text in unfinished orders."""
        return self._state.held_size

    def known(self, command_id: CommandId) -> Known | None:
        """What is known of an id."""
        return self._state.known(command_id)

    async def accept(self, order: Order, *, keeper: str | None, now: datetime) -> bool:
        """Store a new order; one that is being stored is waited for."""
        while (storing := self._accepting.get(order.id)) is not None:
            await asyncio.wait({storing})
        if self._state.known(order.id) is not None:
            return False
        storing = self._accepting[order.id] = self._loop.create_future()
        try:
            entry = Unfinished(order, keeper)
            await self._write(
                records.order_record(order, keeper), lambda: self._state.accept(entry)
            )
            self._state.forget_before(now)
        finally:
            del self._accepting[order.id]
            storing.set_result(None)
        return True

    async def start(self, command_id: CommandId, keeper: str) -> None:
        """Store who starts it."""
        await self._write(
            records.start_record(command_id, keeper),
            lambda: self._state.change(command_id, lambda entry: replace(entry, keeper=keeper)),
        )

    async def settle(self, outcome: Outcome) -> None:
        """Store how an order came out."""
        await self._write(records.outcome_record(outcome), lambda: self._state.settle(outcome))

    def may_forget_none(self) -> bool:
        """Whether too many ids are remembered."""
        return self._state.may_forget_none

    def note(self, command_id: CommandId, state: State) -> None:
        """Remember where a command stands."""
        self._state.note(command_id, state)

    async def release(self, command_id: CommandId, *, now: datetime) -> None:
        """Let go of all but its id; written with what comes next, or a little later."""
        released = self._state.release(command_id, now)
        if released is None:
            return
        self._late.append(released)
        if self._late_timer is None:
            self._late_timer = self._loop.call_later(RELEASE_DELAY_S, self._write_late)

    def unfinished(self) -> Sequence[Unfinished]:
        """What has still to be told."""
        return self._state.unfinished()

    # --- writing --------------------------------------------------------------------------

    def _write_late(self) -> None:
        self._late_timer = None
        if self._late:
            self._put(self._late_frames(), _Place.END, _nothing).add_done_callback(_ignored)

    def _late_frames(self) -> bytes:
        late, self._late = self._late, []
        return frame(records.released_record(late)) if late else b""

    def _know(self, epoch: int, ahead_s: float) -> None:
        self._state.epoch, self._state.ahead_s = epoch, ahead_s

    async def _write(
        self, record: bytes | None = None, apply: Callable[[], None] | None = None
    ) -> None:
        """Store what waits, and `record`, then `apply` it; raises JournalUnavailable instead."""
        data = self._late_frames() + (frame(record) if record is not None else b"")
        await asyncio.shield(self._put(data, _Place.END, apply or _nothing))

    def _put(self, data: bytes, place: _Place, apply: Callable[[], None]) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        if not data and not self._must_rewrite:
            done.set_result(None)
        elif self._must_rewrite:
            self._backlog.append(_Work(data, place, done, apply))
            self._rewrite_when_quiet()
        else:
            self._hand_over(_Work(data, place, done, apply))
        return done

    def _rewrite_when_quiet(self) -> None:
        """Begin a new file once nothing is on its way to the old one: what is known is all then."""
        if self._under_way or not self._backlog:
            return
        self._must_rewrite = False
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(_ignored)
        whole = b"".join(map(frame, records.records_of(self._state)))
        self._hand_over(_Work(whole, _Place.NEW_FILE, done, _nothing))
        backlog, self._backlog = self._backlog, []
        for work in backlog:
            self._hand_over(work)

    def _hand_over(self, work: _Work) -> None:
        self._under_way += 1
        self._works.put(work)

    def _write_all(self) -> None:
        """The thread: everything that waits shares one write. A rewrite is first in its group."""
        while (group := self._next_group()) is not None:
            error: OSError | None = None
            try:
                self._write_group(group)
            except OSError as exc:
                error = exc
            except Exception as exc:  # the supervisor of a loop: nobody is to wait in vain
                log.exception("the journal failed")
                error = OSError(errno.EIO, f"a bug: {exc!r}")
            self._loop.call_soon_threadsafe(self._finish, group, error)

    def _write_group(self, group: Sequence[_Work]) -> None:
        heads = [work.data for work in group if work.place is _Place.HEAD]
        others = [work.data for work in group if work.place is not _Place.HEAD]
        if group[0].place is _Place.NEW_FILE:
            self._file.rewrite(others)
        if heads:  # before the others: what fails after it must not be there
            self._file.replace_head(heads[-1])
        if others and group[0].place is not _Place.NEW_FILE:
            self._file.append(b"".join(others))

    def _next_group(self) -> list[_Work] | None:
        """All that waits. A rewrite is handed over only while nothing is under way."""
        work = self._works.get()
        if work is None:
            return None
        group = [work]
        while not self._works.empty():
            work = self._works.get()
            if work is None:
                self._works.put(None)  # seen again once this group is written
                break
            group.append(work)
        return group

    def _finish(self, group: Sequence[_Work], error: OSError | None) -> None:
        self._under_way -= len(group)
        if error is not None:
            self._must_rewrite = self._must_rewrite or self._file.is_suspect
            log.error("the journal in %s cannot be written: %s", self._folder, error)
        elif self._file.is_outgrown:
            self._must_rewrite = True
        for work in group:
            if error is None:
                work.apply()
            self._tell(work, error)
        if self._must_rewrite:
            self._rewrite_when_quiet()

    @staticmethod
    def _tell(work: _Work, error: OSError | None) -> None:
        if work.done.cancelled():
            return
        if error is None:
            work.done.set_result(None)
        else:
            reason = error.strerror or str(error)
            work.done.set_exception(
                JournalUnavailable(f"the journal cannot be written ({reason}): make room")
            )


class _LogFile:
    """The newest file of the journal; used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1
        self._size = 0
        self._first_size = 0
        #: After a failure nobody knows what the file holds: it must be written anew.
        self.is_suspect = False

    @property
    def is_outgrown(self) -> bool:
        return self._size > max(REWRITE_MIN_BYTES, REWRITE_FACTOR * self._first_size)

    def append(self, data: bytes) -> None:
        """Make `data` durable at the end; raises OSError, and then it is not there."""
        if self.is_suspect or self._descriptor < 0:
            raise OSError(errno.EIO, "the file failed before")
        try:
            _write_whole(self._descriptor, data)
            os.fdatasync(self._descriptor)
        except OSError as exc:
            is_whole = self._cut_back()  # what its caller is told is not there must not come back
            self.is_suspect = exc.errno not in _FULL or not is_whole
            raise
        self._size += len(data)

    def replace_head(self, data: bytes) -> None:
        """Make `data` durable in place of the first frame, which has its length.

        It takes no room: a full disk must not keep the agent from its controller, which is what
        makes room. Raises OSError.
        """
        if self.is_suspect or self._descriptor < 0:
            raise OSError(errno.EIO, "the file failed before")
        try:
            os.pwrite(self._descriptor, data, 0)
            os.fdatasync(self._descriptor)
        except OSError:
            self.is_suspect = True
            raise

    def reopen(self) -> bool:
        """Go on with the newest file that there is; whether that is possible."""
        older = log_files(self._folder)
        if not older:
            return False
        try:
            self.close()
            head = next(frames_in(older[-1].read_bytes()), b"")
            if not isinstance(head, bytes) or len(head) != len(records.epoch_record(0, 0)):
                return False
            self._descriptor = os.open(older[-1], os.O_WRONLY | os.O_CLOEXEC)
            self._size = self._first_size = os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as exc:
            log.error("%s cannot be opened: %s", older[-1], exc)
            return False
        self.is_suspect = False
        return True

    def _cut_back(self) -> bool:
        """Whether what was written in part is gone again."""
        try:
            os.ftruncate(self._descriptor, self._size)
            os.lseek(self._descriptor, self._size, os.SEEK_SET)
            os.fdatasync(self._descriptor)
        except OSError:
            return False
        return True

    def rewrite(self, parts: Iterable[bytes]) -> None:
        """Make `parts` durable in a new file, which takes the place of all before."""
        self.is_suspect = True
        older = log_files(self._folder)
        number = int(older[-1].stem) + 1 if older else 1
        fresh = self._folder / "fresh"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            size = 0
            for data in parts:
                _write_whole(descriptor, data)
                size += len(data)
            os.fsync(descriptor)
            fresh.rename(self._folder / f"{number:08d}.log")
            _sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        self.close()
        self._descriptor, self._size, self._first_size = descriptor, size, size
        self.is_suspect = False
        for path in older:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@asynccontextmanager
async def open_file_journal(folder: Path) -> AsyncIterator[FileJournal]:
    """The journal in `folder`, made where there is none; what is damaged is set aside and said."""
    journal = FileJournal(folder, await asyncio.to_thread(read_journal, folder))
    await journal.open()
    try:
        yield journal
    finally:
        await asyncio.shield(journal.close())


def read_journal(folder: Path, *, is_kept_aside: bool = True) -> JournalState:
    """What the files in `folder` say; damaged pieces are copied beside them, and said."""
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    state = JournalState()
    for path in log_files(folder):
        for found in frames_in(path.read_bytes()):
            if isinstance(found, Damage):
                _report(path, found, is_kept_aside=is_kept_aside)
                continue
            try:
                records.apply(found, state)
            except (ValueError, KeyError, TypeError, IndexError) as exc:
                log.warning("a record of %s says nothing that this agent knows: %r", path, exc)
    return state


def log_files(folder: Path) -> list[Path]:
    """The files of a journal, oldest first."""
    return sorted(path for path in folder.glob("*.log") if path.stem.isdigit())


def _report(path: Path, damage: Damage, *, is_kept_aside: bool) -> None:
    kept = path.with_name(f"damaged-{path.stem}-{damage.offset}")
    size = len(damage.raw)
    if damage.is_tail:
        log.warning("%s ends with %d bytes of a record that is not whole", path, size)
    else:
        log.error("%s is damaged: %d bytes at %d, kept in %s", path, size, damage.offset, kept.name)
    if not is_kept_aside:
        return
    with suppress(OSError):
        kept.write_bytes(damage.raw)
        kept.chmod(FILE_MODE)
        for old in sorted(path.parent.glob("damaged-*"))[:-DAMAGED_MAX]:
            old.unlink(missing_ok=True)


def _write_whole(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _nothing() -> None:
    """Nothing is different once the record is there."""


def _ignored(done: asyncio.Future[None]) -> None:
    """A release that was not written is told to the controller once more, after a restart."""
    if not done.cancelled():
        done.exception()
