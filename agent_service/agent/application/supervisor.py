"""Owns the executions: how many run beside each other, who waits, who is stopped."""

import asyncio
import logging
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

from agent.application.delivery import Delivery
from agent.application.ports.clock import Clock
from agent.application.ports.journal import Journal
from agent.application.running import Running
from agent.application.stopping import Force
from agent.application.use_cases.run_execution import RunExecution
from agent.domain.errors import AgentBusy, AgentStopping, InvalidState
from agent.domain.ids import CommandId
from agent.domain.models.execution import Execution, Failure, State
from agent.domain.models.order import Action, Order

log = logging.getLogger(__name__)

#: Orders that may wait for their turn; what it knows of each stays in memory.
MAX_WAITING: Final = 10_000

_STOPPED: Final = Failure("agent_stopped", "the agent was stopped while the command ran")
_DISCARDED: Final = Failure("discarded", "the controller no longer knows of the command")
_FORCE: Final = {Action.CANCEL: Force.ASK, Action.KILL: Force.KILL}


class Supervisor:
    """Runs up to `max_concurrent` executions beside each other; more wait, in order.

    Entered, it takes orders; left, it kills what still runs.
    """

    def __init__(
        self,
        run: RunExecution,
        *,
        journal: Journal,
        delivery: Delivery,
        clock: Clock,
        max_concurrent: int,
    ) -> None:
        self._run_execution = run
        self._journal = journal
        self._delivery = delivery
        self._clock = clock
        self._max_concurrent = max_concurrent
        self._waiting: OrderedDict[CommandId, Running] = OrderedDict()
        self._running: dict[CommandId, Running] = {}
        self._runs: dict[CommandId, asyncio.Task[None]] = {}
        self._tasks = asyncio.TaskGroup()
        self._is_stopping = False
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closed = True
        for task in self._runs.values():
            task.cancel()  # which kills what it follows
        is_cancelled = isinstance(exc, asyncio.CancelledError)
        await self._tasks.__aexit__(*((exc_type, exc, traceback) if is_cancelled else (None,) * 3))

    @property
    def running(self) -> int:
        """How many executions run now."""
        return len(self._running)

    def require_room(self) -> None:
        """Raises AgentStopping or AgentBusy where no order may be submitted."""
        if self._is_stopping:
            raise AgentStopping("the agent is stopping")
        if len(self._waiting) >= MAX_WAITING:
            raise AgentBusy(f"{MAX_WAITING} commands wait on this agent already")

    def submit(self, order: Order) -> None:
        """Run `order`, which the journal has, as soon as it is its turn."""
        running = Running(
            Execution(order=order),
            journal=self._journal,
            delivery=self._delivery,
            clock=self._clock,
        )
        self._delivery.open(order.id)
        self._waiting[order.id] = running
        self._idle.clear()
        self._fill()

    def control(self, command_id: CommandId, action: Action) -> None:
        """Begin `action`; raises InvalidState for a pause or resume that makes no sense."""
        if command_id in self._waiting:
            self._control_waiting(command_id, action)
        elif command_id in self._running:
            self._control_running(self._running[command_id], action)

    def discard(self, command_id: CommandId) -> None:
        """Cancel a command that the controller wants nothing more of; unknown ones are ignored."""
        if command_id in self._waiting:
            self._cancel_waiting(command_id)
        elif command_id in self._running:
            self._running[command_id].stop(State.CANCELLED, Force.ASK, _DISCARDED)

    async def stop(self) -> None:
        """Take no new orders, end everything, and return when nothing runs.

        What runs becomes `lost`, since no user asked for its end; what waited `rejected`.
        """
        self._is_stopping = True
        while self._waiting:
            _, running = self._waiting.popitem(last=False)
            await running.settle_unrun(State.REJECTED, AgentStopping("the agent was stopped"))
        for running in self._running.values():
            running.stop(State.LOST, Force.ASK, _STOPPED)
        self._note_idle()
        await self._idle.wait()

    def _control_waiting(self, command_id: CommandId, action: Action) -> None:
        if action not in _FORCE:
            raise InvalidState(f"command {command_id} has not started: {action} is not possible")
        self._cancel_waiting(command_id)

    def _control_running(self, running: Running, action: Action) -> None:
        if action in _FORCE:
            running.stop(State.CANCELLED, _FORCE[action])
        elif action is Action.PAUSE:
            running.pause()
        else:
            running.resume()

    def _cancel_waiting(self, command_id: CommandId) -> None:
        running = self._waiting.pop(command_id)
        self._tasks.create_task(running.settle_unrun(State.CANCELLED), name=f"cancel {command_id}")
        self._note_idle()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._max_concurrent:
            command_id, running = self._waiting.popitem(last=False)
            self._running[command_id] = running
            run = self._tasks.create_task(self._run(running), name=f"run {command_id}")
            self._runs[command_id] = run

    async def _run(self, running: Running) -> None:
        command_id = running.execution.id
        try:
            await self._run_execution(running)
        except Exception:  # the supervisor of a loop: one command's bug is not another's
            log.exception("command %s could not be followed to its end", command_id)
            await self._give_up(running)
        finally:
            del self._running[command_id], self._runs[command_id]
            if not self._is_closed:
                self._fill()
            self._note_idle()

    async def _give_up(self, running: Running) -> None:
        execution = running.execution
        if not execution.is_final:
            state = State.FAILED if execution.state is State.ACCEPTED else State.LOST
            why = Failure("internal_error", "the agent failed; its log says why")
            await running.settle_unrun(state, why)

    def _note_idle(self) -> None:
        if not self._running and not self._waiting:
            self._idle.set()
