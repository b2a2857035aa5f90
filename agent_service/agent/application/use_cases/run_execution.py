"""Carry out one order."""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.application.controller_time import ControllerTime
from agent.application.ports.executor import Executor
from agent.application.running import Running
from agent.domain.errors import CannotStart, OrderExpired
from agent.domain.models.execution import State
from agent.domain.models.executor import ExecutionType
from agent.domain.selection import select_place


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExecution:
    """Start the process of an order, unless its time has passed, and follow it to its end.

    However it comes out, the outcome is in the hands of the delivery afterwards.
    """

    executors: Mapping[ExecutionType, Executor]
    time: ControllerTime

    async def __call__(self, running: Running) -> None:
        """Return when the execution is final."""
        order = running.execution.order
        if self.time.now() > order.expires_at:
            why = OrderExpired("it got its turn after the time by which it had to start")
            await running.settle_unrun(State.REJECTED, why)
            return
        try:
            place = select_place(order.target, self.executors.keys())
            async with self.executors[place.execution_type].run(order, place) as process:
                await running.follow(process, place)
        except CannotStart as exc:
            await running.settle_unrun(State.FAILED, exc)
