"""Every older database becomes today's, and what it holds goes on."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from alembic import command as alembic
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from app.domain.models.states import State
from app.infrastructure.database.migrate import HEAD, MIGRATIONS, migrate_sqlite
from app.infrastructure.database.sqlite_database import open_sqlite_database
from app.infrastructure.database.tables import METADATA
from app.infrastructure.repositories.sql_command_repository import SqlCommandRepository
from app.infrastructure.security.unsigned_sealer import UnsignedSealer
from tests.builders import SEALED, a_command_in, a_run_order, an_outcome_after, chunks_of, later

CHUNKS = chunks_of(*(bytes([number]) * 256 * 1024 for number in range(9)))


def downgraded(path: Path, revision: str) -> None:
    """Take a database back to what an older controller had left."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.downgrade(config, revision)
    engine.dispose()


def test_a_new_file_can_shrink_and_an_older_one_is_made_to(database_path: Path) -> None:
    with closing(sqlite3.connect(database_path, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        connection.execute("PRAGMA auto_vacuum = 0")
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    downgraded(database_path, "0002")
    migrate_sqlite(database_path)
    with closing(sqlite3.connect(database_path)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_the_newest_migration_is_the_one_that_start_up_looks_for() -> None:
    files = (MIGRATIONS / "versions").glob("[0-9]*.py")
    assert max(file.name[:4] for file in files) == HEAD


def test_the_migrations_make_the_tables_that_the_code_describes(database_path: Path) -> None:
    engine = create_engine(f"sqlite:///{database_path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"render_as_batch": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


async def test_a_command_that_ran_before_digests_were_kept_can_end_after_it(
    database_path: Path,
) -> None:
    running, ended = a_command_in(State.RUNNING), a_command_in(State.RUNNING)
    async with open_sqlite_database(database_path) as database:
        commands = SqlCommandRepository(database)
        for command in (running, ended):
            await commands.add(command, UnsignedSealer().seal_run(a_run_order()))
            for chunk in CHUNKS[:5]:
                await commands.change(command.id, lambda c, taken=chunk: c.append(taken) and None)
        outcome = an_outcome_after(CHUNKS[:5])
        await commands.change(ended.id, lambda c: c.settle(outcome, at=later(9)) and None)
    downgraded(database_path, "0001")
    migrate_sqlite(database_path)
    async with open_sqlite_database(database_path) as database:
        count = text("SELECT command_id FROM digest_blocks")
        rows = await database.read(lambda connection: connection.execute(count).scalars().all())
        assert rows == [running.id]
        commands = SqlCommandRepository(database)
        for chunk in CHUNKS[5:]:
            await commands.change(running.id, lambda c, taken=chunk: c.append(taken) and None)
        outcome = an_outcome_after(CHUNKS)
        changed = await commands.change(
            running.id, lambda c: c.settle(outcome, at=later(9)) and None
        )
        assert changed.state is State.SUCCEEDED


async def test_a_command_that_goes_on_keeps_the_bound_of_its_order(database_path: Path) -> None:
    running, ended = a_command_in(State.RUNNING), a_command_in(State.SUCCEEDED)
    order = UnsignedSealer().seal_run(a_run_order(command_id=running.id, max_output_bytes=4711))
    async with open_sqlite_database(database_path) as database:
        commands = SqlCommandRepository(database)
        await commands.add(running, order)
        await commands.add(ended, SEALED)
    downgraded(database_path, "0003")
    migrate_sqlite(database_path)
    async with open_sqlite_database(database_path) as database:
        commands = SqlCommandRepository(database)
        assert await commands.get(running.id) == replace(running, max_output_bytes=4711)
        assert await commands.get(ended.id) == ended


async def test_what_had_ended_is_kept_by_the_time_that_was_known(database_path: Path) -> None:
    ended = a_command_in(State.SUCCEEDED)
    async with open_sqlite_database(database_path) as database:
        await SqlCommandRepository(database).add(ended, SEALED)
    downgraded(database_path, "0005")
    migrate_sqlite(database_path)
    async with open_sqlite_database(database_path) as database:
        assert await SqlCommandRepository(database).get(ended.id) == ended
