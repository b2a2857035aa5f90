"""Queued commands to their agents: in order per agent, until acknowledged."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from app.application.event_bus import EventBus
from app.application.handover import Handover
from app.application.look_again import rung_or_due
from app.application.ports.agent_channel import AgentChannel, OrderAcknowledged
from app.application.ports.clock import Clock
from app.application.ports.repositories import CommandRepository
from app.application.ports.wakeups import Bell, Wakeups, agent_topic
from app.domain.errors import AgentUnreachable
from app.domain.ids import CommandId, ControlId
from app.domain.models.agent import Session
from app.domain.models.command import Command, Failure
from app.domain.models.order import PendingControl, QueuedRun
from app.domain.models.states import State

#: Orders that one agent may have been sent without having acknowledged them.
WINDOW: Final = 64
#: After this time without a wake-up a session's orders are read from the store.
LOOK_AGAIN_S: Final = 30.0
#: Accepted orders that wait in memory for their session; beyond it they are read from the store.
HANDED_MAX: Final = 256
#: An acknowledgement is stored this late, and not at all where the command has moved on by then:
#: a short command is then one transaction from its order to its end, and a longer one reports
#: that it runs. Only what waits in its agent stays `queued` for this long.
ACKNOWLEDGE_AFTER_S: Final = 0.1
#: How an agent refuses a control order for a command that it has no record of.
UNKNOWN_COMMAND: Final = "unknown_command"


class Dispatcher:
    """Sends each agent its orders for as long as its session lasts.

    Orders are sent in the order in which they were accepted, up to WINDOW at a time without an
    acknowledgement. One that is not acknowledged is sent again: agents recognise a repeat.
    """

    def __init__(
        self,
        commands: CommandRepository,
        channel: AgentChannel,
        wakeups: Wakeups,
        handover: Handover,
        bus: EventBus,
        clock: Clock,
    ) -> None:
        self._commands = commands
        self._channel = channel
        self._wakeups = wakeups
        self._handover = handover
        self._bus = bus
        self._clock = clock

    async def serve(self, session: Session) -> None:
        """Send the session's orders until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            serving = _Serving(self, session, tasks)
            with (
                self._handover.receiving(session, serving.hand_over),
                self._wakeups.listen(agent_topic(session.agent_id)) as bell,
            ):
                await serving.run(bell)

    async def queued(self, session: Session, after: CommandId | None, room: int) -> list[QueuedRun]:
        """The session's next run orders."""
        return await self._commands.queued_runs(session.agent_id, after=after, limit=room)

    async def controls(self, session: Session) -> list[PendingControl]:
        """The session's pending control orders."""
        return await self._commands.pending_controls(session.agent_id)

    async def deliver_run(self, session: Session, run: QueuedRun) -> None:
        """Send one run order until it is answered, and record the answer.

        One that was cancelled or expired before it was ever offered is not sent.
        """
        is_noted = run.offered_epoch == session.epoch
        if not is_noted and not await self._offer(session, run.command_id):
            return
        with self._handover.watching(run.command_id) as moved:
            answer = await self._until_answered(lambda: self._channel.send_run(session, run.sealed))
            if answer.refusal is not None or not await _is_set_soon(moved):
                await self._record(run.command_id, answer)

    async def deliver_control(self, session: Session, control: PendingControl) -> None:
        """Send one control order until it is answered."""
        answer = await self._until_answered(
            lambda: self._channel.send_control(session, control.sealed)
        )
        await self._commands.drop_control(control.control_id)
        if answer.refusal is not None:
            await self._refuse_control(control.command_id, answer.refusal)

    async def _refuse_control(self, command_id: CommandId, refusal: Failure) -> None:
        """Say on the command that its agent will not; one that it does not know is lost."""
        now = self._clock.now()

        def refuse(command: Command) -> None:
            if refusal.code == UNKNOWN_COMMAND:
                command.lose(agent_state_lost(), at=now)
            else:
                command.refuse_request(refusal)

        await self._change(command_id, refuse)

    async def _offer(self, session: Session, command_id: CommandId) -> bool:
        """Note that the agent may know of it from now on; False where it is final by now."""
        command = await self._change(command_id, lambda found: found.offer(session.epoch))
        return not command.is_final

    async def _record(self, command_id: CommandId, answer: OrderAcknowledged) -> None:
        now = self._clock.now()

        def record(command: Command) -> None:
            if answer.refusal is None:
                command.acknowledge(at=now)
            else:
                command.reject(answer.refusal, at=now)

        await self._change(command_id, record)

    async def _change(self, command_id: CommandId, change: Callable[[Command], None]) -> Command:
        changed = await self._commands.change(command_id, change)
        self._bus.publish(changed.pull_events())
        return changed

    async def _until_answered(
        self, send: Callable[[], Awaitable[OrderAcknowledged]]
    ) -> OrderAcknowledged:
        while True:
            try:
                return await send()
            except AgentUnreachable:
                continue  # each try has its own deadline, and the session's end cancels us


class _Serving:
    """One session being served: what is under way, and from where to read on.

    Orders come from two sides: read from the store when the bell rings, and handed over when they
    are accepted here. `_turn` keeps one order among both, `_last` tells which of them came before.
    """

    def __init__(self, dispatcher: Dispatcher, session: Session, tasks: asyncio.TaskGroup) -> None:
        self._dispatcher = dispatcher
        self._session = session
        self._tasks = tasks
        self._last: CommandId | None = None
        self._runs: set[CommandId] = set()
        self._controls: set[ControlId] = set()
        self._handed: deque[QueuedRun] = deque()
        self._must_read = True
        self._controls_wait = False
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()

    def hand_over(self, run: QueuedRun) -> None:
        """Take an order that was just accepted; with too many of them the store is read instead."""
        if len(self._handed) >= HANDED_MAX:
            self._must_read = True
        else:
            self._handed.append(run)
        self._news.set()

    async def run(self, bell: Bell) -> None:
        self._tasks.create_task(self._send_news(), name="handed over")
        while True:
            async with self._turn:
                self._must_read = True
                await self._send_runs()
                await self._send_controls()
            await rung_or_due(bell, LOOK_AGAIN_S)

    async def _send_news(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            async with self._turn:
                await self._send_runs()
                if self._controls_wait:
                    await self._send_controls()

    async def _send_runs(self) -> None:
        while room := WINDOW - len(self._runs):
            if self._must_read:
                runs = await self._dispatcher.queued(self._session, self._last, room)
                self._must_read = len(runs) == room
            elif self._handed:
                runs = [self._handed.popleft()]
            else:
                return
            for run in runs:
                self._send(run)

    def _send(self, run: QueuedRun) -> None:
        if self._last is not None and run.command_id <= self._last:
            return  # read from the store before it was handed over
        self._last = run.command_id
        self._runs.add(run.command_id)
        self._tasks.create_task(self._run(run), name=f"offer {run.command_id}")

    async def _run(self, run: QueuedRun) -> None:
        try:
            await self._dispatcher.deliver_run(self._session, run)
        finally:
            self._runs.discard(run.command_id)
            self._news.set()

    async def _send_controls(self) -> None:
        self._controls_wait = False
        for control in await self._dispatcher.controls(self._session):
            # Before its run order is acknowledged, the agent may know nothing of the command and
            # would drop the control order; the acknowledgement brings us here again.
            if control.state is State.QUEUED:
                self._controls_wait = True
            elif control.control_id not in self._controls:
                self._controls.add(control.control_id)
                self._tasks.create_task(
                    self._control(control), name=f"control {control.control_id}"
                )

    async def _control(self, control: PendingControl) -> None:
        try:
            await self._dispatcher.deliver_control(self._session, control)
        finally:
            self._controls.discard(control.control_id)


async def _is_set_soon(moved: asyncio.Event) -> bool:
    """Whether the command moves within ACKNOWLEDGE_AFTER_S."""
    try:
        async with asyncio.timeout(ACKNOWLEDGE_AFTER_S):
            await moved.wait()
    except TimeoutError:
        return False
    return True


def agent_state_lost() -> Failure:
    """Why a command is lost whose agent came back without knowing of it."""
    return Failure(
        "agent_state_lost",
        "the agent came back without a record of this command: it may have run or not",
    )
