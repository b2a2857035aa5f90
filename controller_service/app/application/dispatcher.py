"""Queued commands to their agents: in order per agent, until acknowledged."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from app.application.event_bus import EventBus
from app.application.ports.agent_channel import AgentChannel, OrderAcknowledged
from app.application.ports.clock import Clock
from app.application.ports.repositories import CommandRepository
from app.application.ports.wakeups import Wakeups, agent_topic
from app.domain.errors import AgentUnreachable
from app.domain.ids import CommandId, ControlId
from app.domain.models.agent import Session
from app.domain.models.command import Command, Failure
from app.domain.models.order import PendingControl, QueuedRun
from app.domain.models.states import State

#: Orders that one agent may have been sent without having acknowledged them.
WINDOW: Final = 64


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
        bus: EventBus,
        clock: Clock,
    ) -> None:
        self._commands = commands
        self._channel = channel
        self._wakeups = wakeups
        self._bus = bus
        self._clock = clock

    async def serve(self, session: Session) -> None:
        """Send the session's orders until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            with self._wakeups.listen(agent_topic(session.agent_id)) as bell:
                await _Serving(self, session, tasks, self._wake(session)).run(bell.wait)

    def _wake(self, session: Session) -> Callable[[], None]:
        return lambda: self._wakeups.notify(agent_topic(session.agent_id))

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
        if not run.is_offered and not await self._offer(session, run.command_id):
            return
        answer = await self._until_answered(
            lambda: self._channel.send_run(session, run.sealed),
        )
        now = self._clock.now()

        def record(command: Command) -> None:
            if answer.refusal is None:
                command.acknowledge(at=now)
            else:
                command.reject(answer.refusal, at=now)

        await self._change(run.command_id, record)

    async def deliver_control(self, session: Session, control: PendingControl) -> None:
        """Send one control order until it is answered."""
        await self._until_answered(lambda: self._channel.send_control(session, control.sealed))
        await self._commands.drop_control(control.control_id)

    async def _offer(self, session: Session, command_id: CommandId) -> bool:
        """Note that the agent may know of it from now on; False where it is final by now."""
        command = await self._change(command_id, lambda found: found.offer(session.epoch))
        return not command.is_final

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
    """One session being served: what is under way, and from where to read on."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        session: Session,
        tasks: asyncio.TaskGroup,
        wake: Callable[[], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._session = session
        self._tasks = tasks
        self._wake = wake
        self._last: CommandId | None = None
        self._runs: set[CommandId] = set()
        self._controls: set[ControlId] = set()

    async def run(self, wait: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._send_runs()
            await self._send_controls()
            await wait()

    async def _send_runs(self) -> None:
        while room := WINDOW - len(self._runs):
            runs = await self._dispatcher.queued(self._session, self._last, room)
            for run in runs:
                self._last = run.command_id
                self._runs.add(run.command_id)
                self._tasks.create_task(self._run(run), name=f"offer {run.command_id}")
            if len(runs) < room:
                return

    async def _run(self, run: QueuedRun) -> None:
        try:
            await self._dispatcher.deliver_run(self._session, run)
        finally:
            self._runs.discard(run.command_id)
            self._wake()

    async def _send_controls(self) -> None:
        for control in await self._dispatcher.controls(self._session):
            # Before its run order is acknowledged, the agent may know nothing of the command and
            # would drop the control order; the acknowledgement brings us here again.
            if control.control_id in self._controls or control.state is State.QUEUED:
                continue
            self._controls.add(control.control_id)
            self._tasks.create_task(self._control(control), name=f"control {control.control_id}")

    async def _control(self, control: PendingControl) -> None:
        try:
            await self._dispatcher.deliver_control(self._session, control)
        finally:
            self._controls.discard(control.control_id)


def agent_state_lost() -> Failure:
    """Why a command is lost whose agent came back without knowing of it."""
    return Failure(
        "agent_state_lost",
        "the agent came back without a record of this command: it may have run or not",
    )
