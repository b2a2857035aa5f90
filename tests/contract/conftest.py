"""The adapters that every suite of a port runs over."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.application.ports.output_log import OutputLog
from app.application.ports.repositories import AgentRepository, CommandRepository, UserRepository
from app.infrastructure.database.migrate import migrate_sqlite
from app.infrastructure.database.sqlite_database import SqliteDatabase, open_sqlite_database
from app.infrastructure.repositories.caching_output_log import CachingOutputLog
from app.infrastructure.repositories.caching_repositories import (
    CachingAgentRepository,
    CachingCommandRepository,
    CachingUserRepository,
)
from app.infrastructure.repositories.in_memory_agent_repository import InMemoryAgentRepository
from app.infrastructure.repositories.in_memory_command_repository import InMemoryCommandRepository
from app.infrastructure.repositories.in_memory_output_log import InMemoryOutputLog
from app.infrastructure.repositories.in_memory_user_repository import InMemoryUserRepository
from app.infrastructure.repositories.sql_agent_repository import SqlAgentRepository
from app.infrastructure.repositories.sql_command_repository import SqlCommandRepository
from app.infrastructure.repositories.sql_output_log import SqlOutputLog
from app.infrastructure.repositories.sql_user_repository import SqlUserRepository


@dataclass(frozen=True, slots=True)
class Storage:
    """One adapter per port, all over the same store."""

    agents: AgentRepository
    commands: CommandRepository
    output: OutputLog
    users: UserRepository


@asynccontextmanager
async def _in_memory(_path: Path) -> AsyncIterator[Storage]:
    agents, output = InMemoryAgentRepository(), InMemoryOutputLog()
    commands = InMemoryCommandRepository(agents, output)
    yield Storage(agents, commands, output, InMemoryUserRepository())


@asynccontextmanager
async def _sqlite(path: Path) -> AsyncIterator[Storage]:
    async with open_sqlite_database(path) as database:
        yield Storage(
            SqlAgentRepository(database),
            SqlCommandRepository(database),
            SqlOutputLog(database),
            SqlUserRepository(database),
        )


@asynccontextmanager
async def _cached(path: Path) -> AsyncIterator[Storage]:
    async with _sqlite(path) as storage:
        output = CachingOutputLog(storage.output, max_bytes=300 * 1024)
        yield Storage(
            CachingAgentRepository(storage.agents),
            CachingCommandRepository(storage.commands, output),
            output,
            CachingUserRepository(storage.users),
        )


ADAPTERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Storage]]] = {
    "in_memory": _in_memory,
    "sqlite": _sqlite,
    "cached": _cached,
}


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables and no row, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "ogent.db"
    migrate_sqlite(path)
    return path


@pytest.fixture
def database_path(migrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "ogent.db"))


@pytest.fixture(params=ADAPTERS)
async def storage(request: pytest.FixtureRequest, database_path: Path) -> AsyncIterator[Storage]:
    async with ADAPTERS[request.param](database_path) as opened:
        yield opened


@pytest.fixture
async def database(database_path: Path) -> AsyncIterator[SqliteDatabase]:
    async with open_sqlite_database(database_path) as opened:
        yield opened
