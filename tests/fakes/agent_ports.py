"""The agent's outside, driven by hand: time that stands still, processes that do as told."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.application.controller_time import ControllerTime
from agent.application.delivery import Delivery
from agent.application.ports.controller_link import Accepted, Incomplete, Registration
from agent.application.ports.executor import Executor
from agent.application.supervisor import Supervisor
from agent.application.use_cases.run_execution import RunExecution
from agent.domain.errors import AgentError
from agent.domain.ids import AgentId, CommandId
from agent.domain.models.execution import Outcome, Report
from agent.domain.models.executor import ExecutionType, Exit, Impulse, Place, Survivors
from agent.domain.models.order import Order
from agent.domain.models.output import Chunk, Piece, Position, Stream
from agent.infrastructure.storage.in_memory_journal import InMemoryJournal
from agent.infrastructure.storage.in_memory_spool import InMemorySpool

NOW = datetime(2026, 11, 21, 5, 44, tzinfo=UTC)
HERE = AgentId("web-1")
C = CommandId("c")


def an_order(command_id: str = "c", **overrides: Any) -> Order:
    values: dict[str, Any] = {
        "id": CommandId(command_id),
        "agent_id": HERE,
        "command": "true",
        "target": "local",
        "max_output_bytes": 1 << 30,
        "expires_at": NOW + timedelta(seconds=60),
    }
    return Order(**{**values, **overrides})


def a_chunk(seq: int, data: bytes = b"x", offset: int = 0) -> Chunk:
    return Chunk(seq, Stream.STDOUT, offset, data, NOW)


async def settle() -> None:
    """Let every task go on until all of them wait."""
    for _ in range(50):
        await asyncio.sleep(0)


class ManualClock:
    """A Clock that stands still between calls of `advance`."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleeping.append((self._elapsed + seconds, done))
        await done

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking who sleeps when it is his time."""
        end = self._elapsed + seconds
        await settle()
        while due := sorted((at for at, done in self._sleeping if at <= end and not done.done())):
            self._elapsed = max(due[0], self._elapsed)
            self._wake()
            await settle()
        self._elapsed = end

    def _wake(self) -> None:
        for at, done in self._sleeping:
            if at <= self._elapsed and not done.done():
                done.set_result(None)
        self._sleeping = [entry for entry in self._sleeping if not entry[1].done()]


class ScriptedProcess:
    """A process that writes and ends when the test says; impulses are recorded."""

    def __init__(self) -> None:
        self.impulses: list[Impulse] = []
        #: Who lives; `fatal` impulses end all of them, and the first process with them.
        self.alive: tuple[int, ...] = (1,)
        self.denied: tuple[int, ...] = ()
        self.fatal = {Impulse.TERMINATE, Impulse.KILL}
        self.is_abandoned = False
        self.breaks_on_read = False
        self._pieces: asyncio.Queue[list[Piece]] = asyncio.Queue()
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    @property
    def has_ended(self) -> bool:
        return self._exit.done()

    def write(self, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        self._pieces.put_nowait([Piece(stream, data)])

    def end(self, process_exit: Exit | None = None, *, keeps_pipes: bool = False) -> None:
        self.alive = ()
        if not self._exit.done():
            self._exit.set_result(process_exit or Exit(code=0))
        if not keeps_pipes:
            self._pieces.put_nowait([])

    def end_unknown(self, why: AgentError) -> None:
        self.alive = ()
        self._exit.set_exception(why)
        self._pieces.put_nowait([])

    async def read(self) -> Sequence[Piece]:
        if self.breaks_on_read:
            raise RuntimeError("a bug")
        return await self._pieces.get()

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    def abandon_output(self) -> None:
        self.is_abandoned = True
        self._pieces.put_nowait([])

    async def signal(self, impulse: Impulse) -> Survivors:
        self.impulses.append(impulse)
        seen = Survivors(self.alive, self.denied)
        if impulse in self.fatal and self.alive:
            self.end(Exit(signal="SIGKILL" if impulse is Impulse.KILL else "SIGTERM"))
        return seen


class ScriptedExecutor:
    """An Executor whose processes are ScriptedProcesses; `refusal` is raised instead."""

    def __init__(self) -> None:
        self.processes: dict[CommandId, ScriptedProcess] = {}
        self.refusal: Exception | None = None

    @asynccontextmanager
    async def run(self, order: Order, place: Place) -> AsyncIterator[ScriptedProcess]:
        if self.refusal is not None:
            raise self.refusal
        self.processes[order.id] = ScriptedProcess()
        yield self.processes[order.id]


class RecordingLink:
    """A ControllerLink that remembers what it was given, and answers as it is told."""

    def __init__(self) -> None:
        self.sent: list[Chunk | Report | Outcome] = []
        self.owners: list[CommandId] = []
        self.report_answers: list[Accepted | AgentError] = []
        self.outcome_answers: list[Accepted | Incomplete | AgentError] = []
        self.lost: AgentError | None = None
        self.drains = 0

    @property
    def chunks(self) -> list[int]:
        return [item.seq for item in self.sent if isinstance(item, Chunk)]

    @property
    def reports(self) -> list[Report]:
        return [item for item in self.sent if isinstance(item, Report)]

    @property
    def outcomes(self) -> list[Outcome]:
        return [item for item in self.sent if isinstance(item, Outcome)]

    async def register(self, registration: Registration) -> None:
        raise AssertionError("nobody registers here")

    async def send_chunk(self, command_id: CommandId, chunk: Chunk) -> None:
        if self.lost is not None:
            raise self.lost
        self.owners.append(command_id)
        self.sent.append(chunk)

    async def drained(self) -> None:
        self.drains += 1

    async def send_report(self, report: Report) -> Accepted:
        self.sent.append(report)
        answer = self.report_answers.pop(0) if self.report_answers else Accepted()
        if isinstance(answer, AgentError):
            raise answer
        return answer

    async def send_outcome(self, outcome: Outcome) -> Accepted | Incomplete:
        self.sent.append(outcome)
        answer = self.outcome_answers.pop(0) if self.outcome_answers else Accepted()
        if isinstance(answer, AgentError):
            raise answer
        return answer


@dataclass
class AgentCore:
    """The agent without its adapters to the world."""

    max_concurrent: int = 2
    clock: ManualClock = field(default_factory=ManualClock)
    journal: InMemoryJournal = field(default_factory=InMemoryJournal)
    executor: ScriptedExecutor = field(default_factory=ScriptedExecutor)
    spool: InMemorySpool = field(default_factory=lambda: InMemorySpool(1 << 20))

    def __post_init__(self) -> None:
        self.time = ControllerTime(self.clock)
        self.delivery = Delivery(self.spool, self.journal, self.clock)
        executors: Mapping[ExecutionType, Executor] = {ExecutionType.LOCAL: self.executor}
        self.supervisor = Supervisor(
            RunExecution(executors=executors, time=self.time),
            journal=self.journal,
            delivery=self.delivery,
            clock=self.clock,
            max_concurrent=self.max_concurrent,
        )

    async def submit(self, order: Order) -> None:
        """What AcceptOrder does with a good order."""
        assert await self.journal.accept(order, now=self.clock.now())
        self.supervisor.submit(order)
        await settle()

    async def end_all(self) -> None:
        """Let every process end, so that nothing is left to wait for."""
        while running := [p for p in self.executor.processes.values() if not p.has_ended]:
            for process in running:
                process.end()
            await self.clock.advance(10)

    def process(self, command_id: str = "c") -> ScriptedProcess:
        return self.executor.processes[CommandId(command_id)]

    async def outcomes(self) -> dict[str, Outcome]:
        """Every outcome that the delivery holds, by its command; each is delivered with it."""
        link = RecordingLink()
        await self.deliver(link)
        return {outcome.command_id: outcome for outcome in link.outcomes}

    async def deliver(
        self, link: RecordingLink, resume: Mapping[CommandId, Position] | None = None
    ) -> None:
        """Serve until everything waits."""
        serving = asyncio.create_task(self.delivery.serve(link, resume or {}))
        await settle()
        serving.cancel()
        await asyncio.wait({serving})
        if not serving.cancelled():
            serving.result()
