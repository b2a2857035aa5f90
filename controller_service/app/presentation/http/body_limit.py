"""A bound on request bodies, held while they are read."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.presentation.http.problems import problem_response
from ogent.protocol.problems import problem

#: The largest legal execute request, every character written as a JSON escape, fits.
BODY_MAX_BYTES: Final = 4 * 1024 * 1024


class BodyLimit:
    """Answers 413 to a request whose body is longer than BODY_MAX_BYTES."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is short enough."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > BODY_MAX_BYTES:
            await _refuse(scope, receive, send)
            return
        bounded = _Bounded(receive, send)
        await self._app(scope, bounded.receive, bounded.send)
        if bounded.is_too_long:
            await _refuse(scope, receive, send)


class _Bounded:
    """The two ends of a request that is cut off when a body without a length goes on too long.

    What the application answers to the cut is not sent: the reason is known better here.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._received = 0
        self.is_too_long = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > BODY_MAX_BYTES:
            self.is_too_long = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if not self.is_too_long:
            await self._send(message)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    detail = f"the body may have at most {BODY_MAX_BYTES} bytes"
    await problem_response(problem("body_too_large", detail))(scope, receive, send)
