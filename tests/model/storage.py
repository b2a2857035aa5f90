"""What stands on the two disks, and what of it a crash leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from copy import deepcopy
from datetime import datetime
from typing import Any

from agent.domain.ids import CommandId
from agent.domain.models.execution import Outcome
from agent.domain.models.order import Order
from agent.infrastructure.storage import journal_records as records
from agent.infrastructure.storage.in_memory_journal import InMemoryJournal
from agent.infrastructure.storage.journal_state import Released
from app.infrastructure.repositories.in_memory_agent_repository import InMemoryAgentRepository
from app.infrastructure.repositories.in_memory_command_repository import InMemoryCommandRepository
from app.infrastructure.repositories.in_memory_output_log import InMemoryOutputLog
from tests.model.virtual_loop import Life

#: The journal writes so late that nothing more has to be told of a command.
RELEASE_DELAY_S = 1.0


class Disk:
    """A disk that takes its time, and may stand still until the test lets it go on."""

    def __init__(self) -> None:
        self._goes_on = asyncio.Event()
        self._goes_on.set()

    @property
    def is_stalled(self) -> bool:
        return not self._goes_on.is_set()

    def stall(self) -> None:
        """Let everybody wait."""
        self._goes_on.clear()

    def go_on(self) -> None:
        """Serve those who wait, in order."""
        self._goes_on.set()

    async def turn(self, life: Life) -> None:
        """Return when it is the caller's turn; never to one who has died."""
        life.require()
        await asyncio.sleep(0)
        await self._goes_on.wait()
        life.require()


class Database:
    """The controller's store: what stands here was committed."""

    def __init__(self) -> None:
        self.agents = InMemoryAgentRepository()
        self.output = InMemoryOutputLog()
        self.commands = InMemoryCommandRepository(self.agents, self.output)

    def copy(self) -> "Database":
        """A backup."""
        return deepcopy(self)


class Committing:
    """A repository as one controller sees it.

    A crash may come before the commit, and between the commit and the answer; changes are
    committed in the order of the calls.
    """

    def __init__(self, repository: object, disk: Disk, life: Life) -> None:
        self._repository = repository
        self._disk = disk
        self._life = life

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._repository, name)

        async def call(*args: Any, **options: Any) -> Any:
            await self._disk.turn(self._life)
            found = await method(*args, **options)
            await self._disk.turn(self._life)
            return found

        return call


class JournalFile:
    """The records of the agent's journal: `synced` survive everything, the others a process."""

    def __init__(self) -> None:
        self.synced: list[bytes] = []
        self.written: list[bytes] = []

    def write(self, record: bytes) -> None:
        """Hand a record to the system."""
        self.written.append(record)

    def sync(self) -> None:
        """Have everything on the disk."""
        self.synced += self.written
        self.written.clear()

    def copy(self) -> "JournalFile":
        """A backup of what is on the disk."""
        return deepcopy(self)


class SyncedJournal(InMemoryJournal):
    """A Journal over a file that outlives it; what it has returned from is on the disk."""

    def __init__(self, file: JournalFile, disk: Disk, life: Life) -> None:
        super().__init__()
        self._file = file
        self._disk = disk
        self._life = life
        self._accepting: dict[CommandId, asyncio.Event] = {}
        self._late: list[Released] = []
        for record in [*file.synced, *file.written]:
            records.apply(record, self.facts)

    async def store_epoch(self, epoch: int, *, ahead_s: float = 0.0) -> None:
        await self._store(records.epoch_record(epoch, ahead_s))
        await super().store_epoch(epoch, ahead_s=ahead_s)

    async def accept(self, order: Order, *, keeper: str | None, now: datetime) -> bool:
        while (storing := self._accepting.get(order.id)) is not None:
            await storing.wait()
        if self.known(order.id) is not None:
            return False
        stored = self._accepting[order.id] = asyncio.Event()
        try:
            await self._store(records.order_record(order, keeper))
            return await super().accept(order, keeper=keeper, now=now)
        finally:
            del self._accepting[order.id]
            stored.set()

    async def start(self, command_id: CommandId, keeper: str) -> None:
        await self._store(records.start_record(command_id, keeper))
        await super().start(command_id, keeper)

    async def settle(self, outcome: Outcome) -> None:
        await self._store(records.outcome_record(outcome))
        await super().settle(outcome)

    async def release(self, command_id: CommandId, *, now: datetime) -> None:
        released = self.facts.release(command_id, now)
        if released is None:
            return
        if not self._late:
            self._life.call_later(RELEASE_DELAY_S, self._write_late)
        self._late.append(released)

    async def _store(self, record: bytes) -> None:
        await self._disk.turn(self._life)
        self._write_late()
        self._file.write(record)
        await self._disk.turn(self._life)
        self._file.sync()
        await self._disk.turn(self._life)

    def _write_late(self) -> None:
        if self._late:
            self._file.write(records.released_record(self._late))
            self._late = []
