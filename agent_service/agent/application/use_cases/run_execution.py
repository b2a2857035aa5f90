"""Carry out one order."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from agent.application.controller_time import ControllerTime
from agent.application.ports.clock import Clock
from agent.application.ports.executor import Executor, RunningProcess
from agent.application.ports.journal import Journal
from agent.application.running import JOURNAL_RETRY_S, Running
from agent.domain.errors import (
    CannotStart,
    JournalUnavailable,
    NoExecutor,
    NoRoomToStart,
    OrderExpired,
    StartedBefore,
)
from agent.domain.ids import CommandId
from agent.domain.models.execution import State
from agent.domain.models.executor import ExecutionType, Place
from agent.domain.models.order import Order
from agent.domain.selection import select_place

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExecution:
    """Start the process of an order, unless its time has passed, and follow it to its end.

    Who is to start it is in the journal before that. However it comes out, the outcome is in the
    hands of the delivery afterwards.
    """

    executors: Mapping[ExecutionType, Executor]
    journal: Journal
    time: ControllerTime
    clock: Clock

    def keeper_for(self, order: Order) -> str | None:
        """Who would start it now; None where nobody can."""
        try:
            return self._executor(order).keeper
        except NoExecutor:
            return None

    async def __call__(self, running: Running, keeper: str | None) -> None:
        """Start it; `keeper` is who the journal says starts it. Returns when it is final."""
        order = running.execution.order
        try:
            executor = self._executor(order)
            process, place = await self._started(running, executor, keeper)
        except OrderExpired as exc:
            await running.settle_unrun(State.REJECTED, exc)
        except CannotStart as exc:
            await running.settle_unrun(State.FAILED, exc)
        except StartedBefore as exc:
            await running.settle_unrun(State.LOST, exc)
        else:
            await running.follow(process, place)

    async def take_over(self, running: Running, keeper: str) -> None:
        """Follow what `keeper` was to start for an earlier process of this agent to its end.

        Raises NeverStarted where it certainly was not: then it may be started now.
        """
        order = running.execution.order
        try:
            place = select_place(order.target, self.executors.keys())
            executor = self.executors[place.execution_type]
            process = await executor.take_over(order, keeper, running.stop_failed)
        except (StartedBefore, NoExecutor) as exc:
            await running.settle_unrun(State.LOST, exc)
        else:
            await running.follow(process, place)

    async def _started(
        self, running: Running, executor: Executor, keeper: str | None
    ) -> tuple[RunningProcess, Place]:
        """Mark and start it, as soon as the disk takes both."""
        order = running.execution.order
        while True:
            await self._mark(order, executor, keeper)
            keeper = executor.keeper
            place = select_place(order.target, self.executors.keys())
            try:
                return await executor.start(order, place, running.stop_failed), place
            except NoRoomToStart as exc:
                log.error("command %s waits: %s", order.id, exc)
                await self.clock.sleep(JOURNAL_RETRY_S)

    def _executor(self, order: Order) -> Executor:
        return self.executors[select_place(order.target, self.executors.keys()).execution_type]

    async def _mark(self, order: Order, executor: Executor, keeper: str | None) -> None:
        """Have in the journal who starts it; raises OrderExpired where it is too late by then."""
        while True:
            if self.time.now() > order.expires_at:
                raise OrderExpired("it got its turn after the time by which it had to start")
            if executor.keeper == keeper:
                return
            keeper = await self._marked(order.id, executor.keeper)

    async def _marked(self, command_id: CommandId, keeper: str) -> str | None:
        try:
            await self.journal.start(command_id, keeper)
        except JournalUnavailable as exc:
            log.error("command %s waits: %s", command_id, exc)
            await self.clock.sleep(JOURNAL_RETRY_S)
            return None
        return keeper
