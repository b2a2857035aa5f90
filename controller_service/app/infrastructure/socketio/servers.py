"""The Socket.IO servers of the two doors."""

from collections.abc import Sequence
from typing import Any, Final

import orjson
import socketio

from ogent.protocol.limits import FRAME_MAX_BYTES

#: A client's frame: the largest legal execute request, every character a JSON escape, fits.
CLIENT_FRAME_MAX_BYTES: Final = 4 * 1024 * 1024
#: An agent's frame with its envelope.
AGENT_FRAME_MAX_BYTES: Final = FRAME_MAX_BYTES + 64 * 1024


class OrjsonCodec:
    """orjson in the shape of the module `json`, as python-socketio wants it."""

    @staticmethod
    def dumps(value: Any, **_options: Any) -> str:
        """`value` as JSON text."""
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_options: Any) -> Any:
        """The value of JSON text; raises ValueError."""
        return orjson.loads(text)


def create_client_server(allowed_origins: Sequence[str]) -> socketio.AsyncServer:
    """The clients' door: JSON; pages of the same origin, and of those allowed, may open it."""
    return socketio.AsyncServer(
        async_mode="asgi",
        json=OrjsonCodec,
        cors_allowed_origins=list(allowed_origins) or None,
        max_http_buffer_size=CLIENT_FRAME_MAX_BYTES,
        logger=False,
        engineio_logger=False,
    )


def create_agent_server() -> socketio.AsyncServer:
    """The agents' door: MessagePack over WebSocket only; no page may open it."""
    return socketio.AsyncServer(
        async_mode="asgi",
        serializer="msgpack",
        transports=["websocket"],
        max_http_buffer_size=AGENT_FRAME_MAX_BYTES,
        logger=False,
        engineio_logger=False,
    )
