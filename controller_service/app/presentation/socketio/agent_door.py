"""The agents' door: an agent's token opens it, before Engine.IO reads anything."""

from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.application.use_cases.sign_in import Authenticate
from app.domain.errors import ControllerError, Unauthenticated
from app.domain.ids import AgentId, UserName
from app.presentation.http.problems import of_error, problem_response
from ogent.protocol.names import AGENT_SOCKET_PATH

_SCOPE_KEY: Final = "ogent.agent"


@dataclass(frozen=True, slots=True)
class LetIn:
    """An agent that the door let in, and the account that it signed in with."""

    agent_id: AgentId
    account: UserName


class AgentDoor:
    """Lets requests on AGENT_SOCKET_PATH through to `door` with an agent's token, others to `app`.

    Who the agent is stands in the request's scope from here on; no field of a frame changes it.
    """

    def __init__(self, app: ASGIApp, door: ASGIApp, authenticate: Authenticate) -> None:
        self._app = app
        self._door = door
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check and pass on."""
        if scope["type"] == "lifespan" or not scope["path"].startswith(AGENT_SOCKET_PATH):
            await self._app(scope, receive, send)
            return
        try:
            scope[_SCOPE_KEY] = await self._agent(Headers(scope=scope))
        except ControllerError as exc:
            await _refuse(exc, scope, receive, send)
            return
        await self._door(scope, receive, send)

    async def _agent(self, headers: Headers) -> LetIn:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("an agent shows Authorization: Bearer with its token")
        agent_id = await self._authenticate.agent(token)
        return LetIn(agent_id, self._authenticate.agent_account(token))


def agent_in(scope: Scope) -> LetIn:
    """Which agent the door let in; raises KeyError for a request that did not pass it."""
    let_in: LetIn = scope[_SCOPE_KEY]
    return let_in


async def _refuse(exc: ControllerError, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem_response(of_error(exc))
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    await receive()  # websocket.connect; refused with a status of HTTP, not with a close code
    await send(
        {
            "type": "websocket.http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": response.body})
