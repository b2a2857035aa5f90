"""Bring a database's tables up to date before anything uses it.

Alembic is loaded by a process of its own, and only when there is something to do: it would stay
in the controller's memory (11 MiB) and delay every start for nothing.
"""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

log = structlog.get_logger(__name__)

MIGRATIONS: Final = Path(__file__).parent / "migrations"
#: The newest migration; a test compares it with the files.
HEAD: Final = "0006"
#: A file that an older version made is rewritten once, so that it can shrink from then on, unless
#: it is larger than this or there is no room for its copy: then what is freed in it is used again.
REWRITE_MAX_BYTES: Final = 4 * 1024**3
#: How long migrations may take.
TIMEOUT_S: Final = 600
_INCREMENTAL: Final = 2
_PACKAGE_PARENT: Final = Path(__file__).parents[3]


class MigrationFailed(Exception):
    """The database's tables cannot be brought up to date; the message says why."""


def migrate_sqlite(path: Path) -> None:
    """Make the file where it is missing and apply every migration that it lacks.

    Raises MigrationFailed; the database is then as it was.
    """
    if _version(path) == HEAD:
        return
    done = subprocess.run(  # noqa: S603 - our own module and a path
        [sys.executable, "-m", __name__, str(path.resolve())],
        cwd=_PACKAGE_PARENT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise MigrationFailed(f"the database {path} cannot be brought up to date: {last}")
    if not _shrinks(path):
        log.warning(
            "the database's file does not shrink: what retention frees in it is used again",
            file=str(path),
        )


def _version(path: Path) -> str | None:
    """The newest migration that was applied; None for a new or an unreadable file."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


def _shrinks(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA auto_vacuum").fetchone()[0] == _INCREMENTAL)


def _make_shrinkable(path: Path) -> None:
    """Rewrite an older file, as far as that is possible; a new one is made so."""
    size, free = path.stat().st_size, shutil.disk_usage(path.parent).free
    if _shrinks(path) or size > REWRITE_MAX_BYTES or free < 3 * size:
        return
    with (
        suppress(sqlite3.OperationalError),  # the file is as it was, and as good
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
    ):
        connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        connection.execute("VACUUM")


def _upgrade(path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")  # counts for a file without tables
        cursor.close()

    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
    _make_shrinkable(path)


if __name__ == "__main__":
    try:
        _upgrade(Path(sys.argv[1]))
    except DBAPIError as failure:
        sys.exit(str(failure.orig))
