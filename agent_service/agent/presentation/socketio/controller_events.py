"""What the controller may send in a session, and what the agent does then."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from agent import wire
from agent.application.delivery import Delivery
from agent.application.ports.controller_link import ControllerLink
from agent.application.use_cases.accept_order import AcceptOrder
from agent.application.use_cases.control_execution import ControlExecution
from agent.application.use_cases.resume_session import Registered, ResumeSession
from agent.domain.errors import AgentError, LinkLost, Refused
from agent.domain.ids import CommandId
from agent.domain.models.output import Position
from agent.presentation.socketio.inbox import Inbox, InboxClosed
from ogent.protocol.names import OrderEvent

log = logging.getLogger(__name__)

#: Between `register` and its answer.
REGISTRATION_TIMEOUT_S: Final = 30.0

Answer = wire.Payload | bool | None
Handler = Callable[[object], Awaitable[Answer]]


class Superseded(AgentError):
    """A newer session of the same agent, from another process, has taken this one's place."""

    code = "superseded"


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What the controller may ask for."""

    accept_order: AcceptOrder
    control_execution: ControlExecution
    resume_session: ResumeSession
    delivery: Delivery
    verify: wire.OrderVerifier


class ControllerEvents:
    """The handlers of one session, each of which always answers, and its course."""

    def __init__(self, use_cases: UseCases) -> None:
        self._use_cases = use_cases
        self._inbox: Inbox[Answer] = Inbox()
        self._resume: asyncio.Future[Mapping[CommandId, Position]] = (
            asyncio.get_running_loop().create_future()
        )
        self._tasks = asyncio.TaskGroup()
        self._orders: set[asyncio.Task[None]] = set()
        self._end = asyncio.Event()
        self._ended_by: AgentError | None = None

    def handlers(self) -> Mapping[str, Handler]:
        """The handler of every event."""
        return {
            OrderEvent.REGISTRATION_RESPONSE: self._queued(self._registered),
            OrderEvent.EXECUTE_COMMAND: self._begun(self._execute),
            OrderEvent.CONTROL_COMMAND: self._begun(self._control),
            OrderEvent.PROGRESS_ACK: self._at_once(self._progress_ack),
            OrderEvent.SUPERSEDED: self._superseded,
        }

    async def serve(self, link: ControllerLink, closed: Awaitable[None]) -> None:
        """Register, then send and receive until `closed` returns.

        Raises LinkLost when the session ends before, Superseded where another has taken over.
        """
        async with self._tasks as tasks:
            work = [
                tasks.create_task(self._inbox.run(), name="inbox"),
                tasks.create_task(self._send(link), name="delivery"),
                tasks.create_task(self._notice_end(closed), name="end of the connection"),
            ]
            await self._end.wait()
            for task in [*work, *self._orders]:
                task.cancel()
        if self._ended_by is not None:
            raise self._ended_by

    async def _send(self, link: ControllerLink) -> None:
        try:
            await link.register(await self._use_cases.resume_session.registration())
            async with asyncio.timeout(REGISTRATION_TIMEOUT_S):
                resume = await self._resume
            log.info("registered with the controller")
            await self._use_cases.delivery.serve(link, resume)
        except TimeoutError:
            self._finish(LinkLost("the controller did not answer the registration"))
        except LinkLost as exc:
            self._finish(exc)

    async def _notice_end(self, closed: Awaitable[None]) -> None:
        await closed
        self._finish(None)

    def _finish(self, why: AgentError | None) -> None:
        """End the session; the first reason is the one that is raised."""
        if not self._end.is_set():
            self._ended_by = why
            self._end.set()

    # --- handlers -------------------------------------------------------------------------

    def _queued(self, handle: Handler) -> Handler:
        """A handler that puts its work into the inbox before it waits for anything."""

        async def handler(frame: object = None) -> Answer:
            try:
                return await self._inbox.put(lambda: _boundary(handle, frame))
            except InboxClosed as exc:
                self._finish(LinkLost(str(exc)))
                return None

        return handler

    def _at_once(self, handle: Handler) -> Handler:
        """A handler that waits for nobody: what makes room must not queue behind who needs it."""

        async def handler(frame: object = None) -> Answer:
            return await _boundary(handle, frame)

        return handler

    def _begun(self, handle: Handler) -> Handler:
        """A handler whose work begins in its turn, and is not waited for by the next.

        So orders that come together share one write to the disk, and one that waits for a full
        disk or for a runner holds up nobody.
        """

        async def handler(frame: object = None) -> Answer:
            work: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

            async def begin() -> Answer:
                task = self._tasks.create_task(_into(work, _boundary(handle, frame)))
                self._orders.add(task)
                task.add_done_callback(self._orders.discard)
                return None

            try:
                await self._inbox.put(begin)
                return await work
            except InboxClosed as exc:
                self._finish(LinkLost(str(exc)))
                return None

        return handler

    async def _registered(self, frame: object) -> Answer:
        try:
            answer: Registered = wire.registered(frame)
        except ValidationError as exc:
            self._finish(LinkLost("the controller's answer to the registration is malformed"))
            raise Refused("malformed registration_response") from exc
        resume = await self._use_cases.resume_session(answer)
        if not self._resume.done():
            self._resume.set_result(resume)
        return True

    async def _execute(self, frame: object) -> Answer:
        order = wire.run_order(frame, self._use_cases.verify)
        try:
            known = await self._use_cases.accept_order(order)
        except Refused as exc:
            log.warning("command %s was refused: %s", order.id, exc)
            return wire.order_refused(order.id, exc)
        return wire.order_taken(order.id, known.state, is_held=known.is_held)

    async def _control(self, frame: object) -> Answer:
        control = wire.control_order(frame, self._use_cases.verify)
        try:
            state = await self._use_cases.control_execution(control)
        except Refused as exc:
            return wire.order_refused(control.command_id, exc)
        return wire.order_taken(control.command_id, state)

    async def _progress_ack(self, frame: object) -> Answer:
        try:
            command_id, stored = wire.acknowledged(frame)
        except ValidationError as exc:
            raise Refused("malformed progress_ack") from exc
        await self._use_cases.delivery.acknowledge(command_id, stored)
        return None

    async def _superseded(self, frame: object = None) -> Answer:
        del frame
        self._finish(Superseded("another process has signed in as this agent"))
        return None


async def _into(work: asyncio.Future[Answer], answer: Awaitable[Answer]) -> None:
    """Give `work` the answer; where that is cancelled, nobody goes on waiting."""
    try:
        found = await answer
    except asyncio.CancelledError:
        work.cancel()
        raise
    if not work.done():
        work.set_result(found)


async def _boundary(handle: Handler, frame: object) -> Answer:
    """What `handle` answers; where it fails, an answer that says so."""
    try:
        return await handle(frame)
    except Refused as exc:
        log.warning("a message of the controller was refused: %s", exc)
        return wire.order_refused("", exc)
    except Exception:  # the handler boundary: a peer must not wait in vain for our bug
        log.exception("a message of the controller could not be handled")
        return wire.order_refused("", AgentError("the agent failed; its log says why"))
