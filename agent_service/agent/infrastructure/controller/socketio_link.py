"""A session over Socket.IO with MessagePack."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import aiohttp
import socketio
from pydantic import ValidationError

from agent import wire
from agent.application.cancellation import honour_cancellation
from agent.application.ports.controller_link import Accepted, Incomplete, Registration
from agent.domain.errors import LinkLost, NotAcknowledged
from agent.domain.ids import CommandId
from agent.domain.models.execution import Outcome, Report
from agent.domain.models.output import Chunk, OutputTotals
from ogent.protocol.messages import AgentAuth
from ogent.protocol.names import AGENT_SOCKET_PATH, NAMESPACE, AgentEvent

#: For an acknowledgement; for the connection to stand; for it to be closed.
ACK_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 15.0
CLOSE_TIMEOUT_S: Final = 3.0

#: What the library raises where the peer's first packet is none.
_SENSELESS: Final = (TypeError, ValueError, IndexError, KeyError, AttributeError)

AnswerT = TypeVar("AnswerT")
Handler = Callable[..., Awaitable[object]]


class SocketIOLink:
    """A ControllerLink over a connected client that it does not own."""

    def __init__(self, client: socketio.AsyncClient) -> None:
        self._client = client
        self._ended = asyncio.Event()
        client.on("disconnect", self._on_disconnect, namespace=NAMESPACE)

    async def closed(self) -> None:
        """Return when the session is over."""
        await self._ended.wait()

    async def register(self, registration: Registration) -> None:
        """Begin the session."""
        await self._emit(AgentEvent.REGISTER, wire.register_frame(registration))

    async def send_chunk(self, command_id: CommandId, chunk: Chunk) -> None:
        """Send a chunk."""
        await self._emit(AgentEvent.COMMAND_PROGRESS, wire.chunk_frame(command_id, chunk))

    async def drained(self) -> None:
        """Return when the library's queue, which has no bound of its own, is empty."""
        async with asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(self._client.eio.queue.join())
            ended = tasks.create_task(self._ended.wait())
            await asyncio.wait({sent, ended}, return_when=asyncio.FIRST_COMPLETED)
            sent.cancel()
            ended.cancel()
        self._require_open()

    async def send_report(self, report: Report) -> Accepted:
        """Send where an execution stands."""
        return await self._call(AgentEvent.COMMAND_STATE, wire.report_frame(report), wire.accepted)

    async def send_outcome(self, outcome: Outcome, totals: OutputTotals) -> Accepted | Incomplete:
        """Send how an execution ended and what it wrote."""
        return await self._call(
            AgentEvent.COMMAND_RESULT, wire.outcome_frame(outcome, totals), wire.outcome_answer
        )

    async def _on_disconnect(self, *_reason: object) -> None:
        self._ended.set()

    def _require_open(self) -> None:
        if self._ended.is_set():
            raise LinkLost("the connection was lost")

    async def _emit(self, event: str, payload: wire.Payload) -> None:
        self._require_open()
        try:
            await self._client.emit(event, payload, namespace=NAMESPACE)
        except socketio.exceptions.SocketIOError as exc:
            raise LinkLost("the connection was lost") from exc

    async def _call(
        self, event: str, payload: wire.Payload, read: Callable[[object], AnswerT]
    ) -> AnswerT:
        self._require_open()
        try:
            answer = await self._client.call(
                event, payload, namespace=NAMESPACE, timeout=ACK_TIMEOUT_S
            )
            honour_cancellation()
            return read(answer)
        except socketio.exceptions.TimeoutError as exc:
            self._require_open()
            raise NotAcknowledged(f"{event} was not acknowledged in time") from exc
        except socketio.exceptions.SocketIOError as exc:
            raise LinkLost("the connection was lost") from exc
        except ValidationError as exc:
            raise NotAcknowledged(f"the acknowledgement of {event} is malformed") from exc


@asynccontextmanager
async def open_link(
    url: str,
    *,
    http: aiohttp.ClientSession,
    token: str,
    auth: AgentAuth,
    handlers: Mapping[str, Handler],
) -> AsyncIterator[SocketIOLink]:
    """Connect to the agents' door of the controller at `url`; closed at the end of the block.

    `http` stays open. Raises LinkLost when the connection does not come about.
    """
    client = socketio.AsyncClient(
        reconnection=False,
        serializer="msgpack",
        http_session=http,
        handle_sigint=False,
    )
    for event, handler in handlers.items():
        client.on(event, handler, namespace=NAMESPACE)
    link = SocketIOLink(client)
    try:
        await _connect(client, url, token, auth)
        yield link
    finally:
        await _disconnect(client)


async def _connect(client: socketio.AsyncClient, url: str, token: str, auth: AgentAuth) -> None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await client.connect(
                url,
                headers={"Authorization": f"Bearer {token}"},
                auth=auth.model_dump(),
                transports=["websocket"],
                namespaces=[NAMESPACE],
                socketio_path=AGENT_SOCKET_PATH.lstrip("/"),
                wait_timeout=CONNECT_TIMEOUT_S,
            )
    except TimeoutError as exc:
        raise LinkLost(f"the controller at {url} did not answer in time") from exc
    except (socketio.exceptions.SocketIOError, aiohttp.ClientError, OSError, *_SENSELESS) as exc:
        raise LinkLost(f"the controller at {url} refused the session: {exc}") from exc
    honour_cancellation()
    if client.eio.state != "connected":  # cut before the library would have told of it
        raise LinkLost("the connection was lost")


async def _disconnect(client: socketio.AsyncClient) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.disconnect()
    except TimeoutError:
        pass  # the peer does not close its end; the connection ends with the http session
    honour_cancellation()  # the library's reading task, which is awaited there, may take it
