"""What agents say on their door, and the sessions that they open with it.

Every frame is put into its session's inbox before anything is awaited. python-socketio runs the
handlers of one peer concurrently but starts them in the order in which the frames came, so the
inbox has that order, and one task per session empties it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import socketio
import structlog
from socketio.exceptions import ConnectionRefusedError as Refusal
from socketio.exceptions import TimeoutError as AcknowledgementTimeout

from app import wire
from app.application.cancellation import honour_cancellation
from app.application.ports.agent_channel import AgentChannel
from app.application.use_cases import UseCases
from app.application.use_cases.record_reports import Recorded, Report
from app.domain.errors import ControllerError, StaleSession, Unavailable
from app.domain.ids import AgentId, CommandId, SessionId
from app.domain.models.agent import Session
from app.presentation.socketio.agent_door import agent_in
from app.presentation.socketio.boundary import (
    Answer,
    answered,
    handler_of,
    hang_up,
    parse,
    refusal,
    unknown_event,
)
from app.presentation.socketio.inbox import Inbox, Waiting
from ogent.protocol import messages, resources
from ogent.protocol.names import NAMESPACE, AgentEvent, OrderEvent
from ogent.protocol.version import PROTOCOL_VERSION

log = structlog.get_logger(__name__)

#: How long an agent may take to write its new epoch down.
REGISTRATION_TIMEOUT_S: Final = 15.0


@dataclass(slots=True)
class _Connection:
    """A socket that passed the door; `session` from its registration on."""

    agent_id: AgentId
    instance_id: str
    session: Session | None = None
    task: asyncio.Task[None] | None = None
    inbox: Inbox = field(default_factory=Inbox)


class AgentNamespace:
    """Handlers of the agents' door. `tasks` runs the sessions and outlives them."""

    def __init__(
        self,
        server: socketio.AsyncServer,
        use_cases: UseCases,
        channel: AgentChannel,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._server = server
        self._use_cases = use_cases
        self._channel = channel
        self._tasks = tasks
        self._connections: dict[str, _Connection] = {}
        self._handlers: Mapping[str, Callable[[_Connection, str, object], Awaitable[Answer]]] = {
            AgentEvent.REGISTER: self._register,
            AgentEvent.AGENT_INFO: self._agent_info,
            AgentEvent.COMMAND_STATE: self._command_state,
            AgentEvent.COMMAND_PROGRESS: self._command_progress,
            AgentEvent.COMMAND_RESULT: self._command_result,
        }
        server.on("connect", self._connect, namespace=NAMESPACE)
        server.on("disconnect", self._disconnect, namespace=NAMESPACE)
        server.on("*", self._event, namespace=NAMESPACE)

    async def close(self) -> None:
        """Close every session; its agent comes back to whoever serves next."""
        for sid in list(self._connections):
            await self._server.disconnect(sid, namespace=NAMESPACE)

    async def _connect(
        self, sid: str, environ: dict[str, Any] | None = None, auth: object = None, *_: object
    ) -> Answer | None:
        if sid in self._connections:
            return unknown_event("connect")  # an event that calls itself so
        try:
            wanted = parse(messages.AgentAuth, auth)
        except ControllerError as exc:
            raise Refusal(exc.message, {"code": exc.code, "message": exc.message}) from exc
        if wanted.protocol != PROTOCOL_VERSION:
            text = f"this controller speaks protocol {PROTOCOL_VERSION}, not {wanted.protocol}"
            raise Refusal(text, {"code": "unsupported_protocol", "message": text})
        agent_id = agent_in((environ or {})["asgi.scope"])
        self._connections[sid] = _Connection(agent_id, wanted.instance_id)
        return None

    async def _disconnect(self, sid: str, reason: object = None, *_more: object) -> Answer | None:
        if self._server.manager.is_connected(sid, NAMESPACE):
            return unknown_event("disconnect")  # an event that calls itself so
        hang_up(self._server, sid)
        connection = self._connections.pop(sid, None)
        if connection is None:
            return None
        connection.inbox.close()
        if connection.task is not None and connection.task is not asyncio.current_task():
            connection.task.cancel()
        if connection.session is not None:
            # A task of its own: the one that runs this may be among those just cancelled.
            self._tasks.create_task(
                self._release(connection.session, str(reason)), name=f"release {sid}"
            )
        return None

    async def _release(self, session: Session, reason: str) -> None:
        try:
            await self._use_cases.release_agent(session)
            log.info("an agent left", agent_id=session.agent_id, reason=reason)
        except Exception:
            log.exception("a session could not be released", agent_id=session.agent_id)

    async def _event(self, event: str, *given: object) -> Answer:
        if event in self._connections:
            return unknown_event("*")  # an event that calls itself so: its sid stands first
        sid, payload = str(given[0]), given[1:]
        connection = self._connections.get(sid)
        if connection is None:
            return refusal("stale_session", "this session is over")
        data = payload[0] if payload else None

        async def handle() -> Answer:
            return await handler_of(self._handlers, event)(connection, sid, data)

        return await answered(event, handle)

    async def _register(self, connection: _Connection, sid: str, data: object) -> Answer:
        frame = parse(messages.Register, data)
        if connection.session is not None:
            return refusal("invalid_state", "this session is registered")
        self._use_cases.lifecycle.require_ready()
        await self._supersede(connection, sid)
        registered = await self._use_cases.register_agent(
            wire.registration(frame, connection.agent_id, SessionId(sid))
        )
        connection.session = registered.session
        if sid not in self._connections:  # it left while its session was being stored
            await self._use_cases.release_agent(registered.session)
            return refusal("stale_session", "this session is over")
        connection.task = self._tasks.create_task(
            self._serve(connection, sid, wire.registration_response(registered)),
            name=f"agent {connection.agent_id}",
        )
        return {"ok": True}

    async def _supersede(self, newest: _Connection, newest_sid: str) -> None:
        """Push out older sessions of the agent: another instance is told why."""
        for sid, connection in list(self._connections.items()):
            if connection.agent_id != newest.agent_id or sid == newest_sid:
                continue
            if connection.instance_id != newest.instance_id and connection.session is not None:
                log.warning("an agent was superseded", agent_id=newest.agent_id, sid=sid)
                await self._channel.supersede(connection.session)
            else:
                await self._server.disconnect(sid, namespace=NAMESPACE)

    async def _serve(
        self, connection: _Connection, sid: str, response: messages.RegistrationResponse
    ) -> None:
        """One session from its epoch's acknowledgement to its end; never fails its neighbours."""
        session = connection.session
        if session is None:
            return
        try:
            await self._server.call(
                OrderEvent.REGISTRATION_RESPONSE,
                response.model_dump(),
                to=sid,
                namespace=NAMESPACE,
                timeout=REGISTRATION_TIMEOUT_S,
            )
            honour_cancellation()
            log.info("an agent registered", agent_id=session.agent_id, epoch=session.epoch)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._use_cases.dispatcher.serve(session), name="dispatch")
                tasks.create_task(self._record_all(connection, session), name="record")
        except AcknowledgementTimeout:
            log.warning("an agent did not take its epoch", agent_id=session.agent_id)
            await self._server.disconnect(sid, namespace=NAMESPACE)
        except Exception:
            log.exception("a session failed", agent_id=session.agent_id)
            await self._server.disconnect(sid, namespace=NAMESPACE)

    async def _record_all(self, connection: _Connection, session: Session) -> None:
        """Store what the session's inbox holds, again and again."""
        while True:
            frames = await connection.inbox.take()
            by_command: dict[CommandId, list[Waiting]] = {}
            for waiting in frames:
                by_command.setdefault(waiting.command_id, []).append(waiting)
            # Begun in order, so the store takes them in order and commits them together.
            await asyncio.gather(
                *(self._record(session, found, ws) for found, ws in by_command.items())
            )

    async def _record(self, session: Session, command_id: CommandId, frames: list[Waiting]) -> None:
        reports = [waiting.report for waiting in frames]
        try:
            recorded = await self._use_cases.record_reports(session, command_id, reports)
            for waiting in frames:
                if waiting.recorded is not None and not waiting.recorded.done():
                    waiting.recorded.set_result(recorded)
        except (Unavailable, StaleSession) as exc:
            log.warning("reports were not stored", agent_id=session.agent_id, reason=exc.message)
            raise
        finally:  # whatever happened, nobody goes on waiting for it
            for waiting in frames:
                if waiting.recorded is not None:
                    waiting.recorded.cancel()
        if recorded.has_gap:
            log.warning("output has a gap", agent_id=session.agent_id, command_id=command_id)
            await self._server.disconnect(session.sid, namespace=NAMESPACE)  # and it resumes
        elif not recorded.is_settled and any(waiting.size for waiting in frames):
            await self._acknowledge_progress(session, command_id, recorded)

    async def _acknowledge_progress(
        self, session: Session, command_id: CommandId, recorded: Recorded
    ) -> None:
        ack = wire.progress_ack(command_id, recorded.stored)
        await self._server.emit(
            OrderEvent.PROGRESS_ACK, ack.model_dump(), to=session.sid, namespace=NAMESPACE
        )

    async def _agent_info(self, connection: _Connection, sid: str, data: object) -> Answer:
        del sid
        info = parse(resources.AgentInfo, data)
        await self._use_cases.describe_agent(_registered(connection), wire.facts(info))
        return {"ok": True}

    async def _command_state(self, connection: _Connection, sid: str, data: object) -> Answer:
        del sid
        frame = parse(messages.AgentCommandState, data)
        recorded = await _put(connection, frame.command_id, wire.state_report(frame))
        if not recorded.is_known:
            return refusal("command_not_found", "no such command here")
        return {"ok": True}

    async def _command_progress(self, connection: _Connection, sid: str, data: object) -> Answer:
        del sid
        frame = parse(messages.AgentProgress, data)
        _registered(connection)
        connection.inbox.put(
            Waiting(CommandId(frame.command_id), wire.chunk(frame), len(frame.data), None)
        )
        return {"ok": True}

    async def _command_result(self, connection: _Connection, sid: str, data: object) -> Answer:
        del sid
        frame = parse(messages.AgentResult, data)
        recorded = await _put(connection, frame.command_id, wire.outcome(frame))
        return wire.result_ack(recorded).model_dump()


def _registered(connection: _Connection) -> Session:
    if connection.session is None:
        raise StaleSession("register first")
    return connection.session


async def _put(connection: _Connection, command_id: str, report: Report) -> Recorded:
    """Queue a report, at once, and wait until it is stored."""
    _registered(connection)
    recorded: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
    connection.inbox.put(Waiting(CommandId(command_id), report, 0, recorded))
    try:
        return await recorded
    except asyncio.CancelledError:
        if recorded.cancelled():
            raise StaleSession("it was not stored: send it again in the next session") from None
        raise
