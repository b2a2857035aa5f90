"""Owns the executions: how many run beside each other, who waits, who is stopped."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Final, Self

from agent.application.delivery import Delivery
from agent.application.ports.clock import Clock
from agent.application.ports.journal import Journal, Unfinished
from agent.application.running import Running
from agent.application.use_cases.run_execution import RunExecution
from agent.domain.errors import AgentBusy, AgentStopping, InvalidState, NeverStarted
from agent.domain.ids import CommandId
from agent.domain.models.execution import Execution, Failure, State
from agent.domain.models.order import Action, Order
from agent.domain.stopping import Force

log = logging.getLogger(__name__)

#: Commands that an agent holds at once: that wait, run, or have not been told to their end.
#: Both sides name each of them when a session begins, in one frame.
HELD_MAX: Final = 4096
#: Text of their orders, which is in memory and in the journal: lines, environments, inputs.
HELD_MAX_CHARS: Final = 64 * 1024 * 1024

_DISCARDED: Final = Failure("discarded", "the controller no longer knows of the command")
_STOPPED_HERE: Final = Failure("stopped_on_host", "stopped on the host by ogent-agent")
_FORCE: Final = {Action.CANCEL: Force.ASK, Action.KILL: Force.KILL}


class Supervisor:
    """Runs up to `max_concurrent` executions beside each other; more wait, in order.

    Entered, it takes orders; left, it follows nothing any more, and what runs goes on by itself.
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
        self._reserved = 0
        #: Whether the controller has said what it still wants of what an earlier start left.
        self._is_confirmed = True
        self._settling: dict[CommandId, asyncio.Task[None]] = {}
        self._tasks = asyncio.TaskGroup()
        self._runs: dict[CommandId, asyncio.Task[None]] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_stopping = True
        for task in self._following:
            task.cancel()
        is_cancelled = isinstance(exc, asyncio.CancelledError)
        await self._tasks.__aexit__(*((exc_type, exc, traceback) if is_cancelled else (None,) * 3))

    @property
    def running(self) -> Iterable[Running]:
        """The executions that run now."""
        return self._running.values()

    @property
    def waiting(self) -> Iterable[Running]:
        """Those that wait for their turn, in order."""
        return self._waiting.values()

    def require_room(self) -> None:
        """Raises AgentStopping or AgentBusy where no order may be submitted."""
        if self._is_stopping:
            raise AgentStopping("the agent is stopping: the order is good for its next start")
        if len(self._delivery) + self._reserved >= HELD_MAX:
            raise AgentBusy(f"{HELD_MAX} commands are held on this agent already")
        if self._journal.may_forget_none():
            raise AgentBusy("this agent remembers as many commands as it may that may still come")
        if self._journal.held_size() >= HELD_MAX_CHARS:
            raise AgentBusy(
                f"commands of {HELD_MAX_CHARS} characters are held on this agent already"
            )

    def reserve(self, order: Order) -> str | None:
        """Who would start `order` at once, where its turn is now; give it back or submit it."""
        may_start = self._is_confirmed and not self._waiting
        is_due = may_start and len(self._running) + self._reserved < self._max_concurrent
        self._reserved += 1
        return self._run_execution.keeper_for(order) if is_due else None

    def give_back(self) -> None:
        """Take back a reservation."""
        self._reserved -= 1
        self._fill()

    def submit(self, order: Order, keeper: str | None) -> None:
        """Run a reserved `order`, which the journal has, as soon as it is its turn."""
        self._reserved -= 1
        self._delivery.open(order.id)
        running = self._new(order)
        if keeper is not None:
            self._begin(running, self._run_execution(running, keeper))
        else:
            self._wait(running)

    def take_up(self, entry: Unfinished) -> None:
        """Go on with what an earlier process of this agent had accepted.

        What waited for its turn is not started before `confirm`: where this is an old copy of the
        agent's folder, it may have run long ago, and the controller knows.
        """
        self._is_confirmed = False
        self._delivery.open(entry.order.id)
        if entry.outcome is not None:
            self._delivery.settle(entry.outcome)
        elif entry.keeper is not None:
            running = self._new(entry.order)
            self._begin(running, self._take_over(running, entry.keeper))
        else:
            self._wait(self._new(entry.order))

    def confirm(self) -> None:
        """The controller has said what it does not want any more: the rest may start."""
        self._is_confirmed = True
        self._fill()

    async def control(self, command_id: CommandId, action: Action) -> None:
        """Do `action`, or put it into safe hands; raises InvalidState where it makes no sense."""
        if command_id in self._settling:
            await asyncio.shield(self._settling[command_id])
        elif command_id in self._waiting:
            if action not in _FORCE:
                text = f"command {command_id} has not started: {action} is not possible"
                raise InvalidState(text)
            await self._cancel_waiting(command_id, None)
        elif command_id in self._running:
            await self._control_running(self._running[command_id], action)

    def discard(self, command_id: CommandId) -> None:
        """Begin to cancel a command that the controller wants nothing more of.

        One that waits is forgotten: nobody is to hear of it. Unknown ones are ignored.
        """
        if self._waiting.pop(command_id, None) is None and command_id in self._running:
            stop = self._running[command_id].stop(State.CANCELLED, Force.ASK, _DISCARDED)
            self._follow(stop, f"discard {command_id}")

    async def stop_commands(self) -> None:
        """Cancel every command that is here now, and return when nothing of them is left."""
        here = [*self._waiting, *self._running]
        settling = set(self._settling.values())
        for command_id in list(self._waiting):  # each may get its turn while another is cancelled
            await self._cancel(command_id, _STOPPED_HERE)
        for running in [self._running[found] for found in here if found in self._running]:
            await running.begun.wait()
        for command_id in here:
            await self._cancel(command_id, _STOPPED_HERE)
        runs = {self._runs[found] for found in here if found in self._runs}
        if left := runs | settling:
            await asyncio.wait(left)

    async def stop(self) -> None:
        """Take no new orders, start nothing more; returns when nothing is about to be started.

        What runs goes on, what waits is in the journal.
        """
        self._is_stopping = True
        for running in list(self._running.values()):
            await running.begun.wait()

    async def _cancel(self, command_id: CommandId, why: Failure) -> None:
        if command_id in self._waiting:
            await self._cancel_waiting(command_id, why)
        elif command_id in self._running:
            await self._running[command_id].stop(State.CANCELLED, Force.ASK, why)

    async def _cancel_waiting(self, command_id: CommandId, why: Failure | None) -> None:
        """Settle it, whatever becomes of who asked: until that is stored, it is in `_settling`."""
        running = self._waiting.pop(command_id)
        settle = running.settle_unrun(State.CANCELLED, why)
        task = self._settling[command_id] = self._follow(settle, f"settle {command_id}")
        task.add_done_callback(lambda _: self._settling.pop(command_id, None))
        await asyncio.shield(task)

    async def _control_running(self, running: Running, action: Action) -> None:
        if action in _FORCE:
            await running.stop(State.CANCELLED, _FORCE[action])
        elif action is Action.PAUSE:
            await running.pause()
        else:
            await running.resume()

    def _new(self, order: Order) -> Running:
        return Running(
            Execution(order=order),
            journal=self._journal,
            delivery=self._delivery,
            clock=self._clock,
        )

    def _wait(self, running: Running) -> None:
        self._waiting[running.execution.id] = running
        self._fill()

    def _fill(self) -> None:
        while (
            self._waiting
            and not self._is_stopping
            and self._is_confirmed
            and len(self._running) + self._reserved < self._max_concurrent
        ):
            _, running = self._waiting.popitem(last=False)
            self._begin(running, self._run_execution(running, None))

    def _begin(self, running: Running, run: Coroutine[None, None, None]) -> None:
        command_id = running.execution.id
        self._running[command_id] = running
        self._runs[command_id] = self._follow(self._run(running, run), f"run {command_id}")

    def _follow(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Have `work` done, unless this is left before."""
        task = self._tasks.create_task(work, name=name)
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return task

    async def _take_over(self, running: Running, keeper: str) -> None:
        try:
            await self._run_execution.take_over(running, keeper)
        except NeverStarted:  # its turn comes first
            order = running.execution.order
            self._waiting[order.id] = self._new(order)
            self._waiting.move_to_end(order.id, last=False)

    async def _run(self, running: Running, run: Coroutine[None, None, None]) -> None:
        command_id = running.execution.id
        try:
            await run
        except Exception:  # the supervisor of a loop: one command's bug is not another's
            log.exception("command %s could not be followed to its end", command_id)
            await self._give_up(running)
        finally:
            del self._running[command_id], self._runs[command_id]
            running.begun.set()
            self._fill()

    async def _give_up(self, running: Running) -> None:
        execution = running.execution
        if not execution.is_final:
            why = Failure("internal_error", "the agent failed; its log says why")
            await running.settle_unrun(State.LOST, why)
