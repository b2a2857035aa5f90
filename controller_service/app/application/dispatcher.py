"""Queued commands to their agents: in order per agent, until acknowledged."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from app.application.event_bus import EventBus
from app.application.full_disk import once_there_is_room
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
#: The same, bytes of all of them: an order with a large `stdin` has 384 KiB.
HANDED_MAX_BYTES: Final = 4 * 1024 * 1024
#: An acknowledgement is stored this late, and not at all where the command has moved on by then:
#: a short command is then one transaction from its order to its end, and a longer one reports
#: that it runs. Only what waits in its agent stays `queued` for this long.
ACKNOWLEDGE_AFTER_S: Final = 0.1
#: After this time what an agent did not take now is offered again.
PUT_OFF_S: Final = 1.0
#: How an agent refuses a control order for a command that it has no record of.
UNKNOWN_COMMAND: Final = "unknown_command"


class Dispatcher:
    """Sends each agent its orders for as long as its session lasts.

    Orders are sent in the order in which they were accepted, up to WINDOW at a time without an
    acknowledgement. One that is not acknowledged is sent again: agents recognise a repeat. One that
    the agent does not take now is offered again after a while, and nothing newer before it.
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

    async def deliver_run(self, session: Session, run: QueuedRun) -> bool:
        """Send one run order until it is answered, and record the answer; False: it is put off.

        One that was cancelled or expired before it was ever offered is not sent, nor one that is to
        be stopped.
        """
        is_noted = run.offered_epoch == session.epoch
        if not is_noted and not await self._offer(session, run.command_id):
            return True
        with self._handover.watching(run.command_id) as moved:
            answer = await self._until_answered(lambda: self._channel.send_run(session, run.sealed))
            if answer.is_put_off:
                return False
            is_plain = answer.refusal is None and not answer.is_gone
            if not is_plain or not await _is_set_soon(moved):
                await self._record(run.command_id, answer)
        return True

    async def deliver_control(self, session: Session, control: PendingControl) -> None:
        """Send one control order until it is answered, again and again while it is put off."""
        while True:
            answer = await self._until_answered(
                lambda: self._channel.send_control(session, control.sealed)
            )
            if not answer.is_put_off:
                break
            await asyncio.sleep(PUT_OFF_S)
        # The answer first: of a control that is gone before it, nobody would ever hear again.
        if answer.is_gone:
            await self._record(control.command_id, answer)
        elif answer.refusal is not None:
            await self._refuse_control(control, answer.refusal)
        await once_there_is_room(lambda: self._commands.drop_control(control.control_id))

    async def _refuse_control(self, control: PendingControl, refusal: Failure) -> None:
        """Say on the command that its agent will not; one that it does not know is lost."""
        now = self._clock.now()

        def refuse(command: Command) -> None:
            if refusal.code == UNKNOWN_COMMAND:
                command.lose(agent_state_lost(), at=now)
            else:
                command.refuse_request(control.action, refusal)

        await self._change(control.command_id, refuse)

    async def cancel_unheard(self, command_id: CommandId) -> State:
        """Cancel a command that is to be stopped and that its agent was not sent; its state then.

        Nothing happens to one that is not queued any more.
        """
        now = self._clock.now()

        def cancel(command: Command) -> None:
            command.stop_unheard(at=now)

        return (await self._change(command_id, cancel)).state

    async def _offer(self, session: Session, command_id: CommandId) -> bool:
        """Note that the agent may know of it from now on; False where it is final by now.

        One that is to be stopped is cancelled instead: since the registration no agent has what is
        queued and was not sent in this session.
        """
        now = self._clock.now()

        def offer(command: Command) -> None:
            if not command.stop_unheard(at=now):
                command.offer(session.epoch)

        command = await self._change(command_id, offer)
        return not command.is_final

    async def _record(self, command_id: CommandId, answer: OrderAcknowledged) -> None:
        now = self._clock.now()

        def record(command: Command) -> None:
            if answer.is_gone:
                command.lose(_gone(), at=now)
            elif answer.refusal is None:
                command.acknowledge(at=now)
            else:
                command.reject(answer.refusal, at=now)

        await self._change(command_id, record)

    async def _change(self, command_id: CommandId, change: Callable[[Command], None]) -> Command:
        changed = await once_there_is_room(lambda: self._commands.change(command_id, change))
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
    `_runs` are under way, each with the one before it; when one is put off, sending pauses and then
    goes on from there.
    """

    def __init__(self, dispatcher: Dispatcher, session: Session, tasks: asyncio.TaskGroup) -> None:
        self._dispatcher = dispatcher
        self._session = session
        self._tasks = tasks
        self._last: CommandId | None = None
        self._runs: dict[CommandId, CommandId | None] = {}
        self._put_off = _PutOff()
        self._controls: set[ControlId] = set()
        self._handed: deque[QueuedRun] = deque()
        self._must_read = True
        self._controls_wait = False
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()

    def hand_over(self, run: QueuedRun) -> None:
        """Take an order that was just accepted; with too many of them the store is read instead."""
        held = sum(len(waiting.sealed.order) for waiting in self._handed)
        if len(self._handed) >= HANDED_MAX or held + len(run.sealed.order) > HANDED_MAX_BYTES:
            self._must_read = True
        else:
            self._handed.append(run)
        self._news.set()

    async def run(self, bell: Bell) -> None:
        self._tasks.create_task(self._send_news(), name="handed over")
        while True:
            async with self._turn:
                self._must_read = True
                await self._send_controls()  # first: what is to be stopped is not started
                await self._send_runs()
            await rung_or_due(bell, LOOK_AGAIN_S)

    async def _send_news(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            async with self._turn:
                if self._controls_wait:
                    await self._send_controls()
                await self._send_runs()

    async def _send_runs(self) -> None:
        while (room := WINDOW - len(self._runs)) and not self._put_off.is_waiting:
            if self._must_read:
                self._must_read = False  # whatever asks for it from here on may not be read yet
                runs = await self._dispatcher.queued(self._session, self._last, room)
                if self._put_off.is_waiting:
                    return  # one was put off meanwhile: what was read comes after it
                self._must_read = self._must_read or len(runs) == room
            elif self._handed:
                runs = [self._handed.popleft()]
            else:
                return
            for run in runs:
                self._send(run)

    def _send(self, run: QueuedRun) -> None:
        if self._last is not None and run.command_id <= self._last:
            return  # read from the store before it was handed over
        before, self._last = self._last, run.command_id
        if run.command_id in self._runs:
            return  # it was under way when one before it was put off
        self._runs[run.command_id] = before
        self._tasks.create_task(self._run(run), name=f"offer {run.command_id}")

    async def _run(self, run: QueuedRun) -> None:
        try:
            if not await self._dispatcher.deliver_run(self._session, run):
                self._wait_to_go_on_from(self._runs[run.command_id])
        finally:
            del self._runs[run.command_id]
            self._news.set()

    def _wait_to_go_on_from(self, before: CommandId | None) -> None:
        if self._put_off.note(before):
            self._tasks.create_task(self._go_on(), name="put off")

    async def _go_on(self) -> None:
        await asyncio.sleep(PUT_OFF_S)
        async with self._turn:
            self._last = self._put_off.take()
            self._must_read = True
        self._news.set()

    async def _send_controls(self) -> None:
        self._controls_wait = False
        unheard: list[CommandId] = []
        for control in await self._dispatcher.controls(self._session):
            # Before its run order is acknowledged, the agent may know nothing of the command and
            # would drop the control order; the acknowledgement brings us here again.
            if control.state is State.QUEUED and control.command_id in self._runs:
                self._controls_wait = True
            elif control.state is State.QUEUED:
                unheard.append(control.command_id)
            elif control.control_id not in self._controls:
                self._controls.add(control.control_id)
                self._tasks.create_task(
                    self._control(control), name=f"control {control.control_id}"
                )

        for command_id in unheard:
            state = await self._dispatcher.cancel_unheard(command_id)
            self._handed = deque(run for run in self._handed if run.command_id != command_id)
            if state is State.DISPATCHED:  # acknowledged while the controls were being read
                self._controls_wait = True
                self._news.set()

    async def _control(self, control: PendingControl) -> None:
        try:
            await self._dispatcher.deliver_control(self._session, control)
        finally:
            self._controls.discard(control.control_id)


class _PutOff:
    """The command after which sending goes on, once the agent was given its time."""

    def __init__(self) -> None:
        self.is_waiting = False
        self._after: CommandId | None = None

    def note(self, after: CommandId | None) -> bool:
        """Go on after `after` at the latest; True for the first since the last `take`."""
        is_first = not self.is_waiting
        if is_first or after is None or (self._after is not None and after < self._after):
            self._after = after
        self.is_waiting = True
        return is_first

    def take(self) -> CommandId | None:
        """After which command to go on now; None is from the first."""
        self.is_waiting = False
        return self._after


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


def _gone() -> Failure:
    return Failure(
        "agent_state_lost",
        "the agent knows this command and holds nothing of it any more: it may have run, its "
        "output and how it ended are gone",
    )
