"""One SQLite file: a writer thread that groups what waits into one transaction, and readers.

Why threads of our own: see docs/adr/0002. In short, SQLAlchemy Core called directly in the writer
thread takes a third of the CPU time per command that it takes through an asynchronous driver,
and everything that waits while one commit is under way shares the next.
"""

import asyncio
import os
import queue
import shutil
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import QueuePool

from app.domain.errors import StorageFull, StorageUnavailable

T = TypeVar("T")
log = structlog.get_logger(__name__)

#: Pieces of work that one transaction takes at most.
GROUP_MAX: Final = 256
#: Pieces of work that may wait for the writer.
WAITING_MAX: Final = 4096
#: Threads that read.
READERS: Final = 2
#: Free pages, of 4 KiB, that are cut off the file in one transaction.
FREE_PAGES_MAX: Final = 1024
#: A disk with less room than this is why an input or output failed.
FULL_BELOW_BYTES: Final = 1024 * 1024
#: How long SQLite waits for a lock that another process holds.
BUSY_TIMEOUT_MS: Final = 5000


@dataclass(slots=True)
class _Work(Generic[T]):
    """A function that waits for the writer, and where its outcome goes."""

    run: Callable[[Connection], T]
    future: asyncio.Future[T]


class SqliteDatabase:
    """Runs functions over a Connection: writes one after the other, reads beside them.

    The one writer connection also checkpoints: SQLite before 3.51.3 may damage a file in which
    two connections do so at once.
    """

    def __init__(self, writer: Engine, readers: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self._readers = readers
        self._loop = loop
        self._waiting: queue.SimpleQueue[_Work[Any] | None] = queue.SimpleQueue()
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")
        self._thread = threading.Thread(target=self._write_all, name="database-writer")
        self._is_closed = False

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction; when this returns, its changes are on disk.

        Works run in the order of the calls. What `work` raises undoes its own changes alone, and
        is raised here. Raises StorageFull or StorageUnavailable when the database fails.
        """
        self._require_open()
        if self._waiting.qsize() >= WAITING_MAX:
            raise StorageUnavailable("the database has fallen behind: try again in a moment")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.put(_Work(work, future))
        return await future

    async def give_back(self) -> bool:
        """Cut at most FREE_PAGES_MAX free pages off the file; True while there are more.

        A file that was made without `auto_vacuum` keeps them, and uses them again.
        """
        return await self.write(_cut_free_pages)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` over a snapshot of what is committed; raises StorageUnavailable."""
        self._require_open()
        return await self._loop.run_in_executor(self._reading, self._read, work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._readers.connect() as connection:
                return work(connection)
        except DBAPIError as exc:
            raise _translated(exc) from exc

    def _require_open(self) -> None:
        if self._is_closed:
            raise StorageUnavailable("the controller is stopping: its database is closed")

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    async def close(self) -> None:
        """Finish what waits, then end the threads and close the file."""
        self._is_closed = True
        self._waiting.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        self._reading.shutdown()
        self._readers.dispose()
        self._writer.dispose()

    def _write_all(self) -> None:
        """Write until the end; a bug here ends the process rather than leave everybody waiting."""
        try:
            with _Writer(self._writer) as writer:
                while (group := self._next_group()) is not None:
                    self._write_group(writer, group)
        except Exception:
            log.critical("the writer of the database died: the controller stops", exc_info=True)
            self._is_closed = True
            while not self._waiting.empty():
                if (work := self._waiting.get()) is not None:
                    self._resolve_all([work], [_Raised(_writer_died())])
            os.kill(os.getpid(), signal.SIGTERM)

    def _write_group(self, writer: "_Writer", group: list[_Work[Any]]) -> None:
        wanted = [work for work in group if not work.future.cancelled()]
        outcomes: list[object] = [_Raised(_writer_died())] * len(wanted)
        try:
            outcomes = writer.write(wanted)
        finally:
            self._resolve_all(wanted, outcomes)

    def _resolve_all(self, group: list[_Work[Any]], outcomes: list[object]) -> None:
        self._loop.call_soon_threadsafe(_resolve, group, outcomes)

    def _next_group(self) -> list[_Work[Any]] | None:
        """All that waits, at least one, up to GROUP_MAX; None at the end."""
        first = self._waiting.get()
        if first is None:
            return None
        group = [first]
        while len(group) < GROUP_MAX and not self._waiting.empty():
            work = self._waiting.get()
            if work is None:
                self._waiting.put(None)  # seen again once this group is written
                break
            group.append(work)
        return group


class _Writer:
    """The one connection that writes, opened when it is needed. Used by one thread.

    Transactions are begun and ended on the driver's connection: that SQLAlchemy should do it, too,
    costs as much as a statement each.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def write(self, group: Sequence[_Work[Any]]) -> list[object]:
        """One transaction; the value of each work or what it raised, in order."""
        try:
            connection = self._open()
            driver = _driver_of(connection)
            driver.execute("BEGIN IMMEDIATE")
            outcomes = [_run(connection, driver, work) for work in group]
            driver.execute("COMMIT")
        except (DBAPIError, sqlite3.Error) as exc:
            log.error("a transaction failed", error=str(exc), works=len(group))
            self._discard()
            return [_Raised(_translated(exc, self._engine.url.database))] * len(group)
        except Exception as exc:  # raised to those who wait: the writer goes on
            self._discard()
            return [_Raised(exc)] * len(group)
        return outcomes

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _discard(self) -> None:
        """After a failed write the file is suspect: the next one opens it anew, and recovers it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _cut_free_pages(connection: Connection) -> bool:
    driver = _driver_of(connection)
    if driver.execute("PRAGMA auto_vacuum").fetchone() != (2,):
        return False
    (free,) = driver.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(free, FREE_PAGES_MAX)):
        driver.execute("PRAGMA incremental_vacuum(1)")  # a step each: the driver makes only one
    return bool(free > FREE_PAGES_MAX)


def _driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - the engine is SQLite's
    return driver


def _run(connection: Connection, driver: sqlite3.Connection, work: _Work[Any]) -> object:
    """The value of `work`, or what it raised; then its changes are undone, and only they."""
    driver.execute("SAVEPOINT work")
    try:
        value: object = work.run(connection)
    except (IntegrityError, DataError, ProgrammingError) as exc:  # its own, not the file's
        driver.execute("ROLLBACK TO work")
        value = _Raised(_translated(exc))
    except DBAPIError:
        raise
    except Exception as exc:  # handed to the caller, who waits for it
        driver.execute("ROLLBACK TO work")
        value = _Raised(exc)
    driver.execute("RELEASE work")
    return value


@dataclass(slots=True)
class _Raised:
    """What a work raised: told apart from an exception that a work returned."""

    error: Exception


def _resolve(group: list[_Work[Any]], outcomes: list[object]) -> None:
    for work, outcome in zip(group, outcomes, strict=True):
        if work.future.done():
            continue
        if isinstance(outcome, _Raised):
            work.future.set_exception(outcome.error)
        else:
            work.future.set_result(outcome)


def _writer_died() -> StorageUnavailable:
    return StorageUnavailable("the database's writer failed: the controller stops")


def _translated(
    exc: DBAPIError | sqlite3.Error, path: str | None = None
) -> StorageFull | StorageUnavailable:
    """Ours for the driver's; SQLite says of a full disk now that it is full, now that it failed."""
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    is_failure = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    if code == sqlite3.SQLITE_FULL or (is_failure and path is not None and _is_full(path)):
        return StorageFull("the controller's disk is full: make room, nothing was stored")
    return StorageUnavailable(f"the database failed: {cause}")


def _is_full(path: str) -> bool:
    return shutil.disk_usage(Path(path).parent).free < FULL_BELOW_BYTES


@asynccontextmanager
async def open_sqlite_database(path: Path) -> AsyncIterator[SqliteDatabase]:
    """The database in the file `path`, which has its tables, while the context is open."""
    writer = _engine(path, pool_size=1, is_writer=True)
    readers = _engine(path, pool_size=READERS, is_writer=False)
    database = SqliteDatabase(writer, readers, asyncio.get_running_loop())
    database.start()
    try:
        yield database
    finally:
        await asyncio.shield(database.close())


def _engine(path: Path, *, pool_size: int, is_writer: bool) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        isolation_level="AUTOCOMMIT",
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_reset_on_return=None if is_writer else "rollback",
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    )
    pragmas = ["journal_mode=WAL", "foreign_keys=ON", "cache_size=-2000"]
    if is_writer:
        pragmas += ["synchronous=FULL", "wal_autocheckpoint=2000", "journal_size_limit=67108864"]
    else:
        pragmas += ["query_only=ON", "wal_autocheckpoint=0"]

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine
