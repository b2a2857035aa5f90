"""One queue per session: what the controller sends is handled in the order of its arrival."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

Answer = TypeVar("Answer")

#: Messages that may wait; a controller keeps far fewer on their way.
INBOX_MAX: Final = 4096


class InboxClosed(Exception):
    """The session is over, or more waits than a controller that keeps to the protocol sends."""


class _Message(Generic[Answer]):
    def __init__(self, handle: Callable[[], Awaitable[Answer]]) -> None:
        self.handle = handle
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()


class Inbox(Generic[Answer]):
    """Handles messages one after the other, although the library would begin them all at once."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[_Message[Answer]] = asyncio.Queue(INBOX_MAX)
        self._is_closed = False

    def put(self, handle: Callable[[], Awaitable[Answer]]) -> asyncio.Future[Answer]:
        """Have `handle` called when it is its turn; the future gets what it returns.

        Must be called in the order of arrival, before anything is awaited. Raises InboxClosed.
        """
        if self._is_closed:
            raise InboxClosed("the session is over")
        message = _Message(handle)
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull as exc:
            raise InboxClosed(f"{INBOX_MAX} messages wait") from exc
        return message.answer

    async def run(self) -> None:
        """Handle messages until cancelled; then nobody who waits for an answer gets one."""
        try:
            while True:
                message = await self._messages.get()
                try:
                    answer = await message.handle()
                except BaseException:
                    message.answer.cancel()
                    raise
                if not message.answer.done():
                    message.answer.set_result(answer)
        finally:
            self._is_closed = True
            while not self._messages.empty():
                self._messages.get_nowait().answer.cancel()
