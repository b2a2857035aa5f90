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
            detail = f"the body may have at most {BODY_MAX_BYTES} bytes"
            await problem_response(problem("body_too_large", detail))(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)


def _bounded(receive: Receive) -> Receive:
    """`receive`, which ends the request when a body without a length goes on too long."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_MAX_BYTES:
            return {"type": "http.disconnect"}
        return message

    return bounded
