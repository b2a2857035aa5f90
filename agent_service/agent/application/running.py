"""One execution under way: its process, its output, and what is asked of it."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final

from agent.application.delivery import Delivery
from agent.application.ports.clock import Clock
from agent.application.ports.executor import RunningProcess
from agent.application.ports.journal import Journal
from agent.application.stopping import KILL_GRACE_S, Force, TreeStop
from agent.domain.errors import AgentError, EndUnknown
from agent.domain.models.execution import Execution, Failure, Outcome, State, StopFailure
from agent.domain.models.executor import Exit, Impulse, Place
from agent.domain.models.output import Chunk, Transcript

#: How long pipes that children still hold are read after the first process has ended.
CHILDREN_READ_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _WantedStop:
    ended_as: State
    force: Force
    failure: Failure | None


class Running:
    """Follows one execution until it is final; what may be asked of it, may be asked any time."""

    def __init__(
        self, execution: Execution, *, journal: Journal, delivery: Delivery, clock: Clock
    ) -> None:
        self.execution = execution
        self._journal = journal
        self._delivery = delivery
        self._clock = clock
        self._transcript = Transcript(execution.order.max_output_bytes)
        self._process: RunningProcess | None = None
        self._tasks = asyncio.TaskGroup()
        self._stop: TreeStop | None = None
        self._wanted: _WantedStop | None = None
        self._end_unknown: Failure | None = None
        self._is_exited = False
        self._signals = asyncio.Lock()  # one impulse after the other, in the order asked for

    # --- what may be asked ----------------------------------------------------------------

    def stop(self, ended_as: State, force: Force, failure: Failure | None = None) -> None:
        """End the whole tree and settle as `ended_as`; the first reason counts, any may hurry.

        Nothing happens once the first process has ended by itself.
        """
        if self._is_exited and self._stop is None:
            return
        if self._wanted is None:
            self._wanted = _WantedStop(ended_as, force, failure)
        if self._stop is not None:
            self._stop.insist(force)
        elif self._process is not None:
            self._begin_stop(self._process, force)

    def pause(self) -> None:
        """Stop the tree's clock; nothing happens unless it runs."""
        self._ask(self._shift(Impulse.PAUSE, State.RUNNING, State.PAUSED))

    def resume(self) -> None:
        """Let a paused tree go on; nothing happens unless it is paused."""
        self._ask(self._shift(Impulse.CONTINUE, State.PAUSED, State.RUNNING))

    # --- its life -------------------------------------------------------------------------

    async def follow(self, process: RunningProcess, place: Place) -> None:
        """From the start of `process` until the outcome is in the hands of the delivery.

        Cancelled before, it kills the tree.
        """
        report = self.execution.start(place, at=self._clock.now())
        self._process = process
        self._delivery.report(report)
        try:
            process_exit = await self._until_ended(process)
        except BaseException:
            await self._kill(process)
            raise
        if self._wanted is not None and self._stop is not None and self._stop.found_any:
            await self._settle(self._wanted.ended_as, process_exit, self._wanted.failure)
        elif self._end_unknown is not None:
            await self._settle(State.LOST, None, self._end_unknown)
        else:
            await self._settle(State.EXITED, process_exit, None)

    async def settle_unrun(self, state: State, why: AgentError | Failure | None = None) -> None:
        """Settle as `state`, without a process; `lost` where there once was one."""
        failure = Failure(why.code, why.message) if why is not None else None
        await self._settle(state, None, failure)

    async def _settle(
        self, state: State, process_exit: Exit | None, failure: Failure | None
    ) -> None:
        outcome: Outcome = self.execution.end(
            state,
            self._transcript.totals(),
            at=self._clock.now(),
            process_exit=process_exit,
            failure=failure,
        )
        await self._journal.move(self.execution.id, state)
        self._delivery.settle(outcome)

    async def _until_ended(self, process: RunningProcess) -> Exit | None:
        async with self._tasks as tasks:
            copying = tasks.create_task(self._copy_output(process))
            timeout_s = self.execution.order.timeout_s
            deadline = tasks.create_task(self._deadline(timeout_s)) if timeout_s else None
            if self._wanted is not None:  # asked for while the process was being started
                self._begin_stop(process, self._wanted.force)
            await self._journal.move(self.execution.id, self.execution.state)
            process_exit = await self._end_of(process)
            self._is_exited = True
            if deadline is not None:
                deadline.cancel()
            if self._stop is not None:
                await self._stop.gone.wait()
            done, _ = await asyncio.wait({copying}, timeout=CHILDREN_READ_S)
            if not done:
                process.abandon_output()
        return process_exit

    async def _end_of(self, process: RunningProcess) -> Exit | None:
        try:
            return await process.wait()
        except EndUnknown as exc:
            self._end_unknown = Failure(exc.code, exc.message)
            return None

    async def _copy_output(self, process: RunningProcess) -> None:
        while pieces := await process.read():
            at = self._clock.now()
            for piece in pieces:
                await self._append(self._transcript.feed(piece, at=at))
        await self._append(self._transcript.finish(at=self._clock.now()))

    async def _append(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            await self._delivery.append(self.execution.id, chunk)

    async def _deadline(self, timeout_s: float) -> None:
        await self._clock.sleep(timeout_s)
        message = f"the command was stopped after its timeout of {timeout_s:g} s"
        self.stop(State.TIMED_OUT, Force.ASK, Failure("timed_out", message))

    async def _kill(self, process: RunningProcess) -> None:
        stop = TreeStop(process=process, clock=self._clock, failed=lambda _: None, force=Force.KILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_GRACE_S):
                await stop.run()

    # --- signals --------------------------------------------------------------------------

    def _begin_stop(self, process: RunningProcess, force: Force) -> None:
        self._stop = TreeStop(
            process=process, clock=self._clock, failed=self._stop_failed, force=force
        )
        self._ask(self._run_stop(self._stop))

    async def _run_stop(self, stop: TreeStop) -> None:
        async with self._signals:
            await stop.run()

    def _stop_failed(self, failure: StopFailure) -> None:
        self.execution.stop_failure = failure
        self._delivery.report(self.execution.report(at=self._clock.now()))

    async def _shift(self, impulse: Impulse, before: State, after: State) -> None:
        async with self._signals:
            if self._process is None or not self._may_shift(before):
                return
            await self._process.signal(impulse)
            if self._may_shift(before):  # it may have ended meanwhile
                self.execution.move(after)
                await self._journal.move(self.execution.id, after)
                self._delivery.report(self.execution.report(at=self._clock.now()))

    def _may_shift(self, before: State) -> bool:
        return self.execution.state is before and not self._is_exited and self._stop is None

    def _ask(self, doing: Coroutine[None, None, None]) -> None:
        if self._process is None or self._is_exited:
            doing.close()
            return
        self._tasks.create_task(doing)
