"""Brings what the executions say to the controller: in order, until it is acknowledged."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

from agent.application.ports.clock import Clock
from agent.application.ports.controller_link import ControllerLink, Held, Incomplete
from agent.application.ports.journal import Journal
from agent.application.ports.spool import Spool
from agent.domain.errors import LinkLost, NotAcknowledged, SpoolUnreadable
from agent.domain.ids import CommandId
from agent.domain.models.execution import Outcome, Report, State
from agent.domain.models.output import START, Chunk, Position

log = logging.getLogger(__name__)

#: Bytes that may be sent and not acknowledged: of one command, of all commands of a session.
COMMAND_WINDOW_BYTES: Final = 2 * 1024 * 1024
SESSION_WINDOW_BYTES: Final = 4 * 1024 * 1024
#: Bytes of output handed to the link before it is given time to send them: what an outcome or a
#: state of another command may have to wait for.
BURST_BYTES: Final = 1024 * 1024
#: What a chunk counts for beside its bytes: each is a message, and a row at the controller.
CHUNK_COSTS_BYTES: Final = 1024
#: A `running` report waits this long, and is not sent where the outcome comes first.
RUNNING_DELAY_S: Final = 0.02
#: Between two tries to send what was not acknowledged.
RESEND_DELAY_S: Final = 1.0


@dataclass(slots=True)
class _Parcel:
    """What the controller is to get of one command, and how far that is."""

    command_id: CommandId
    state: State = State.ACCEPTED
    report: Report | None = None
    outcome: Outcome | None = None
    #: Whether there may be output that was not read yet.
    may_have_more: bool = True
    sent: Position = START
    acknowledged: Position = START
    #: Where each chunk ends that was sent and not acknowledged in this session, and its size.
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    in_flight_bytes: int = 0
    is_queued: bool = False
    has_reporter: bool = False
    #: The controller was told that it has other output than was sent.
    is_disowned: bool = False
    #: Set when there is something new for its reporter.
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def rewind(self, position: Position) -> None:
        self.sent = position
        self.may_have_more = True
        self.in_flight.clear()
        self.in_flight_bytes = 0

    def land(self, position: Position) -> int:
        """Note that all before `position` has arrived; how many bytes are no longer away."""
        landed = 0
        while self.in_flight and self.in_flight[0][0] <= position.next_seq:
            landed += self.in_flight.popleft()[1]
        self.in_flight_bytes -= landed
        self.acknowledged = position
        return landed


class Delivery:
    """Holds each command from its acceptance until the controller has acknowledged its outcome.

    Output stays in the spool until it is acknowledged; the newest report and the outcome of each
    command stay here. While `serve` runs, everything is sent; a new session goes on from where
    the controller says.
    """

    def __init__(self, spool: Spool, journal: Journal, clock: Clock) -> None:
        self._spool = spool
        self._journal = journal
        self._clock = clock
        self._parcels: dict[CommandId, _Parcel] = {}
        self._serving: _Serving | None = None
        self._ended = 0
        self._nothing_ended = asyncio.Event()
        self._nothing_ended.set()

    def open(self, command_id: CommandId) -> None:
        """Hold a command that was accepted; one that is held already stays as it is."""
        self._parcels.setdefault(command_id, _Parcel(command_id))

    @property
    def is_serving(self) -> bool:
        """Whether a session with the controller is open."""
        return self._serving is not None

    def __len__(self) -> int:
        """How many commands are held."""
        return len(self._parcels)

    def held(self) -> list[Held]:
        """Every command whose outcome is not acknowledged."""
        return [Held(p.command_id, p.state, p.sent.next_seq) for p in self._parcels.values()]

    def grown(self, command_id: CommandId) -> None:
        """The spool has more of a command."""
        parcel = self._parcels.get(command_id)
        if parcel is not None:
            parcel.may_have_more = True
            if self._serving is not None:
                self._serving.queue(parcel)

    def report(self, report: Report) -> None:
        """Send where an execution stands; a newer report takes the place of an unsent one."""
        if parcel := self._parcels.get(report.command_id):
            parcel.state, parcel.report = report.state, report
            self._announce(parcel)

    def settle(self, outcome: Outcome) -> None:
        """Send how an execution ended, after everything that the spool has of it."""
        parcel = self._parcels.get(outcome.command_id)
        if parcel is None:  # dropped while it ran: now that it has ended, its output can go
            self._spool.forget(outcome.command_id)
        if parcel is None or parcel.outcome is not None:
            return
        self._spool.finish(outcome.command_id, outcome.written)
        parcel.state, parcel.outcome = outcome.state, outcome
        self._ended += 1
        self._nothing_ended.clear()
        self.grown(outcome.command_id)
        self._announce(parcel)

    async def acknowledge(self, command_id: CommandId, stored: Position) -> None:
        """The controller has stored everything before `stored`; a repeat changes nothing."""
        parcel = self._parcels.get(command_id)
        if parcel is None or not (
            parcel.acknowledged.next_seq < stored.next_seq <= parcel.sent.next_seq
        ):
            return
        landed = parcel.land(stored)
        self._spool.acknowledge(command_id, stored)
        if self._serving is not None:
            self._serving.landed(parcel, landed)

    async def drop(self, command_id: CommandId) -> None:
        """Forget a command: its outcome was acknowledged, or nobody wants it."""
        parcel = self._parcels.pop(command_id, None)
        if parcel is None:
            return
        # The id first: what is gone from the spool is never started again.
        await self._journal.release(command_id, now=self._clock.now())
        if parcel.outcome is not None:  # else it runs, and is forgotten once it has ended
            self._ended -= 1
            self._spool.forget(command_id)
        if self._serving is not None:
            self._serving.landed(parcel, parcel.in_flight_bytes)
        if not self._ended:
            self._nothing_ended.set()

    async def flushed(self) -> None:
        """Return when the controller has acknowledged every outcome that there is."""
        await self._nothing_ended.wait()

    async def serve(self, link: ControllerLink, resume: Mapping[CommandId, Position]) -> None:
        """Send over `link`, from `resume` on, until cancelled or until LinkLost is raised.

        LinkLost also ends a session in which a command had to be dropped that the controller
        still waits for: it learns of that when the next one is registered.
        """
        serving = _Serving(self, self._spool, self._clock, link)
        self._serving = serving
        try:
            for parcel in list(self._parcels.values()):
                self._go_on_from(parcel, resume.get(parcel.command_id, parcel.acknowledged))
            await serving.run(self._parcels)
        finally:
            self._serving = None
            for parcel in self._parcels.values():
                parcel.has_reporter = parcel.is_queued = False

    def _go_on_from(self, parcel: _Parcel, stored: Position) -> None:
        parcel.acknowledged = stored
        parcel.rewind(stored)
        self._spool.seek(parcel.command_id, stored)
        self._spool.acknowledge(parcel.command_id, stored)

    def _announce(self, parcel: _Parcel) -> None:
        parcel.news.set()
        if self._serving is not None:
            self._serving.attend(parcel)

    def holds(self, parcel: _Parcel) -> bool:
        """Whether the parcel is still to be delivered."""
        return self._parcels.get(parcel.command_id) is parcel


class _Serving:
    """One session: chunks go round among the commands, reports and outcomes pass them."""

    def __init__(
        self, delivery: Delivery, spool: Spool, clock: Clock, link: ControllerLink
    ) -> None:
        self._delivery = delivery
        self._spool = spool
        self._clock = clock
        self._link = link
        self._tasks = asyncio.TaskGroup()
        self._queue: deque[_Parcel] = deque()
        self._wake = asyncio.Event()
        self._in_flight_bytes = 0
        self._burst = 0
        self._lost: LinkLost | None = None
        self._is_open = False

    async def run(self, parcels: Mapping[CommandId, _Parcel]) -> None:
        """Send until cancelled; raises LinkLost."""
        try:
            async with self._tasks:
                try:
                    self._take_up(parcels)
                    await self._send_chunks()
                finally:  # a task that came now would not be cancelled with the others
                    self._is_open = False
        except* LinkLost as lost:
            raise LinkLost(str(lost.exceptions[0])) from None

    def _take_up(self, parcels: Mapping[CommandId, _Parcel]) -> None:
        self._is_open = True
        for parcel in parcels.values():
            self.queue(parcel)
            if parcel.report is not None or parcel.outcome is not None:
                self.attend(parcel)

    def queue(self, parcel: _Parcel) -> None:
        """Give the parcel its turn, if it may have something to send and may send it."""
        is_due = parcel.may_have_more and parcel.in_flight_bytes < COMMAND_WINDOW_BYTES
        if is_due and not parcel.is_queued and self._delivery.holds(parcel):
            parcel.is_queued = True
            self._queue.append(parcel)
            self._wake.set()

    def landed(self, parcel: _Parcel, size: int) -> None:
        """`size` bytes of the parcel are no longer on their way."""
        self._in_flight_bytes -= size
        self._wake.set()
        parcel.news.set()
        self.queue(parcel)

    def attend(self, parcel: _Parcel) -> None:
        """See to it that the parcel's reports and outcome are sent."""
        if self._is_open and not parcel.has_reporter:
            parcel.has_reporter = True
            self._tasks.create_task(self._report(parcel), name=f"report {parcel.command_id}")

    # --- chunks ---------------------------------------------------------------------------

    async def _send_chunks(self) -> None:
        while self._lost is None:
            parcel = self._next()
            if parcel is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._send_next(parcel)
            self.queue(parcel)
            if self._burst >= BURST_BYTES:
                self._burst = 0
                await self._link.drained()
        raise self._lost

    def _next(self) -> _Parcel | None:
        """Whose turn it is: one that has nothing on its way waits for nobody's window."""
        for _ in range(len(self._queue)):
            parcel = self._queue.popleft()
            if self._in_flight_bytes < SESSION_WINDOW_BYTES or not parcel.in_flight_bytes:
                parcel.is_queued = False
                return parcel
            self._queue.append(parcel)
        return None

    async def _send_next(self, parcel: _Parcel) -> None:
        """Send the next chunk, if there is one."""
        try:
            chunk = self._spool.next_chunk(parcel.command_id)
        except SpoolUnreadable as exc:
            log.warning("command %s: %s; it is tried again", parcel.command_id, exc)
            self._tasks.create_task(self._try_later(parcel), name=f"retry {parcel.command_id}")
            parcel.may_have_more = False
            return
        if chunk is None:
            parcel.may_have_more = False
            parcel.news.set()
            return
        self._launch(parcel, chunk)
        await self._link.send_chunk(parcel.command_id, chunk)

    async def _try_later(self, parcel: _Parcel) -> None:
        await self._clock.sleep(RESEND_DELAY_S)
        self._delivery.grown(parcel.command_id)

    def _launch(self, parcel: _Parcel, chunk: Chunk) -> None:
        size = len(chunk.data) + CHUNK_COSTS_BYTES
        parcel.sent = chunk.after
        parcel.in_flight.append((parcel.sent.next_seq, size))
        parcel.in_flight_bytes += size
        self._in_flight_bytes += size
        self._burst += size

    async def _give_up(self, parcel: _Parcel, why: str) -> NoReturn:
        """Drop the parcel, and end the session: the next registration tells the controller."""
        log.error("command %s cannot be delivered: %s", parcel.command_id, why)
        await self._delivery.drop(parcel.command_id)
        raise LinkLost(f"a new session has to settle command {parcel.command_id}")

    # --- reports and outcomes -------------------------------------------------------------

    async def _report(self, parcel: _Parcel) -> None:
        try:
            if parcel.outcome is None:
                await self._delay(parcel)
            while self._delivery.holds(parcel):
                parcel.news.clear()
                await self._report_next(parcel)
        except LinkLost as exc:  # raised where everything ends in order
            self._end(exc)
        except Exception:  # the supervisor of a loop: one command's bug is not the agent's end
            log.exception("command %s cannot be told of: it is given up", parcel.command_id)
            with contextlib.suppress(LinkLost):
                await self._give_up(parcel, "the agent failed; its log says why")
            self._end(LinkLost(f"a new session has to settle command {parcel.command_id}"))

    def _end(self, lost: LinkLost) -> None:
        self._lost = lost
        self._wake.set()

    async def _report_next(self, parcel: _Parcel) -> None:
        if parcel.outcome is not None and not parcel.may_have_more:
            await self._deliver_outcome(parcel, parcel.outcome)
        elif parcel.outcome is None and parcel.report is not None:
            await self._deliver_report(parcel, parcel.report)
        else:
            await parcel.news.wait()

    async def _delay(self, parcel: _Parcel) -> None:
        """Give a short command the time to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RUNNING_DELAY_S):
                while parcel.outcome is None:
                    parcel.news.clear()
                    await parcel.news.wait()

    async def _deliver_report(self, parcel: _Parcel, report: Report) -> None:
        try:
            answer = await self._link.send_report(report)
        except NotAcknowledged as exc:
            log.warning("a state of %s is sent again: %s", parcel.command_id, exc)
            await self._clock.sleep(RESEND_DELAY_S)
            return
        if answer.refusal is not None:
            log.warning("a state of %s was refused: %s", parcel.command_id, answer.refusal)
        if parcel.report is report:
            parcel.report = None

    async def _deliver_outcome(self, parcel: _Parcel, outcome: Outcome) -> None:
        totals = self._spool.totals(parcel.command_id)
        try:
            answer = await self._link.send_outcome(outcome, totals)
        except NotAcknowledged as exc:
            log.warning("the outcome of %s is sent again: %s", parcel.command_id, exc)
            await self._clock.sleep(RESEND_DELAY_S)
            return
        if isinstance(answer, Incomplete):
            await self._settle_difference(parcel, answer.stored)
            return
        if answer.refusal is not None:
            if not answer.is_unknown:
                await self._give_up(parcel, f"its outcome was refused: {answer.refusal}")
            log.warning("the outcome of %s was refused: %s", parcel.command_id, answer.refusal)
        await self._delivery.drop(parcel.command_id)

    async def _settle_difference(self, parcel: _Parcel, stored: Position) -> None:
        """Send again from where the controller stands; where it has all and disagrees, say so."""
        if stored == parcel.sent and parcel.is_disowned:
            await self._give_up(parcel, "the controller takes no account of its output")
        if stored == parcel.sent:
            parcel.is_disowned = True
            log.error(
                "command %s: the controller has other output than was sent; it is told that "
                "none of it is proven",
                parcel.command_id,
            )
            self._spool.disown(parcel.command_id)
            return
        log.info("command %s is sent again from chunk %d", parcel.command_id, stored.next_seq)
        self._in_flight_bytes -= parcel.in_flight_bytes
        parcel.rewind(stored)
        self._spool.seek(parcel.command_id, stored)
        self.queue(parcel)
