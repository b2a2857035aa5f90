"""Watching a command to its end, with a person at the keyboard."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Final

from ogent.cli.render import progress_line
from ogent.cli.screen import Screen
from ogent.client.client import Client
from ogent.client.errors import ApiError, OgentError
from ogent.client.following import Chunk, StateChange
from ogent.protocol.resources import Finished
from ogent.protocol.states import Action, State

#: A second Ctrl-C within this time cancels.
ASK_S: Final = 2.0
TICK_S: Final = 1.0


class Detached(Exception):
    """The user went away; the command goes on."""


class Interrupts:
    """Ctrl-C as something to wait for."""

    def __init__(self) -> None:
        self._pressed = asyncio.Semaphore(0)

    async def next(self) -> None:
        """Return at the next Ctrl-C; none is forgotten."""
        await self._pressed.acquire()

    @contextmanager
    def caught(self) -> Iterator[None]:
        """While this is entered, Ctrl-C raises no KeyboardInterrupt."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._pressed.release)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)


@dataclass(slots=True)
class Watch:
    """One command on one screen; `received` counts the bytes that came."""

    client: Client
    command_id: str
    screen: Screen
    interrupts: Interrupts
    received: int = 0
    _state: State | None = None
    _began_at: float = field(default_factory=time.monotonic)
    _output_at: float | None = None
    _broken: bool = False

    async def to_the_end(self) -> Finished:
        """Show the command until it has ended; raises Detached, OutputClosed, OgentError."""
        try:
            with self.interrupts.caught():
                async with asyncio.TaskGroup() as tasks:
                    following = tasks.create_task(self._follow(), name="follow")
                    others = (
                        tasks.create_task(self._attend(), name="attend to Ctrl-C"),
                        tasks.create_task(self._tick(), name="progress line"),
                    )
                    finished = await following
                    for task in others:
                        task.cancel()
            return finished
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            self.screen.erase_progress()

    async def _follow(self) -> Finished:
        async with aclosing(
            self.client.follow(self.command_id, on_interruption=self._interrupted)
        ) as events:
            async for event in events:
                self._resumed()
                match event:
                    case Chunk():
                        await self._show(event)
                    case StateChange():
                        self._state = event.state
                    case Finished():
                        await self.screen.finish()
                        return event
        raise AssertionError("following ends with Finished or an error")

    async def _show(self, chunk: Chunk) -> None:
        self.received += len(chunk.data)
        self._output_at = time.monotonic()
        await self.screen.output(chunk.stream, chunk.data)

    async def _attend(self) -> None:
        """Once asks, and detaches when nothing follows; twice cancels, a third time detaches."""
        await self.interrupts.next()
        self.screen.say("Ctrl-C again within 2 s cancels the command; detaching otherwise")
        try:
            async with asyncio.timeout(ASK_S):
                await self.interrupts.next()
        except TimeoutError:
            raise Detached from None
        self.screen.say("cancelling; Ctrl-C once more detaches without waiting")
        try:
            await self.client.control(self.command_id, Action.CANCEL)
        except ApiError as exc:
            self.screen.say(f"not cancelled: {exc}")
        await self.interrupts.next()
        raise Detached

    async def _tick(self) -> None:
        while self.screen.talks:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            quiet_s = None if self._output_at is None else now - self._output_at
            if quiet_s is None or quiet_s >= TICK_S:
                elapsed_s = now - self._began_at
                self.screen.show_progress(
                    progress_line(self._state, elapsed_s, self.received, quiet_s, self.screen.width)
                )

    def _interrupted(self, error: OgentError) -> None:
        if self.screen.talks and not self._broken:
            self.screen.say(f"{error}; resuming")
        self._broken = True

    def _resumed(self) -> None:
        if self.screen.talks and self._broken:
            self.screen.say("connected again")
        self._broken = False
