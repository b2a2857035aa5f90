"""The Socket.IO servers of the two doors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import socketio

from app.infrastructure.socketio.guarded_server import Bounds, GuardedServer
from app.infrastructure.socketio.packets import OrjsonCodec, StrictMsgPackPacket, StrictPacket
from ogent.protocol.limits import FRAME_MAX_BYTES

#: A client's frame: the largest legal execute request, every character a JSON escape, fits.
CLIENT_FRAME_MAX_BYTES: Final = 4 * 1024 * 1024
#: An agent's frame with its envelope.
AGENT_FRAME_MAX_BYTES: Final = FRAME_MAX_BYTES + 64 * 1024
#: Agents' sockets without a CONNECT: they have shown a token, and a fleet comes back at once from
#: behind one address.
AGENTS_UNCONNECTED_MAX: Final = 4096
#: Messages that wait for an agent to read them: one transaction answers many reports.
AGENT_UNREAD_MAX: Final = 1024


def create_client_server(
    allowed_origins: Sequence[str], bounds: Bounds | None = None
) -> socketio.AsyncServer:
    """The clients' door: JSON; pages of the same origin, and of those allowed, may open it."""
    return GuardedServer(
        bounds or Bounds(),
        serializer=StrictPacket,
        json=OrjsonCodec,
        cors_allowed_origins=_may_open(frozenset(allowed_origins)),
        max_http_buffer_size=CLIENT_FRAME_MAX_BYTES,
    )


def create_agent_server() -> socketio.AsyncServer:
    """The agents' door: MessagePack over WebSocket only; no page may open it."""
    bounds = Bounds(
        unconnected_max=AGENTS_UNCONNECTED_MAX,
        unconnected_per_address_max=AGENTS_UNCONNECTED_MAX,
        unread_max=AGENT_UNREAD_MAX,
    )
    return GuardedServer(
        bounds,
        serializer=StrictMsgPackPacket,
        transports=["websocket"],
        max_http_buffer_size=AGENT_FRAME_MAX_BYTES,
    )


def _may_open(allowed: frozenset[str]) -> Callable[[str | None, Mapping[str, Any]], bool]:
    """Whether a page of an origin may open the door; Engine.IO takes a mere list as complete."""

    def may_open(origin: str | None, environ: Mapping[str, Any]) -> bool:
        return origin is not None and (
            "*" in allowed or origin in allowed or origin in _own_origins(environ)
        )

    return may_open


def _own_origins(environ: Mapping[str, Any]) -> set[str]:
    """Origins of pages that this controller served, as it or a proxy before it is called.

    A page cannot set the headers of a proxy without a preflight, which is refused.
    """
    scheme = {"ws": "http", "wss": "https"}.get(
        given := environ["asgi.scope"].get("scheme", "http"), given
    )
    host = environ.get("HTTP_HOST", "")
    proto = str(environ.get("HTTP_X_FORWARDED_PROTO", scheme)).split(",")[0].strip()
    forwarded = str(environ.get("HTTP_X_FORWARDED_HOST", host)).split(",")[0].strip()
    return {f"{scheme}://{host}", f"{proto}://{forwarded}"}
