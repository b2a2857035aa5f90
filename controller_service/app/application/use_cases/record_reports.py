"""Take what an agent reports about one command: its beginning, its output, its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.application.event_bus import EventBus
from app.application.ports.clock import Clock
from app.application.ports.repositories import CommandRepository
from app.domain.errors import CommandNotFound, OutputGap, OutputOverrun
from app.domain.ids import CommandId
from app.domain.models.agent import Session
from app.domain.models.command import Beginning, Command, Outcome, Settlement, StopFailure
from app.domain.models.output import Chunk, OutputTotals
from app.domain.models.states import State


@dataclass(frozen=True, slots=True)
class StateReport:
    """The command is in `state` on its agent; `beginning` once a process exists."""

    state: State
    beginning: Beginning | None = None
    stop_failure: StopFailure | None = None


Report = StateReport | Chunk | Outcome


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is durably stored of a command after its reports.

    `is_known` is false for a command that is not this agent's; `is_settled` says that the
    outcome was taken, now or before; `has_gap` that a chunk was refused because something before
    it is missing; `is_overrun` that one was refused because it goes beyond what the order allows;
    `is_different` that an outcome was refused because other bytes are stored than
    its agent sent.
    """

    stored: OutputTotals
    is_settled: bool
    is_known: bool = True
    has_gap: bool = False
    is_overrun: bool = False
    is_different: bool = False


@dataclass(slots=True)
class _Taken:
    """What became of the reports, noted in the transaction and read after it."""

    has_gap: bool = False
    is_overrun: bool = False
    settlement: Settlement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordReports:
    """Apply an agent's reports about one command, in order, in one transaction.

    Repeats change nothing. A chunk that leaves a gap, or goes beyond what the order allows, ends
    the taking: what is stored, as it comes back, tells the agent from where to send again. Raises
    StaleSession for an older session.
    """

    commands: CommandRepository
    bus: EventBus
    clock: Clock

    async def __call__(
        self, session: Session, command_id: CommandId, reports: Sequence[Report]
    ) -> Recorded:
        """Store what can be stored, announce it, and say what is stored now."""
        taken = _Taken()

        def apply(command: Command) -> None:
            self._apply(command, reports, taken)

        try:
            command = await self.commands.change(command_id, apply, session=session)
        except CommandNotFound:
            return Recorded(OutputTotals(), is_settled=False, is_known=False)
        self.bus.publish(command.pull_events())
        return Recorded(
            command.stored,
            is_settled=command.is_final,
            has_gap=taken.has_gap,
            is_overrun=taken.is_overrun,
            is_different=taken.settlement is Settlement.DIGEST_MISMATCH,
        )

    def _apply(self, command: Command, reports: Sequence[Report], taken: _Taken) -> None:
        now = self.clock.now()
        for report in reports:
            if isinstance(report, Chunk):
                try:
                    command.append(report)
                except OutputGap:
                    taken.has_gap = True
                    return
                except OutputOverrun:
                    taken.is_overrun = True
                    command.note_overrun(at=now)
                    return
            elif isinstance(report, Outcome):
                taken.settlement = command.settle(report, at=now)
            else:
                _apply_state(command, report, at=now)


def _apply_state(command: Command, report: StateReport, *, at: datetime) -> None:
    if command.is_final:
        return
    if report.beginning is not None:
        command.begin(report.beginning, at=at)
    else:
        command.acknowledge(at=at)
    if report.stop_failure is not None:
        command.stop_failure = report.stop_failure
    moves_between = {State.RUNNING, State.PAUSED}
    if command.state is not report.state and {command.state, report.state} <= moves_between:
        command.move(report.state, at=at)
