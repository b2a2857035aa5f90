"""One execution under way: its process, and what is asked of it."""

import asyncio
import logging
from typing import Final

from agent.application.delivery import Delivery
from agent.application.ports.clock import Clock
from agent.application.ports.executor import RunningProcess
from agent.application.ports.journal import Journal
from agent.domain.errors import AgentError, JournalUnavailable
from agent.domain.models.execution import Execution, Failure, State, StopFailure
from agent.domain.models.executor import Place
from agent.domain.stopping import Force

log = logging.getLogger(__name__)

#: Between two tries to write to a journal that cannot be written.
JOURNAL_RETRY_S: Final = 1.0


class Running:
    """Follows one execution until it is final; what may be asked of it, may be asked any time."""

    def __init__(
        self, execution: Execution, *, journal: Journal, delivery: Delivery, clock: Clock
    ) -> None:
        self.execution = execution
        self._journal = journal
        self._delivery = delivery
        self._clock = clock
        self._process: RunningProcess | None = None
        #: Set when there is a process, or there will be none.
        self.begun = asyncio.Event()

    # --- what may be asked ----------------------------------------------------------------

    async def stop(self, ended_as: State, force: Force, failure: Failure | None = None) -> None:
        """End the whole tree and settle as `ended_as`; in good hands when this returns."""
        await self.begun.wait()
        if self._process is not None:
            await self._process.stop(ended_as, force, failure)

    async def pause(self) -> None:
        """Stop the tree's clock; nothing happens unless it runs."""
        await self._shift(State.RUNNING, State.PAUSED)

    async def resume(self) -> None:
        """Let a paused tree go on; nothing happens unless it is paused."""
        await self._shift(State.PAUSED, State.RUNNING)

    # --- its life -------------------------------------------------------------------------

    async def follow(self, process: RunningProcess, place: Place) -> None:
        """From the start of `process` until the outcome is in the hands of the delivery.

        Cancelled before, it leaves the process alone: another agent may take it over.
        """
        self._process = process
        self._delivery.report(self.execution.start(place, at=process.started_at))
        if process.is_paused:
            self._enter(State.PAUSED)
        self._journal.note(self.execution.id, self.execution.state)
        self.begun.set()
        outcome = self.execution.end(await process.wait())
        self._journal.note(outcome.command_id, outcome.state)
        self._delivery.settle(outcome)

    async def settle_unrun(self, state: State, why: AgentError | Failure | None = None) -> None:
        """Settle as `state`, without a process whose end anybody saw; stored when this returns."""
        failure = Failure(why.code, why.message) if isinstance(why, AgentError) else why
        outcome = self.execution.end_unrun(state, at=self._clock.now(), failure=failure)
        while True:
            try:
                await self._journal.settle(outcome)
                break
            except JournalUnavailable as exc:
                log.error("the end of command %s: %s", outcome.command_id, exc)
                await self._clock.sleep(JOURNAL_RETRY_S)
        self._delivery.settle(outcome)
        self.begun.set()

    def stop_failed(self, failure: StopFailure) -> None:
        """Its tree has outlived being killed."""
        self.execution.stop_failure = failure
        if not self.execution.is_final and self.execution.started_at is not None:
            self._delivery.report(self.execution.report(at=self._clock.now()))

    async def _shift(self, before: State, after: State) -> None:
        await self.begun.wait()
        process = self._process
        if process is None or self.execution.state is not before:
            return
        has_happened = await (process.pause() if after is State.PAUSED else process.resume())
        if has_happened and self.execution.state is before:  # it may have ended meanwhile
            self._enter(after)

    def _enter(self, state: State) -> None:
        self.execution.move(state)
        self._journal.note(self.execution.id, state)
        self._delivery.report(self.execution.report(at=self._clock.now()))
