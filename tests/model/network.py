"""The link between agent and controller: frames that a test delivers, delays, repeats and loses.

It takes the place of python-socketio on both sides, with its habits: a call whose peer is gone
times out, an emit to it vanishes, handlers of one peer run beside each other and begin in the
order in which the frames arrive.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import socketio

from agent.domain.errors import LinkLost
from ogent.protocol.names import AgentEvent
from tests.model.virtual_loop import Life, VirtualLoop

Handler = Callable[..., Awaitable[Any]]

#: After this time without an answer to its pings a peer notices that a link is dead.
PING_S = 45.0
#: For a connection to stand.
OPEN_S = 15.0


class Way(StrEnum):
    """A direction."""

    UP = "from the agent to the controller"
    DOWN = "from the controller to the agent"


@dataclass(frozen=True, slots=True)
class Frame:
    """An event, or the acknowledgement (`event` empty) of the one with the same number."""

    event: str
    payload: Any
    number: int | None

    @property
    def kind(self) -> str:
        return self.event or "an acknowledgement"


class Network:
    """All connections that ever were; `server` is where new ones are made, while one listens."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.server: ModelServer | None = None
        self.is_up = True
        self.held: set[Way] = set()
        self.connections: list[Connection] = []
        self.damages_next_chunk = False
        #: Ids of the commands of whose output something was changed on its way.
        self.damaged: set[str] = set()

    @property
    def newest(self) -> "Connection | None":
        return self.connections[-1] if self.connections else None

    async def connect(self, client: "ModelClient", auth: object) -> "Connection":
        """A connection; raises LinkLost where nobody answers."""
        if self.server is None or not self.is_up:
            raise LinkLost("nobody answers")
        connection = Connection(self, f"sid-{len(self.connections)}", client, self.server)
        self.connections.append(connection)
        await connection.open(auth)
        return connection

    def waiting(self, way: Way) -> "Connection | None":
        """The oldest connection that has a frame on its way there."""
        return next((c for c in self.connections if c.frames[way]), None)

    def perhaps_damaged(self, frame: Frame) -> Frame:
        """The frame, or, where that is due and it is a chunk, the same one with other bytes."""
        if not self.damages_next_chunk or frame.event != AgentEvent.COMMAND_PROGRESS:
            return frame
        self.damages_next_chunk = False
        self.damaged.add(frame.payload["command_id"])
        other = bytes(byte ^ 1 for byte in frame.payload["data"])
        return replace(frame, payload={**frame.payload, "data": other})

    def release(self, *ways: Way) -> None:
        """Let frames flow again."""
        self.held.difference_update(ways)
        for connection in self.connections:
            for way in ways:
                connection.flow(way)


class Connection:
    """One connection: two queues of frames, and two ends that learn of its end by themselves."""

    def __init__(
        self, network: Network, sid: str, client: "ModelClient", server: "ModelServer"
    ) -> None:
        self.network = network
        self.sid = sid
        self.frames: dict[Way, deque[Frame]] = {way: deque() for way in Way}
        self.is_cut = False
        self._client: ModelClient | None = client
        self._server: ModelServer | None = server
        self._flowing: set[Way] = set()

    async def open(self, auth: object) -> None:
        """Have the controller's door opened; raises LinkLost."""
        assert self._server is not None
        opened = self.network.loop.create_future()
        self._server.accept(self, auth, opened)
        try:
            async with asyncio.timeout(OPEN_S):
                await opened
        except TimeoutError as exc:
            self.close_client()
            raise LinkLost("the controller did not answer in time") from exc
        if self._client is None:
            raise LinkLost("it was cut before it stood")

    @property
    def is_open(self) -> bool:
        """Whether both ends believe in it."""
        return not self.is_cut and self._client is not None and self._server is not None

    def send(self, way: Way, frame: Frame) -> None:
        """Put a frame on its way; into a connection that is cut it vanishes."""
        if not self.is_cut:
            self.frames[way].append(self.network.perhaps_damaged(frame))
            self.flow(way)

    def flow(self, way: Way) -> None:
        """Have what waits arrive, one after the other, unless the test holds it."""
        if self.frames[way] and way not in self.network.held and way not in self._flowing:
            self._flowing.add(way)
            self.network.loop.call_soon(self._pump, way)

    def _pump(self, way: Way) -> None:
        self._flowing.discard(way)
        if self.frames[way] and way not in self.network.held:
            self.arrive(way, self.frames[way].popleft())
            self.flow(way)

    def arrive(self, way: Way, frame: Frame) -> None:
        """Hand a frame over to who still listens at that end."""
        end = self._server if way is Way.UP else self._client
        if end is not None:
            end.take(self, frame)

    # --- its end --------------------------------------------------------------------------

    def cut(self, *, client_after_s: float, server_after_s: float, loses: set[Way]) -> None:
        """Nothing more can be sent; each end notices after its time."""
        self.is_cut = True
        for way in loses:
            self.frames[way].clear()
        for seconds, close in (
            (client_after_s, self.close_client),
            (server_after_s, self.close_server),
        ):
            self.network.loop.call_later(seconds, close)

    def close_client(self) -> None:
        """The agent's end is over: what arrives there later is not heard."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnected()
            self._end_other_side(Way.UP)

    def close_server(self) -> None:
        """The controller's end is over, and it is told so."""
        server = self._server
        if server is not None:
            self.leave_server()
            server.disconnected(self.sid)

    def leave_server(self) -> None:
        """The controller has closed its end."""
        self._server = None
        self._end_other_side(Way.DOWN)

    def _end_other_side(self, way: Way) -> None:
        """An end that goes in order says so behind everything that it has sent."""
        if not self.is_cut:
            self.frames[way].append(GOODBYE)
            self.flow(way)


GOODBYE = Frame("goodbye", None, None)


class _End:
    """What both ends have in common: calls that wait for their acknowledgements."""

    def __init__(self, life: Life, way: Way) -> None:
        self.life = life
        self._way = way
        self._handlers: dict[str, Handler] = {}
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self.eio = SimpleNamespace(sockets={}, queue=_Sent())

    def on(self, event: str, handler: Handler, namespace: str) -> None:
        self._handlers[event] = handler

    async def _call(
        self, connection: Connection | None, event: str, payload: object, timeout: float
    ) -> Any:
        self.life.require()
        number = next(self._numbers)
        answer = self._asked[number] = self.life.loop.create_future()
        if connection is not None:
            connection.send(self._way, Frame(event, payload, number))
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise socketio.exceptions.TimeoutError from None
        finally:
            self._asked.pop(number, None)

    def _answered(self, frame: Frame) -> None:
        answer = self._asked.pop(frame.number or 0, None)
        if answer is not None and not answer.done():
            answer.set_result(frame.payload)

    async def _handle(
        self, connection: Connection, frame: Frame, handler: Handler, *args: object
    ) -> None:
        answer = await handler(*args)
        if frame.number is not None and not self.life.is_over:
            connection.send(self._way, Frame("", answer, frame.number))


class _Sent:
    """The library's queue of what is to be sent: always empty."""

    async def join(self) -> None:
        """Everything has left."""


class ModelClient(_End):
    """As much of a socketio.AsyncClient as the agent uses."""

    def __init__(self, life: Life, network: Network) -> None:
        super().__init__(life, Way.UP)
        self._network = network
        self._connection: Connection | None = None

    async def connect(self, auth: object) -> None:
        """Open the one connection; raises LinkLost."""
        self._connection = await self._network.connect(self, auth)

    async def disconnect(self) -> None:
        if self._connection is not None and not self.life.is_over:
            self._connection.close_client()

    async def emit(self, event: str, payload: object, namespace: str) -> None:
        self._require().send(Way.UP, Frame(str(event), payload, None))

    async def call(self, event: str, payload: object, namespace: str, timeout: float) -> Any:
        return await self._call(self._require(), str(event), payload, timeout)

    def take(self, connection: Connection, frame: Frame) -> None:
        if frame is GOODBYE:
            connection.close_client()
        elif not frame.event:
            self._answered(frame)
        else:
            handler = self._handlers[frame.event]
            self.life.spawn(self._handle(connection, frame, handler, frame.payload))

    def disconnected(self) -> None:
        self._connection = None
        if not self.life.is_over:
            self.life.spawn(self._handlers["disconnect"]("it was cut"))

    def _require(self) -> Connection:
        self.life.require()
        if self._connection is None:
            raise socketio.exceptions.BadNamespaceError("/ is not a connected namespace.")
        return self._connection


class ModelServer(_End):
    """As much of a socketio.AsyncServer as the agents' door uses; it is its own manager."""

    def __init__(self, life: Life, environ: dict[str, Any]) -> None:
        super().__init__(life, Way.DOWN)
        self.manager = self
        self._environ = environ
        self._connections: dict[str, Connection] = {}

    def accept(self, connection: Connection, auth: object, opened: asyncio.Future[None]) -> None:
        self._connections[connection.sid] = connection
        self.life.spawn(self._open(connection, auth, opened))

    async def _open(
        self, connection: Connection, auth: object, opened: asyncio.Future[None]
    ) -> None:
        await self._handlers["connect"](connection.sid, self._environ, auth)
        if not opened.done():
            opened.set_result(None)

    async def emit(self, event: str, payload: object, to: str, namespace: str) -> None:
        self.life.require()
        connection = self._connections.get(to)
        if connection is not None:
            connection.send(Way.DOWN, Frame(str(event), payload, None))

    async def call(
        self, event: str, payload: object, to: str, namespace: str, timeout: float
    ) -> Any:
        return await self._call(self._connections.get(to), str(event), payload, timeout)

    async def disconnect(self, sid: str, namespace: str) -> None:
        self.life.require()
        connection = self._connections.pop(sid, None)
        if connection is not None:
            connection.leave_server()
            await self._handlers["disconnect"](sid, "closed by the controller")

    def is_connected(self, sid: str, namespace: str) -> bool:
        return sid in self._connections

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str:
        return sid

    def take(self, connection: Connection, frame: Frame) -> None:
        if frame is GOODBYE:
            connection.close_server()
        elif not frame.event:
            self._answered(frame)
        else:
            handler, sid = self._handlers["*"], connection.sid
            self.life.spawn(
                self._handle(connection, frame, handler, frame.event, sid, frame.payload)
            )

    def disconnected(self, sid: str) -> None:
        if self._connections.pop(sid, None) is not None and not self.life.is_over:
            self.life.spawn(self._handlers["disconnect"](sid, "it was cut"))
