"""The agent's outside, driven by hand: time that stands still, processes that do as told."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.application.controller_time import ControllerTime
from agent.application.delivery import Delivery
from agent.application.ports.controller_link import Accepted, Incomplete, Registration
from agent.application.ports.executor import Executor, StopFailed
from agent.application.supervisor import Supervisor
from agent.application.use_cases.run_execution import RunExecution
from agent.domain.errors import AgentError, JournalUnavailable, NeverStarted, StartedBefore
from agent.domain.ids import AgentId, CommandId
from agent.domain.models.execution import Ending, Failure, Outcome, Report, State, StopFailure
from agent.domain.models.executor import ExecutionType, Exit, Place
from agent.domain.models.order import Order
from agent.domain.models.output import Chunk, Counts, OutputTotals, Piece, Position, Stream
from agent.domain.models.transmission import Written
from agent.domain.stopping import Force
from agent.infrastructure.storage.in_memory_journal import InMemoryJournal
from agent.infrastructure.storage.in_memory_spool import InMemoryRecording, InMemorySpool

NOW = datetime(2026, 11, 21, 5, 44, tzinfo=UTC)
HERE = AgentId("web-1")
C = CommandId("c")
LOCAL = Place(ExecutionType.LOCAL)
RUNNER = "runner-1"


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
    """A RunningProcess that writes and ends when the test says; what is asked is recorded."""

    def __init__(self, order: Order, write: Callable[[Piece], None], failed: StopFailed) -> None:
        self.started_at = NOW
        self.is_paused = False
        self.asked: list[tuple[State, Force] | str] = []
        #: Whether a stop ends it at once; whether a pause or a resume comes in time.
        self.obeys = True
        self.shifts = True
        self.failed = failed
        self.why: Failure | None = None
        self._write = write
        self._counts = dict.fromkeys(Stream, 0)
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    @property
    def has_ended(self) -> bool:
        return self._ending.done()

    def write(self, data: bytes, stream: Stream = Stream.STDOUT) -> None:
        self._write(Piece(stream, self._counts[stream], data, NOW))
        self._counts[stream] += len(data)

    def end(self, process_exit: Exit | None = None, **fields: Any) -> None:
        counts = Counts(*self._counts.values())
        facts = {"finished_at": NOW, "started_at": NOW, "written": Written(counts, counts)}
        self._ending.set_result(
            Ending(**{**facts, "exit": process_exit or Exit(code=0), **fields})  # type: ignore[arg-type]
        )

    async def wait(self) -> Ending:
        return await asyncio.shield(self._ending)

    async def stop(self, ended_as: State, force: Force, failure: Failure | None) -> None:
        self.asked.append((ended_as, force))
        self.why = self.why or failure
        if self.obeys and not self.has_ended:
            self.end(Exit(signal="SIGTERM"), stopped_as=ended_as, failure=self.why)

    async def pause(self) -> bool:
        return self._shift("pause")

    async def resume(self) -> bool:
        return self._shift("resume")

    def _shift(self, word: str) -> bool:
        self.asked.append(word)
        return self.shifts and not self.has_ended


class ScriptedExecutor:
    """An Executor whose processes are ScriptedProcesses; `refusal` is raised instead.

    It outlives the agents that use it, as a runner does; `keeper` is its name. While `gate` is
    cleared, no start is answered.
    """

    def __init__(self) -> None:
        self.keeper = RUNNER
        self.processes: dict[CommandId, ScriptedProcess] = {}
        self.refusal: Exception | None = None
        self.started: list[CommandId] = []
        self.stop_failures: dict[CommandId, StopFailure] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.wrote: Callable[[CommandId, Piece], None] = lambda command_id, piece: None

    async def start(self, order: Order, place: Place, stop_failed: StopFailed) -> ScriptedProcess:
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        if order.id in self.started:
            raise StartedBefore("the command was started before")
        self.started.append(order.id)
        process = ScriptedProcess(order, lambda piece: self.wrote(order.id, piece), stop_failed)
        self.processes[order.id] = process
        return process

    async def take_over(
        self, order: Order, keeper: str, stop_failed: StopFailed
    ) -> ScriptedProcess:
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        if order.id in self.processes:
            self.processes[order.id].failed = stop_failed
            if failure := self.stop_failures.get(order.id):
                stop_failed(failure)
            return self.processes[order.id]
        if keeper == self.keeper:
            raise NeverStarted("the runner has never heard of it")
        raise StartedBefore("the runner is gone")


class FailingJournal(InMemoryJournal):
    """An InMemoryJournal on a disk that is full while `is_full`; `stored` says what it took."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False
        self.stored: list[str] = []

    def _store(self, what: str) -> None:
        if self.is_full:
            raise JournalUnavailable("the disk is full")
        self.stored.append(what)

    async def accept(self, order: Order, *, keeper: str | None, now: datetime) -> bool:
        self._store(f"accept {order.id} {keeper}")
        return await super().accept(order, keeper=keeper, now=now)

    async def start(self, command_id: CommandId, keeper: str) -> None:
        self._store(f"start {command_id} {keeper}")
        await super().start(command_id, keeper)

    async def settle(self, outcome: Outcome) -> None:
        self._store(f"settle {outcome.command_id} {outcome.state}")
        await super().settle(outcome)


class RecordingLink:
    """A ControllerLink that remembers what it was given, and answers as it is told."""

    def __init__(self) -> None:
        self.sent: list[Chunk | Report | Outcome] = []
        self.owners: list[CommandId] = []
        self.totals: list[OutputTotals] = []
        self.report_answers: list[Accepted | AgentError] = []
        self.outcome_answers: list[Accepted | Incomplete | Exception] = []
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

    async def send_outcome(self, outcome: Outcome, totals: OutputTotals) -> Accepted | Incomplete:
        self.sent.append(outcome)
        self.totals.append(totals)
        answer = self.outcome_answers.pop(0) if self.outcome_answers else Accepted()
        if isinstance(answer, Exception):
            raise answer
        return answer


class WatchedSpool(InMemorySpool):
    """An InMemorySpool that remembers what it was told may go, and fails as it is told."""

    def __init__(self, recordings: dict[CommandId, InMemoryRecording]) -> None:
        super().__init__(recordings)
        self.acknowledged: list[tuple[CommandId, int]] = []
        self.forgotten: list[CommandId] = []
        self.failures: list[AgentError] = []

    def next_chunk(self, command_id: CommandId) -> Chunk | None:
        if self.failures:
            raise self.failures.pop(0)
        return super().next_chunk(command_id)

    def acknowledge(self, command_id: CommandId, position: Position) -> None:
        self.acknowledged.append((command_id, position.next_seq))
        super().acknowledge(command_id, position)

    def forget(self, command_id: CommandId) -> None:
        self.forgotten.append(command_id)
        super().forget(command_id)


@dataclass
class AgentCore:
    """The agent without its adapters to the world; `after_a_restart` makes the next one."""

    max_concurrent: int = 2
    clock: ManualClock = field(default_factory=ManualClock)
    journal: FailingJournal = field(default_factory=FailingJournal)
    executor: ScriptedExecutor = field(default_factory=ScriptedExecutor)
    recordings: dict[CommandId, InMemoryRecording] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spool = WatchedSpool(self.recordings)
        self.executor.wrote = self._wrote
        self.time = ControllerTime(self.clock)
        self.delivery = Delivery(self.spool, self.journal, self.clock)
        executors: Mapping[ExecutionType, Executor] = {ExecutionType.LOCAL: self.executor}
        self.supervisor = Supervisor(
            RunExecution(
                executors=executors, journal=self.journal, time=self.time, clock=self.clock
            ),
            journal=self.journal,
            delivery=self.delivery,
            clock=self.clock,
            max_concurrent=self.max_concurrent,
        )

    def _wrote(self, command_id: CommandId, piece: Piece) -> None:
        self.spool.write(command_id, piece)
        self.delivery.grown(command_id)

    def after_a_restart(self) -> "AgentCore":
        """Another agent over what survives one: the journal, the spool, and what runs."""
        return AgentCore(
            self.max_concurrent, self.clock, self.journal, self.executor, self.recordings
        )

    async def take_up(self, *, is_confirmed: bool = True) -> None:
        """What a start does with what the journal holds, and a first session confirms."""
        for entry in self.journal.unfinished():
            self.supervisor.take_up(entry)
        await settle()
        if is_confirmed:
            self.supervisor.confirm()
            await settle()

    async def submit(self, order: Order) -> None:
        """What AcceptOrder does with a good order."""
        keeper = self.supervisor.reserve(order)
        assert await self.journal.accept(order, keeper=keeper, now=self.clock.now())
        self.supervisor.submit(order, keeper)
        await settle()

    async def end_all(self) -> None:
        """Let every process end, so that nothing is left to wait for."""
        self.journal.is_full = False
        self.executor.gate.set()
        await self.clock.advance(10)
        while running := [p for p in self.executor.processes.values() if not p.has_ended]:
            for process in running:
                process.end()
            await self.clock.advance(10)

    def process(self, command_id: str = "c") -> ScriptedProcess:
        return self.executor.processes[CommandId(command_id)]

    def state(self, command_id: str = "c") -> State | None:
        """Where the journal says that a command stands."""
        known = self.journal.known(CommandId(command_id))
        return known.state if known else None

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
