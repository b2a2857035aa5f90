"""What clients say on their door, and what they are told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import socketio
import structlog
from pydantic import BaseModel
from socketio.exceptions import ConnectionRefusedError as Refusal

from app import wire
from app.application.follower import Ended, StateReached
from app.application.look_again import rung_or_due
from app.application.ports.clock import Clock
from app.application.ports.wakeups import AGENTS_TOPIC, Wakeups
from app.application.use_cases import UseCases
from app.application.use_cases.queries import SeenAgent
from app.domain.errors import (
    ControllerError,
    Denied,
    NotFound,
    Throttled,
    TokenExpired,
    TooManySubscriptions,
    Unauthenticated,
    Unavailable,
)
from app.domain.ids import AgentId, CommandId
from app.domain.models.command import Command
from app.domain.models.selector import Selector
from app.domain.models.states import Action
from app.domain.models.user import Principal
from app.presentation.socketio.boundary import (
    Answer,
    answered,
    handler_of,
    hang_up,
    parse,
    refusal,
    unknown_event,
)
from ogent.protocol import messages
from ogent.protocol.names import NAMESPACE, ClientEvent, ControllerEvent
from ogent.protocol.version import VERSION

log = structlog.get_logger(__name__)

#: Commands that one socket follows at once, and calls that it may have waiting.
SUBSCRIPTIONS_MAX: Final = 64
CALLS_MAX: Final = 64
#: How long a socket lives on with an expired token.
EXPIRED_GRACE_S: Final = 60.0
#: How often it is looked at whether a socket may still be told what it is told.
CHECK_INTERVAL_S: Final = 3.0
#: After this time without a wake-up the list of agents is looked at.
LOOK_AGAIN_S: Final = 5.0


@dataclass(slots=True)
class _Socket:
    """A signed-in socket, what it follows, and its two locks.

    `calling` keeps its calls in order; `sending` lets one event at a time wait in its queue.
    """

    sid: str
    token: str
    principal: Principal
    follows: dict[CommandId, asyncio.Task[None]] = field(default_factory=dict)
    agents: asyncio.Task[None] | None = None
    expiry: asyncio.Task[None] | None = None
    check: asyncio.Task[None] | None = None
    calling: asyncio.Lock = field(default_factory=asyncio.Lock)
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    calls: int = 0

    def tasks(self) -> list[asyncio.Task[None]]:
        """Everything that runs for it."""
        found = (*self.follows.values(), self.agents, self.expiry, self.check)
        return [task for task in found if task is not None]


class ClientNamespace:
    """Handlers of the clients' door. `tasks` runs what sockets follow and outlives them."""

    def __init__(
        self,
        server: socketio.AsyncServer,
        use_cases: UseCases,
        wakeups: Wakeups,
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._server = server
        self._use_cases = use_cases
        self._wakeups = wakeups
        self._clock = clock
        self._tasks = tasks
        self._sockets: dict[str, _Socket] = {}
        self._handlers: Mapping[str, Callable[[_Socket, object], Awaitable[Answer]]] = {
            ClientEvent.EXECUTE_COMMAND: self._execute,
            ClientEvent.EXECUTE_COMMAND_REQUEST: self._execute,
            ClientEvent.SUBSCRIBE_COMMAND: self._subscribe,
            ClientEvent.UNSUBSCRIBE_COMMAND: self._unsubscribe,
            ClientEvent.CONTROL_COMMAND: self._control,
            ClientEvent.SUBSCRIBE_AGENTS: self._subscribe_agents,
        }
        server.on("connect", self._connect, namespace=NAMESPACE)
        server.on("disconnect", self._disconnect, namespace=NAMESPACE)
        server.on("*", self._event, namespace=NAMESPACE)

    async def close(self) -> None:
        """Close every socket; a client resumes from its next `seq`."""
        for sid in list(self._sockets):
            await self._server.disconnect(sid, namespace=NAMESPACE)

    # --- the socket's life ---------------------------------------------------------------------

    async def _connect(
        self, sid: str, environ: dict[str, Any] | None = None, auth: object = None, *_: object
    ) -> Answer | None:
        if sid in self._sockets:
            return unknown_event("connect")  # an event that calls itself so
        try:
            token = _token(environ or {}, auth)
            principal = await self._use_cases.authenticate(token)
        except ControllerError as exc:
            body = {"code": "unauthorized", "message": exc.message}
            raise Refusal(exc.message, body) from exc
        socket = _Socket(sid, token, principal)
        self._sockets[sid] = socket
        self._watch_expiry(socket)
        socket.check = self._spawn(socket, self._check(socket), "check")
        self._spawn(socket, self._welcome(socket), "welcome")
        return None

    async def _welcome(self, socket: _Socket) -> None:
        hello = messages.ConnectionResponse(sid=socket.sid, server_version=VERSION)
        await self._send(socket, ControllerEvent.CONNECTION_RESPONSE, hello)

    async def _disconnect(self, sid: str, reason: object = None, *_more: object) -> Answer | None:
        del reason
        if self._server.manager.is_connected(sid, NAMESPACE):
            return unknown_event("disconnect")  # an event that calls itself so
        hang_up(self._server, sid)
        socket = self._sockets.pop(sid, None)
        if socket is not None:
            for task in socket.tasks():
                if task is not asyncio.current_task():
                    task.cancel()
        return None

    def _watch_expiry(self, socket: _Socket) -> None:
        if socket.expiry is not None:
            socket.expiry.cancel()
        if socket.principal.expires_at is not None:
            socket.expiry = self._spawn(
                socket, self._expire(socket, socket.principal.expires_at), "expiry"
            )

    async def _expire(self, socket: _Socket, at: datetime) -> None:
        left_s = (at - self._clock.now()).total_seconds()
        await asyncio.sleep(max(left_s, 0) + EXPIRED_GRACE_S)
        await self._server.disconnect(socket.sid, namespace=NAMESPACE)

    async def _check(self, socket: _Socket) -> None:
        """Again and again: whose token it is, and whether he may see what he follows.

        Raises what is refused, which closes the socket. An expired token has its grace.
        """
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                socket.principal = await self._use_cases.authenticate(socket.token)
                for command_id in list(socket.follows):
                    await self._use_cases.queries.see_command(socket.principal, command_id)
            except TokenExpired:
                continue
            except Unavailable as exc:
                log.warning("a socket's rights could not be looked at", reason=exc.message)

    def _spawn(self, socket: _Socket, work: Awaitable[None], what: str) -> asyncio.Task[None]:
        """Run `work` for the socket; what goes wrong closes the socket and nothing else."""

        async def run() -> None:
            try:
                await work
            except (Unauthenticated, Denied, NotFound) as exc:
                log.info("a socket was closed", sid=socket.sid, reason=exc.message)
                await self._server.disconnect(socket.sid, namespace=NAMESPACE)
            except Exception:
                log.exception("a socket failed", sid=socket.sid, what=what)
                await self._server.disconnect(socket.sid, namespace=NAMESPACE)

        return self._tasks.create_task(run(), name=f"client {socket.sid} {what}")

    # --- calls ---------------------------------------------------------------------------------

    async def _event(self, event: str, *given: object) -> Answer:
        if event in self._sockets:
            return unknown_event("*")  # an event that calls itself so: its sid stands first
        sid, payload = str(given[0]), given[1:]
        socket = self._sockets.get(sid)
        if socket is None:
            return refusal("unauthorized", "this socket is not signed in")
        data = payload[0] if payload else {}

        async def handle() -> Answer:
            async with _turn(socket):
                if event == ClientEvent.AUTHENTICATE:
                    return await self._authenticate(socket, data)
                handler = handler_of(self._handlers, event)
                # Asked anew at each call: rights may have changed, and the token may be gone.
                socket.principal = await self._use_cases.authenticate(socket.token)
                return await handler(socket, data)

        return await answered(event, handle)

    async def _authenticate(self, socket: _Socket, data: object) -> Answer:
        wanted = parse(messages.ClientAuthenticate, data)
        principal = await self._use_cases.authenticate(wanted.token)
        if principal.name != socket.principal.name:
            raise Unauthenticated("the token is another user's: open a new socket")
        socket.token, socket.principal = wanted.token, principal
        self._watch_expiry(socket)
        return {"ok": True}

    async def _execute(self, socket: _Socket, data: object) -> Answer:
        wanted = parse(messages.ClientExecute, data)
        self._use_cases.lifecycle.require_ready()
        submission = wire.submission(
            wanted, socket.principal, wanted.agent_id, wanted.idempotency_key
        )
        first = await self._use_cases.submit_command.first_of(submission)
        if first not in socket.follows:  # else a repeat of what it follows: it needs no room
            _require_room(socket)
        command_id = await self._use_cases.submit_command(submission)
        self._follow(socket, command_id, 0, is_new=True)
        return {"ok": True, "command_id": command_id}

    async def _subscribe(self, socket: _Socket, data: object) -> Answer:
        wanted = parse(messages.ClientSubscribe, data)
        command_id = CommandId(wanted.command_id)
        command = await self._use_cases.queries.see_command(socket.principal, command_id)
        if command_id not in socket.follows:
            _require_room(socket)
        self._follow(socket, command_id, wanted.from_seq, is_new=False)
        return {"ok": True, "state": command.state.value, "next_seq": command.stored.next_seq}

    async def _unsubscribe(self, socket: _Socket, data: object) -> Answer:
        wanted = parse(messages.ClientUnsubscribe, data)
        task = socket.follows.pop(CommandId(wanted.command_id), None)
        if task is not None:
            task.cancel()
        return {"ok": True}

    async def _control(self, socket: _Socket, data: object) -> Answer:
        wanted = parse(messages.ClientControl, data)
        changed = await self._use_cases.control_command(
            socket.principal, CommandId(wanted.command_id), Action(wanted.action)
        )
        return {"ok": True, "state": changed.state.value}

    async def _subscribe_agents(self, socket: _Socket, data: object) -> Answer:
        wanted = parse(messages.ClientSubscribeAgents, data)
        selector = Selector.parse(wanted.selector or "")
        ids = None if wanted.agent_ids is None else frozenset(map(AgentId, wanted.agent_ids))
        await self._use_cases.queries.see_agents(socket.principal, selector=selector)
        if socket.agents is not None:
            socket.agents.cancel()
        socket.agents = self._spawn(socket, self._tell_agents(socket, selector, ids), "agents")
        return {"ok": True}

    # --- what sockets are told -----------------------------------------------------------------

    def _follow(
        self, socket: _Socket, command_id: CommandId, from_seq: int, *, is_new: bool
    ) -> None:
        """Tell the socket of a command; a second subscription replaces the first."""
        before = socket.follows.pop(command_id, None)
        if before is not None:
            before.cancel()
        work = self._tell(socket, command_id, from_seq, is_new=is_new)
        socket.follows[command_id] = self._spawn(socket, work, f"follow {command_id}")

    async def _tell(
        self, socket: _Socket, command_id: CommandId, from_seq: int, *, is_new: bool
    ) -> None:
        command = await self._use_cases.follower.commands.get(command_id)
        if is_new:
            accepted = wire.accepted(command)
            await self._send(socket, ControllerEvent.COMMAND_RESPONSE, accepted)
        async for item in self._use_cases.follower.follow(command_id, from_seq):
            if isinstance(item, Ended):
                await self._tell_result(socket, item.command)
            elif isinstance(item, StateReached):
                state = wire.state_reached(command, item)
                await self._send(socket, ControllerEvent.COMMAND_STATE, state)
            else:
                await self._send(  # nothing else holds it while it is on its way
                    socket, ControllerEvent.COMMAND_PROGRESS, wire.progress(command, item)
                )
        if socket.follows.get(command_id) is asyncio.current_task():
            del socket.follows[command_id]

    async def _tell_result(self, socket: _Socket, command: Command) -> None:
        tails = await self._use_cases.queries.tails(command)
        result = wire.client_result(command, tails)
        await self._send(socket, ControllerEvent.COMMAND_RESULT, result)

    async def _tell_agents(
        self, socket: _Socket, selector: Selector, ids: frozenset[AgentId] | None
    ) -> None:
        """The list of agents once, then what changes in it."""
        known: dict[AgentId, SeenAgent] | None = None
        version = 0
        with self._wakeups.listen(AGENTS_TOPIC) as bell:
            while True:
                seen = await self._use_cases.queries.see_agents(socket.principal, selector=selector)
                found = {s.agent.id: s for s in seen if ids is None or s.agent.id in ids}
                changed = _changed(known, found)
                if known is not None:
                    await self._tell_presence(socket, known, changed)
                    await self._tell_departures(socket, known, found)
                if known is None or changed:
                    version += 1
                    status = messages.AgentStatus(
                        kind="full" if known is None else "delta",
                        version=version,
                        agents=[wire.agent(s) for s in changed],
                    )
                    await self._send(socket, ControllerEvent.AGENT_STATUS, status)
                known = found
                await rung_or_due(bell, LOOK_AGAIN_S)

    async def _tell_presence(
        self, socket: _Socket, known: Mapping[AgentId, SeenAgent], changed: list[SeenAgent]
    ) -> None:
        for seen in changed:
            before = known.get(seen.agent.id)
            if (before.agent.sid if before else None) == seen.agent.sid:
                continue
            event = (
                ControllerEvent.AGENT_CONNECTED
                if seen.agent.is_online
                else ControllerEvent.AGENT_DISCONNECTED
            )
            await self._send(socket, event, wire.agent(seen))

    async def _tell_departures(
        self,
        socket: _Socket,
        known: Mapping[AgentId, SeenAgent],
        found: Mapping[AgentId, SeenAgent],
    ) -> None:
        """Agents that left what the socket may see, or asked for, are gone as far as it knows."""
        for key in known.keys() - found.keys():
            agent = known[key].agent.snapshot()
            agent.sid = None
            gone = wire.agent(replace(known[key], agent=agent))
            await self._send(socket, ControllerEvent.AGENT_DISCONNECTED, gone)

    async def _send(self, socket: _Socket, event: ControllerEvent, body: BaseModel) -> None:
        """Send one event; returns once the socket has room for the next.

        Nothing below has a bound, so the bound is here: one event of a socket is on its way, and
        nothing but its bytes is kept. A reader that stops stops us here, and costs this one.
        """
        async with socket.sending:
            payload = body.model_dump(mode="json", exclude_none=event in _WITHOUT_NULLS)
            del body
            await self._server.emit(event, payload, to=socket.sid, namespace=NAMESPACE)
            del payload
            await self._server.written(socket.sid)


#: Events whose optional fields are absent rather than null, as the protocol has them.
_WITHOUT_NULLS: Final = frozenset({ControllerEvent.COMMAND_PROGRESS})


@asynccontextmanager
async def _turn(socket: _Socket) -> AsyncIterator[None]:
    """One call of a socket after the other; raises Throttled when too many wait."""
    if socket.calls >= CALLS_MAX:
        raise Throttled("too many calls wait on this socket: wait for their acknowledgements")
    socket.calls += 1
    try:
        async with socket.calling:
            yield
    finally:
        socket.calls -= 1


def _require_room(socket: _Socket) -> None:
    if len(socket.follows) >= SUBSCRIPTIONS_MAX:
        raise TooManySubscriptions(
            f"this socket follows {SUBSCRIPTIONS_MAX} commands: unsubscribe from one first"
        )


def _changed(
    known: Mapping[AgentId, SeenAgent] | None, found: Mapping[AgentId, SeenAgent]
) -> list[SeenAgent]:
    """Agents that are not as they were; all of them at first."""
    return [seen for key, seen in found.items() if known is None or known.get(key) != seen]


def _token(environ: Mapping[str, Any], auth: object) -> str:
    """The token in `auth`, else in the Authorization header."""
    if isinstance(auth, dict) and isinstance(auth.get("token"), str) and auth["token"].isascii():
        return str(auth["token"])
    scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated('send auth={"token": …} or Authorization: Bearer')
    return token
