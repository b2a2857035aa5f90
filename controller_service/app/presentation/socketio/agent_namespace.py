"""What agents say on their door, and the sessions that they open with it.

Every frame is put into its session's inbox before anything is awaited. python-socketio runs the
handlers of one peer concurrently but starts them in the order in which the frames came, so the
inbox has that order, and one task per session empties it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
from app.domain.errors import (
    ControllerError,
    StaleSession,
    StorageFull,
    Throttled,
    Unauthenticated,
    Unavailable,
)
from app.domain.ids import AgentId, CommandId, SessionId, UserName
from app.domain.models.agent import AgentFacts, Session
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

#: How long an agent may take to register, and to write its new epoch down.
REGISTER_TIMEOUT_S: Final = 15.0
REGISTRATION_TIMEOUT_S: Final = 15.0
#: How often what an agent says of itself is stored; the newest of it is.
INFO_INTERVAL_S: Final = 30.0
#: How often a session's account is looked at.
CHECK_INTERVAL_S: Final = 3.0
#: Commands of one session whose reports are being stored at once.
RECORDING_MAX: Final = 64
#: Frames of one session that wait for their answers.
CALLS_MAX: Final = 8192
#: How often it is looked whether output that waits has room now, and how long it waits at least
#: once the disk was full.
LOOK_FOR_ROOM_S: Final = 0.5
FULL_PAUSE_S: Final = 1.0
#: Pauses between two tries to store that a session is over.
RELEASE_FIRST_S: Final = 0.5
RELEASE_MAX_S: Final = 30.0


@dataclass(slots=True)
class _Connection:
    """A socket that passed the door; `session` from its registration on."""

    agent_id: AgentId
    account: UserName
    instance_id: str
    is_registering: bool = False
    session: Session | None = None
    task: asyncio.Task[None] | None = None
    watch: asyncio.Task[None] | None = None
    inbox: Inbox = field(default_factory=Inbox)
    calls: int = 0
    facts: AgentFacts | None = None
    described: asyncio.Event = field(default_factory=asyncio.Event)
    info_due_at: float = 0.0
    full_until: float = 0.0

    def info_due_in_s(self) -> float:
        """How long until the agent's facts may be stored again."""
        return self.info_due_at - asyncio.get_running_loop().time()

    def try_again(self, frames: list[Waiting]) -> None:
        """The disk was full: `frames` wait again, and output is not tried for a while."""
        self.inbox.put_back(frames)
        self.full_until = asyncio.get_running_loop().time() + FULL_PAUSE_S

    def was_full(self) -> bool:
        """Whether the disk was full a moment ago."""
        return asyncio.get_running_loop().time() < self.full_until

    def put_info_off(self) -> None:
        """Its facts are being stored: not again before a while."""
        self.info_due_at = asyncio.get_running_loop().time() + INFO_INTERVAL_S

    def end(self) -> None:
        """Let nothing run for it any more."""
        self.inbox.close()
        for task in (self.task, self.watch):
            if task is not None and task is not asyncio.current_task():
                task.cancel()


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
        let_in = agent_in((environ or {})["asgi.scope"])
        connection = _Connection(let_in.agent_id, let_in.account, wanted.instance_id)
        self._connections[sid] = connection
        connection.watch = self._tasks.create_task(
            self._watch(connection, sid), name=f"watch {let_in.agent_id}"
        )
        return None

    async def _watch(self, connection: _Connection, sid: str) -> None:
        """Close a socket that does not register in time."""
        await asyncio.sleep(REGISTER_TIMEOUT_S)
        if connection.session is None:
            log.warning("an agent did not register", agent_id=connection.agent_id)
            await self._server.disconnect(sid, namespace=NAMESPACE)

    async def _check(self, connection: _Connection, sid: str) -> None:
        """Close the session once its account may not be an agent's; an old token ends nothing."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                await self._use_cases.authenticate.require_agent_account(connection.account)
            except Unavailable as exc:
                log.warning("an account could not be looked at", reason=exc.message)
            except Unauthenticated as exc:
                log.warning("a session ended", agent_id=connection.agent_id, reason=exc.message)
                await self._server.disconnect(sid, namespace=NAMESPACE)
                return

    async def _disconnect(self, sid: str, reason: object = None, *_more: object) -> Answer | None:
        if self._server.manager.is_connected(sid, NAMESPACE):
            return unknown_event("disconnect")  # an event that calls itself so
        hang_up(self._server, sid)
        connection = self._connections.pop(sid, None)
        if connection is None:
            return None
        connection.end()
        if connection.session is not None:
            # A task of its own: the one that runs this may be among those just cancelled.
            self._tasks.create_task(
                self._release(connection.session, str(reason)), name=f"release {sid}"
            )
        return None

    async def _release(self, session: Session, reason: str) -> None:
        """Store that the session is over, for as long as that takes; a newer one is not harmed."""
        pause_s = RELEASE_FIRST_S
        while True:
            try:
                await self._use_cases.release_agent(session)
            except Unavailable as exc:
                log.warning(
                    "a release was not stored", agent_id=session.agent_id, reason=exc.message
                )
            except Exception:
                log.exception("a session could not be released", agent_id=session.agent_id)
            else:
                log.info("an agent left", agent_id=session.agent_id, reason=reason)
                return
            if self._use_cases.lifecycle.is_draining:
                return  # whoever starts next releases every session
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._use_cases.lifecycle.until_draining()
            pause_s = min(pause_s * 2, RELEASE_MAX_S)

    async def _event(self, event: str, *given: object) -> Answer:
        if event in self._connections:
            return unknown_event("*")  # an event that calls itself so: its sid stands first
        sid, payload = str(given[0]), given[1:]
        connection = self._connections.get(sid)
        if connection is None:
            return refusal("stale_session", "this session is over")
        data = payload[0] if payload else None

        async def handle() -> Answer:
            with _turn(connection):
                return await handler_of(self._handlers, event)(connection, sid, data)

        return await answered(event, handle)

    async def _register(self, connection: _Connection, sid: str, data: object) -> Answer:
        frame = parse(messages.Register, data)
        if connection.session is not None or connection.is_registering:
            return refusal("invalid_state", "this session is registered")
        self._use_cases.lifecycle.require_ready()
        connection.is_registering = True
        try:
            await self._supersede(connection, sid)
            registered = await self._use_cases.register_agent(
                wire.registration(frame, connection.agent_id, SessionId(sid))
            )
        finally:
            connection.is_registering = False
        if registered.is_older_copy:
            log.warning(
                "an agent came back with an older data folder",
                agent_id=connection.agent_id,
                last_epoch=frame.last_epoch,
            )
        connection.session = registered.session
        if sid not in self._connections:  # it left while its session was being stored
            await self._release(registered.session, "it left while it registered")
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
            answer = await self._server.call(
                OrderEvent.REGISTRATION_RESPONSE,
                response.model_dump(),
                to=sid,
                namespace=NAMESPACE,
                timeout=REGISTRATION_TIMEOUT_S,
            )
            honour_cancellation()
            if not _is_acknowledgement(answer):
                # What was offered in a session that the agent forgets would be lost in its next.
                log.warning("an agent refused its epoch", agent_id=session.agent_id)
                await self._server.disconnect(sid, namespace=NAMESPACE)
                return
            await self._use_cases.confirm_epoch(session)
            log.info("an agent registered", agent_id=session.agent_id, epoch=session.epoch)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._use_cases.dispatcher.serve(session), name="dispatch")
                tasks.create_task(self._record_all(connection, session), name="record")
                tasks.create_task(self._describe_all(connection, session), name="describe")
                tasks.create_task(self._check(connection, sid), name="check")
        except AcknowledgementTimeout:
            log.warning("an agent did not take its epoch", agent_id=session.agent_id)
            await self._server.disconnect(sid, namespace=NAMESPACE)
        except Exception:
            log.exception("a session failed", agent_id=session.agent_id)
            await self._server.disconnect(sid, namespace=NAMESPACE)

    async def _record_all(self, connection: _Connection, session: Session) -> None:
        """Store what the session's inbox holds, again and again.

        A session takes a bounded part of the writer's queue: others have to get their turn.
        """
        turns = asyncio.Semaphore(RECORDING_MAX)

        async def record(command_id: CommandId, frames: list[Waiting]) -> None:
            async with turns:
                await self._record(connection, session, command_id, frames)

        while True:
            frames = await self._storable(connection)
            by_command: dict[CommandId, list[Waiting]] = {}
            for waiting in frames:
                by_command.setdefault(waiting.command_id, []).append(waiting)
            # Begun in order, so the store takes them in order and commits them together.
            await asyncio.gather(*(record(found, ws) for found, ws in by_command.items()))
            if connection.was_full():
                await asyncio.sleep(LOOK_FOR_ROOM_S)

    async def _storable(self, connection: _Connection) -> list[Waiting]:
        """What waits; output only while there is room, and what follows it only after it."""
        while True:
            await connection.inbox.arrived()
            if self._use_cases.room.has_room() and not connection.was_full():
                return await connection.inbox.take()
            if frames := connection.inbox.take_without_output():
                return frames
            await asyncio.sleep(LOOK_FOR_ROOM_S)

    async def _record(
        self,
        connection: _Connection,
        session: Session,
        command_id: CommandId,
        frames: list[Waiting],
    ) -> None:
        unanswered, reports = frames, [waiting.report for waiting in frames]
        try:
            recorded = await self._use_cases.record_reports(session, command_id, reports)
            for waiting in frames:
                if waiting.recorded is not None and not waiting.recorded.done():
                    waiting.recorded.set_result(recorded)
        except StorageFull:  # a session that ended for it would come back and end again
            unanswered = []
            connection.try_again(frames)
            return
        except (Unavailable, StaleSession) as exc:
            log.warning("reports were not stored", agent_id=session.agent_id, reason=exc.message)
            raise
        finally:  # whatever else happened, nobody goes on waiting for it
            for waiting in unanswered:
                if waiting.recorded is not None:
                    waiting.recorded.cancel()
        if recorded.is_different:
            log.warning(
                "stored output is not what was sent",
                agent_id=session.agent_id,
                command_id=command_id,
            )
        if recorded.is_overrun:
            log.warning(
                "an agent sent more output than its order allows",
                agent_id=session.agent_id,
                command_id=command_id,
            )
            await self._server.disconnect(session.sid, namespace=NAMESPACE)
        elif recorded.has_gap:
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
        """Store what the agent says of itself, or keep the newest of it until it is time to."""
        del sid
        info = parse(resources.AgentInfo, data)
        session = _registered(connection)
        if connection.facts is None and connection.info_due_in_s() <= 0:
            connection.put_info_off()
            await self._use_cases.describe_agent(session, wire.facts(info))
        else:
            connection.facts = wire.facts(info)
            connection.described.set()
        return {"ok": True}

    async def _describe_all(self, connection: _Connection, session: Session) -> None:
        """Store the newest that was kept, when it is time to."""
        while True:
            await connection.described.wait()
            await asyncio.sleep(max(connection.info_due_in_s(), 0))
            connection.put_info_off()
            facts, connection.facts = connection.facts, None
            connection.described.clear()
            try:
                if facts is not None:
                    await self._use_cases.describe_agent(session, facts)
            except Unavailable as exc:
                log.warning("facts were not stored", agent_id=session.agent_id, reason=exc.message)

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


@contextmanager
def _turn(connection: _Connection) -> Iterator[None]:
    """One frame that is being answered; raises Throttled when too many are."""
    if connection.calls >= CALLS_MAX:
        raise Throttled("too many frames wait for their answers")
    connection.calls += 1
    try:
        yield
    finally:
        connection.calls -= 1


def _is_acknowledgement(answer: object) -> bool:
    """Whether the agent says that its epoch is on its disk."""
    return answer is True or (isinstance(answer, dict) and answer.get("ok") is True)


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
