"""A client of the clients' door that keeps everything that it is told."""

import asyncio
from collections.abc import Callable
from typing import Any

import socketio

DEADLINE_S = 20.0
Payload = dict[str, Any]


class SocketClient:
    """`heard` holds the events with their payloads in the order in which they came."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Payload]] = []
        self.closed = asyncio.Event()
        self.transport = ""
        self._changed = asyncio.Condition()
        # One inbox: python-socketio would run the handlers of two events beside each other.
        self.socket = socketio.AsyncClient(reconnection=False)
        self.socket.on("*", self._on_event)
        self.socket.on("disconnect", self._on_disconnect)

    async def connect(
        self, url: str, token: str, *, transport: str = "websocket", by_header: bool = False
    ) -> None:
        self.transport = transport
        shown = {"headers": {"Authorization": f"Bearer {token}"}}
        await self.socket.connect(
            url,
            transports=[transport],
            wait_timeout=DEADLINE_S,
            **(shown if by_header else {"auth": {"token": token}}),
        )

    async def disconnect(self) -> None:
        if self.transport == "polling":
            async with asyncio.timeout(DEADLINE_S):
                await self.closed.wait()
        await self.socket.disconnect()

    async def call(self, event: str, payload: object = None) -> Payload:
        """The acknowledgement of an event."""
        answer: Payload = await self.socket.call(event, payload, timeout=DEADLINE_S)
        return answer

    async def ok(self, event: str, payload: object = None) -> Payload:
        """The acknowledgement of an event that must succeed."""
        answer = await self.call(event, payload)
        assert answer["ok"] is True, answer
        return answer

    def all(self, event: str, **fields: object) -> list[Payload]:
        """Payloads of the event so far whose fields have these values."""
        return [
            payload
            for name, payload in self.heard
            if name == event and fields.items() <= payload.items()
        ]

    async def hears(self, event: str, count: int = 1, **fields: object) -> Payload:
        """The `count`th such event, once it is there."""
        await self.until(lambda: len(self.all(event, **fields)) >= count)
        return self.all(event, **fields)[count - 1]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(holds)

    async def _on_event(self, event: str, payload: Payload) -> None:
        self.heard.append((event, payload))
        async with self._changed:
            self._changed.notify_all()

    async def _on_disconnect(self, _reason: object = None) -> None:
        self.closed.set()
