"""uvicorn's WebSocket, which also says when what was written has left this process."""

from collections.abc import Awaitable, Callable
from typing import Final, cast

from starlette.types import Scope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_SCOPE_KEY: Final = "ogent.drained"


class DrainingWebSocket(WebSocketsSansIOProtocol):
    """Give it to uvicorn as `ws`.

    ASGI's `send` returns as soon as a message is in the buffer of the connection, however little
    its peer reads. With this one, who sends may wait until the buffer is nearly empty.
    """

    async def run_asgi(self) -> None:
        """Run the application, with the wait in its scope."""
        cast("Scope", self.scope)[_SCOPE_KEY] = self.writable.wait
        await super().run_asgi()


def drained_in(scope: Scope) -> Callable[[], Awaitable[object]] | None:
    """The wait for the buffer of the connection; None for one that has none."""
    found: Callable[[], Awaitable[object]] | None = scope.get(_SCOPE_KEY)
    return found
