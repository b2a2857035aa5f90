"""A Socket.IO server that bounds what a peer may cost before, and while, it is served."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

import socketio
import structlog
from engineio.packet import Packet
from starlette.types import Message, Receive, Scope, Send

from app.infrastructure.socketio.link import Link
from app.infrastructure.socketio.packets import OneShotPacket
from app.infrastructure.socketio.websocket_protocol import drained_in
from ogent.protocol.names import NAMESPACE

log = structlog.get_logger(__name__)

#: How long a socket may live, and how much it may send, until its CONNECT was accepted.
CONNECT_TIMEOUT_S: Final = 10.0
CONNECT_MAX_BYTES: Final = 8 * 1024
#: Sockets without a CONNECT, in all and from one address.
UNCONNECTED_MAX: Final = 1000
UNCONNECTED_PER_ADDRESS_MAX: Final = 100
#: Messages that wait for a peer to read them.
UNREAD_MAX: Final = 256
#: How long a peer may take to see that its socket was closed.
CLOSE_GRACE_S: Final = 10.0

_SCOPE_KEY: Final = "ogent.link"
_GONE: Final[Message] = {"type": "websocket.disconnect", "code": 1001}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What peers of one door may cost."""

    connect_timeout_s: float = CONNECT_TIMEOUT_S
    connect_max_bytes: int = CONNECT_MAX_BYTES
    unconnected_max: int = UNCONNECTED_MAX
    unconnected_per_address_max: int = UNCONNECTED_PER_ADDRESS_MAX
    unread_max: int = UNREAD_MAX


class GuardedServer(socketio.AsyncServer):  # type: ignore[misc]  # the library has no types
    """A server whose sockets are hung up beyond `bounds`, and at a frame that cannot be read.

    It says so in one line of the log per socket. The libraries themselves say nothing: they would
    write a traceback per bad frame, so the peer would write the log.
    """

    def __init__(self, bounds: Bounds, **options: Any) -> None:
        silent = _silent_logger()
        super().__init__(async_mode="asgi", logger=silent, engineio_logger=silent, **options)
        self._bounds = bounds
        self._links: dict[str, Link] = {}
        self._unconnected: Counter[str] = Counter()
        self._closing: set[asyncio.Task[None]] = set()
        self._inner: dict[str, Callable[..., Awaitable[Any]]] = dict(self.eio.handlers)
        self.eio.on("connect", self._on_open)
        self.eio.on("message", self._on_message)
        self.eio.on("disconnect", self._on_close)

    # --- requests --------------------------------------------------------------------------------

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever its peer sends, no error leaves it."""
        sid = _sid_in(scope)
        link = Link(_address(scope)) if sid is None else self._links.get(sid)
        if link is None or link.is_cut:
            await _answer(400, b"no such socket", scope, receive, send)
        elif sid is None and not self._has_room(link.address):
            await _answer(429, b"too many sockets have not signed in", scope, receive, send)
        elif not await self._may_go_on(link, _length(scope)):
            await _answer(413, b"more than this socket may send", scope, receive, send)
        else:
            scope[_SCOPE_KEY] = link
            link.drained = drained_in(scope) or link.drained
            await self._serve(link, scope, receive, send)

    async def _serve(self, link: Link, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def told(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await link.within(send(message))

        heard = self._guarded(link, receive) if scope["type"] == "websocket" else receive
        try:
            await super().handle_request(scope, heard, told)
        except Exception as exc:
            await self._unreadable(link, exc)
            if not has_begun and scope["type"] == "http":
                await _answer(400, b"this cannot be read", scope, receive, send)

    def _guarded(self, link: Link, receive: Receive) -> Receive:
        async def heard() -> Message:
            try:
                message = await link.within(receive())
            except TimeoutError:
                return _GONE
            body = message.get("text") or message.get("bytes") or ""
            return message if await self._may_go_on(link, len(body)) else _GONE

        return heard

    async def _may_go_on(self, link: Link, size: int) -> bool:
        """Whether `size` more bytes of the peer are taken; hangs it up otherwise."""
        if link.is_cut:
            return False
        link.spent_bytes += size
        if not link.is_admitted and link.spent_bytes > self._bounds.connect_max_bytes:
            await self._hang_up(link, "it sent too much before its CONNECT")
        transport = self.eio.sockets.get(link.sid)
        if transport is not None and transport.queue.qsize() > self._bounds.unread_max:
            await self._hang_up(link, "it does not read what it is told")
        return not link.is_cut

    def _has_room(self, address: str) -> bool:
        return (
            self._unconnected[address] < self._bounds.unconnected_per_address_max
            and self._unconnected.total() < self._bounds.unconnected_max
        )

    # --- sockets ---------------------------------------------------------------------------------

    async def _on_open(self, sid: str, environ: dict[str, Any]) -> bool | None:
        link: Link = environ["asgi.scope"][_SCOPE_KEY]
        if link.sid is not None or not self._has_room(link.address):
            return False
        link.sid = sid
        self._links[sid] = link
        self._unconnected[link.address] += 1
        link.overdue = asyncio.get_running_loop().call_later(
            self._bounds.connect_timeout_s, self._end_overdue, link
        )
        await self._inner["connect"](sid, environ)
        return None

    async def _on_message(self, sid: str, data: str | bytes) -> None:
        link = self._links.get(sid)
        if link is None or link.is_cut:
            return
        try:
            await self._inner["message"](sid, data)
        except Exception as exc:
            await self._unreadable(link, exc)
        if not link.is_admitted and self.manager.sid_from_eio_sid(sid, NAMESPACE) is not None:
            self._leave_unconnected(link)
            link.is_admitted = True

    async def _on_close(self, sid: str, reason: str) -> None:
        link = self._links.pop(sid, None)
        if link is not None:
            self._leave_unconnected(link)
            self._end_soon(link)
        await self._inner["disconnect"](sid, reason)

    async def disconnect(
        self, sid: str, namespace: str | None = None, ignore_queue: bool = False
    ) -> None:
        """End a session, and its transport soon after, also where its peer does not read."""
        link = self._links.get(self.manager.eio_sid_from_sid(sid, namespace or NAMESPACE))
        await super().disconnect(sid, namespace=namespace, ignore_queue=ignore_queue)
        if link is not None:
            self._end_soon(link)

    async def written(self, sid: str) -> None:
        """Return once what was emitted to the session has left this process, or it is over.

        Engine.IO's queue has no bound and neither has the connection's buffer: who emits large
        things one after the other, and waits here in between, holds one of them at a time.
        """
        eio_sid = self.manager.eio_sid_from_sid(sid, NAMESPACE)
        transport, link = self.eio.sockets.get(eio_sid), self._links.get(eio_sid)
        if transport is not None:
            await transport.queue.join()
        if link is not None and link.drained is not None:
            await link.drained()

    async def _send_eio_packet(self, eio_sid: str, eio_pkt: Packet) -> None:
        await super()._send_eio_packet(eio_sid, OneShotPacket.of(eio_pkt))

    def _leave_unconnected(self, link: Link) -> None:
        link.forget_overdue()
        if not link.is_admitted:
            self._unconnected -= Counter({link.address: 1})  # entries that fall to 0 are dropped

    def _end_overdue(self, link: Link) -> None:
        closing = asyncio.get_running_loop().create_task(
            self._hang_up(link, "it sent no CONNECT"), name=f"overdue {link.sid}"
        )
        self._closing.add(closing)  # the loop itself keeps no task alive
        closing.add_done_callback(self._closing.discard)

    async def _unreadable(self, link: Link, exc: Exception) -> None:
        await self._hang_up(link, f"a frame cannot be read: {type(exc).__name__}: {exc}"[:200])

    async def _hang_up(self, link: Link, reason: str) -> None:
        if link.is_cut:
            return
        link.is_cut = True
        log.warning("a socket was hung up", address=link.address, reason=reason)
        self._end_soon(link)
        transport = self.eio.sockets.get(link.sid)
        if transport is None:
            return
        _empty(transport.queue)
        await transport.close(wait=False, reason=self.reason.SERVER_DISCONNECT)
        transport.queue.put_nowait(None)  # its writer ends there

    def _end_soon(self, link: Link) -> None:
        link.end_at(asyncio.get_running_loop().time() + CLOSE_GRACE_S)


def _silent_logger() -> logging.Logger:
    silent = logging.getLogger(f"{__name__}.library")
    silent.setLevel(logging.CRITICAL)
    return silent


def _empty(queue: asyncio.Queue[Any]) -> None:
    while not queue.empty():
        queue.get_nowait()
        queue.task_done()


def _sid_in(scope: Scope) -> str | None:
    found = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("sid")
    return found[0] if found else None


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _length(scope: Scope) -> int:
    """Bytes of the request's body as it announces them; Engine.IO reads no more than these."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _answer(status: int, text: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect; refused with a status of HTTP, not with a close code
        kind = "websocket.http.response"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": text})
