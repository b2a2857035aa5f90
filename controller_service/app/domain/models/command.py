"""A command: one line of shell for one agent, and its life on the controller."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from app.domain.errors import IllegalMove, InvalidState, OutputOverrun
from app.domain.events import CommandMoved, CommandQueued, Event, OutputAppended
from app.domain.ids import AgentId, CommandId, UserName
from app.domain.models.digests import DigestBlock, OutputDigests
from app.domain.models.lines import LineCount, LineMark, marks_between
from app.domain.models.order import QueuedRun, SealedOrder
from app.domain.models.output import Chunk, Missing, OutputTotals, Stream
from app.domain.models.states import ALLOWED, FINAL, NEXT, STOPS, Action, State

#: Times that an agent may send more than the order allows; its command is lost then.
OVERRUNS_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed, was lost or was rejected: a stable word and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StopFailure:
    """Why a stop could not be completed, and the processes that are left."""

    code: str
    message: str
    pids: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """That a process exists: since when, and by which executor."""

    started_at: datetime
    execution_type: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an execution ended, as its agent reports it.

    `*_written` counts what was written; `*_stored` and the digests cover what was sent. A digest
    is empty where the agent cannot vouch for the stream, or where nothing of it was sent.
    """

    state: State
    finished_at: datetime
    next_seq: int = 0
    beginning: Beginning | None = None
    exit_code: int | None = None
    signal: str | None = None
    stdout_written: int = 0
    stderr_written: int = 0
    stdout_stored: int = 0
    stderr_stored: int = 0
    stdout_digest: str = ""
    stderr_digest: str = ""
    missing: Sequence[Missing] = ()
    failure: Failure | None = None
    stop_failure: StopFailure | None = None

    @property
    def is_consistent(self) -> bool:
        """Whether the state says what the exit code, signal and failure say."""
        if self.state is State.SUCCEEDED:
            return self.exit_code == 0 and self.signal is None and self.failure is None
        if self.state is State.FAILED:
            is_code = self.exit_code is not None and self.exit_code != 0
            return is_code or self.signal is not None or self.failure is not None
        return True

    @property
    def totals(self) -> OutputTotals:
        """What must be stored here before the outcome is taken."""
        return OutputTotals(self.next_seq, self.stdout_stored, self.stderr_stored)

    def is_of(self, stored: OutputTotals, digests: OutputDigests) -> bool:
        """Whether the bytes that are stored are those that its agent sent.

        A stream without a digest is believed only where there is nothing to compare, or where the
        agent itself names a part of it that is missing.
        """
        return all(
            digests.of(stream).hexdigest() == digest
            if digest
            else stored.bytes_of(stream) == 0 or any(m.stream is stream for m in self.missing)
            for stream, digest in (
                (Stream.STDOUT, self.stdout_digest),
                (Stream.STDERR, self.stderr_digest),
            )
        )


class Settlement(Enum):
    """What became of an outcome: taken, or why its agent has to send something again."""

    TAKEN = auto()
    INCOMPLETE = auto()
    DIGEST_MISMATCH = auto()


@dataclass(slots=True, kw_only=True)
class Command:
    """One command line, for one agent; `exit_code` is None until its process has ended.

    `offered_epoch` is the agent's newest session in which it may have been sent: None means that
    no agent can know of it. `execution_target` is what will be used, `auto` resolved. `digests`
    cover what is stored while it may change; a copy to look at goes without. `max_output_bytes`
    bounds what is stored of both streams together, as its order says; `overruns` counts the times
    that its agent sent more. `started_at` and `finished_at` are its agent's word as far as that can
    be; `settled_at` is when it became final here.
    """

    id: CommandId
    agent_id: AgentId
    text: str
    execution_target: str
    requester: UserName
    created_at: datetime
    expires_at: datetime
    max_output_bytes: int
    timeout_s: float | None = None
    state: State = State.QUEUED
    moved_at: datetime | None = None
    offered_epoch: int | None = None
    dispatched_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    settled_at: datetime | None = None
    execution_type: str | None = None
    target: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    failure: Failure | None = None
    stop_failure: StopFailure | None = None
    requested_action: Action | None = None
    stored: OutputTotals = field(default_factory=OutputTotals)
    lines: LineCount = field(default_factory=LineCount)
    digests: OutputDigests = field(default_factory=OutputDigests, repr=False, compare=False)
    stdout_written: int | None = None
    stderr_written: int | None = None
    missing: Sequence[Missing] = ()
    overruns: int = 0
    _events: list[Event] = field(default_factory=list, repr=False, compare=False)
    _chunks: list[Chunk] = field(default_factory=list, repr=False, compare=False)
    _marks: list[LineMark] = field(default_factory=list, repr=False, compare=False)
    _blocks: list[DigestBlock] = field(default_factory=list, repr=False, compare=False)

    @property
    def is_final(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.state in FINAL

    @property
    def is_truncated(self) -> bool:
        """Whether more was written than is stored."""
        return any(self.bytes_written(stream) > self.stored.bytes_of(stream) for stream in Stream)

    @property
    def is_output_complete(self) -> bool:
        """Whether no part of its output is known, or has to be feared, to be gone.

        Of one that began and was lost nobody knows how much there was, unless its outcome said so.
        """
        if self.missing:
            return False
        has_begun = self.started_at is not None or self.stored.next_seq > 0
        if self.state is not State.LOST or not has_begun:
            return True
        return self.stdout_written is not None and not self.is_truncated

    def bytes_written(self, stream: Stream) -> int:
        """Bytes that its process wrote to `stream`; until it has ended, those stored so far."""
        written = self.stdout_written if stream is Stream.STDOUT else self.stderr_written
        return max(written or 0, self.stored.bytes_of(stream))

    @property
    def duration_s(self) -> float | None:
        """From its start to its end."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max((self.finished_at - self.started_at).total_seconds(), 0.0)

    def announce(self, sealed: SealedOrder) -> None:
        """Say that it was accepted, with its order; called once, when it is new and stored."""
        run = QueuedRun(self.id, self.offered_epoch, sealed)
        self._events.append(CommandQueued(self.id, self.agent_id, run))

    def move(self, state: State, *, at: datetime) -> None:
        """Enter `state`, or raise IllegalMove and change nothing."""
        if state not in NEXT.get(self.state, ()):
            raise IllegalMove(f"command {self.id} cannot go from {self.state} to {state}")
        self.state = state
        self.moved_at = at
        if state is State.DISPATCHED:
            self.dispatched_at = at
        if state in FINAL:
            self.finished_at = self.settled_at = at
        self._events.append(CommandMoved(self.id, self.agent_id, at, state))

    def offer(self, epoch: int) -> None:
        """Note, before it is sent in session `epoch`, that the agent may know of it from then on.

        The newest session counts: an agent whose journal ends before it may have lost the order.
        Nothing happens to one that is final by now: it must not be sent any more.
        """
        if not self.is_final:
            self.offered_epoch = max(epoch, self.offered_epoch or 0)

    def acknowledge(self, *, at: datetime) -> None:
        """The agent has it in its journal; a repeat changes nothing."""
        if self.state is State.QUEUED:
            self.move(State.DISPATCHED, at=at)

    def begin(self, beginning: Beginning, *, at: datetime) -> None:
        """A process exists; a repeat, or one that comes after the end, changes nothing."""
        started_at = self._believed(beginning.started_at, at)
        self.acknowledge(at=started_at)
        if self.state is not State.DISPATCHED:
            return
        self.started_at = started_at
        self.execution_type = beginning.execution_type
        self.target = beginning.target
        self.move(State.RUNNING, at=at)

    def append(self, chunk: Chunk) -> bool:
        """Take the next chunk; False for one that is stored, or comes after the end.

        Raises OutputGap when something before it is missing, OutputOverrun when it goes beyond
        what the order allows, and takes nothing.
        """
        if self.is_final or self.stored.is_repeat(chunk):
            return False
        before = self.stored
        after = before.after(chunk)
        if not after.is_within(self.max_output_bytes):
            raise OutputOverrun(f"chunk {chunk.seq} of {self.id} goes beyond what its order allows")
        self.stored = after
        self.lines = self.lines.after(chunk)
        self.digests, full = self.digests.after(chunk)
        self._blocks += full
        if marks_between(before, self.stored):
            self._marks.append(LineMark(self.stored, self.lines))
        if not self._chunks:
            self._events.append(OutputAppended(self.id))
        self._chunks.append(chunk)
        return True

    def note_overrun(self, *, at: datetime) -> None:
        """Its agent sent more than the order allows; it is lost where that happens again.

        The agent would otherwise come back and send the same for ever.
        """
        if self.is_final:
            return
        self.overruns += 1
        if self.overruns >= OVERRUNS_MAX:
            message = "its agent sent more output than the order allows, again and again"
            self.lose(Failure("impossible_result", message), at=at)

    def settle(self, outcome: Outcome, *, at: datetime) -> Settlement:
        """Take the outcome if exactly what it counts is stored, byte for byte; else change nothing.

        A repeat of an outcome that was taken changes nothing and is TAKEN. Where its times cannot
        be, by a clock that is wrong, it ended when it is heard of, after as long as it says. One
        that cannot follow the present state tells nothing about how the command ended: it is lost
        then.
        """
        if self.is_final:
            return Settlement.TAKEN
        if outcome.totals != self.stored:
            return Settlement.INCOMPLETE
        if not outcome.is_of(self.stored, self.digests):
            return Settlement.DIGEST_MISMATCH
        ended_at = self._believed(outcome.finished_at, at)
        if outcome.beginning is not None:
            lasted = max(outcome.finished_at - outcome.beginning.started_at, timedelta())
            started_at = ended_at - min(lasted, ended_at - self.created_at)
            self.begin(replace(outcome.beginning, started_at=started_at), at=at)
        else:
            self.acknowledge(at=ended_at)
        self.stdout_written, self.stderr_written = outcome.stdout_written, outcome.stderr_written
        self.missing = tuple(outcome.missing)
        if outcome.state not in NEXT[self.state] & FINAL or not outcome.is_consistent:
            self.lose(_impossible(outcome.state, self.state), at=at)
            return Settlement.TAKEN
        self.move(outcome.state, at=max(ended_at, self.started_at or ended_at))
        self.settled_at = at
        self.exit_code, self.signal = outcome.exit_code, outcome.signal
        self.failure, self.stop_failure = outcome.failure, outcome.stop_failure
        return Settlement.TAKEN

    def _believed(self, said: datetime, at: datetime) -> datetime:
        """When it happened that is heard of at `at`: a time that cannot be is taken for `at`."""
        return said if self.created_at <= said <= at else at

    def request(self, action: Action, *, at: datetime) -> bool:
        """Ask for `action`; True when its agent has to be told.

        Raises InvalidState where it makes no sense. A command that no agent can know of is
        cancelled at once.
        """
        if self.state not in ALLOWED[action]:
            raise InvalidState(f"command {self.id} is {self.state}: {action} is not possible")
        if self.requested_action in STOPS and action not in STOPS:
            raise InvalidState(f"command {self.id} is being stopped: {action} is not possible")
        if self.requested_action is Action.KILL and action is Action.CANCEL:
            return False  # the stronger of the two is on its way
        self.requested_action = action
        if self.offered_epoch is not None:
            return True
        self.move(State.CANCELLED, at=at)
        return False

    def stop_unheard(self, *, at: datetime) -> bool:
        """Cancel it if it is to be stopped and still queued: it must not be started first.

        Only where its agent is known not to have it. False, and nothing happens, otherwise.
        """
        if self.state is not State.QUEUED or self.requested_action not in STOPS:
            return False
        self.move(State.CANCELLED, at=at)
        return True

    def refuse_request(self, action: Action, failure: Failure) -> None:
        """Its agent will not do `action`; a stop that failed is said on the command.

        Nothing happens where something else has been asked for since: that has its own answer.
        """
        if self.requested_action is not action:
            return
        if action in STOPS:
            self.stop_failure = StopFailure(failure.code, failure.message)
        self.requested_action = None

    def lose(self, failure: Failure, *, at: datetime) -> None:
        """Give up knowing how it ended; nothing happens to a final one."""
        if not self.is_final:
            self.move(State.LOST, at=at)
            self.failure = failure

    def reject(self, failure: Failure, *, at: datetime) -> None:
        """Refuse it for good: nothing ran. Nothing happens to one that ran or is final."""
        if State.REJECTED in NEXT.get(self.state, ()):
            self.move(State.REJECTED, at=at)
            self.failure = failure

    def expire(self, *, at: datetime) -> bool:
        """Reject it if it was never offered and its time has passed."""
        if self.state is not State.QUEUED or self.offered_epoch is not None:
            return False
        if at < self.expires_at:
            return False
        message = "it was not started in time: the agent did not come back before expires_in"
        self.reject(Failure("expired", message), at=at)
        return True

    def pull_events(self) -> list[Event]:
        """What happened since the last call; afterwards there is nothing left to tell."""
        events, self._events = self._events, []
        return events

    @property
    def new_chunks(self) -> Sequence[Chunk]:
        """Chunks taken that `pull_chunks` has not given yet."""
        return tuple(self._chunks)

    def snapshot(self) -> "Command":
        """A copy of what is stored of it: nothing to tell and nothing to store."""
        twin = copy(self)
        twin._events, twin._chunks, twin._marks, twin._blocks = [], [], [], []
        twin.digests = OutputDigests()
        return twin

    def pull_chunks(self) -> list[Chunk]:
        """Chunks taken since the last call, for the repository to store."""
        chunks, self._chunks = self._chunks, []
        return chunks

    def pull_marks(self) -> list[LineMark]:
        """Marks that fell due since the last call, for the repository to store."""
        marks, self._marks = self._marks, []
        return marks

    def pull_blocks(self) -> list[DigestBlock]:
        """Blocks that became full since the last call, for the repository to store."""
        blocks, self._blocks = self._blocks, []
        return blocks


def _impossible(reported: State, state: State) -> Failure:
    return Failure(
        "impossible_result",
        f"its agent reported {reported} of a command that was {state}, or with an exit code that "
        "says something else: how it ended is not known",
    )
