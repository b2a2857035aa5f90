"""A TCP proxy that does to connections what networks do: it cuts, holds, loses, slows, splits."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from urllib.parse import urlsplit

DEADLINE_S = 40.0
_READ_BYTES = 65536


class Way(Enum):
    """A direction; `UP` leads to the controller."""

    UP = "up"
    DOWN = "down"


BOTH = (Way.UP, Way.DOWN)


@dataclass(eq=False)
class _Connection:
    """One connection through the proxy; what a `void` way carries is lost for good."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    void: set[Way] = field(default_factory=set)
    may_pass: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_pass.set()

    def abort(self) -> None:
        self.near.transport.abort()
        self.far.transport.abort()


class FaultyProxy:
    """Stands before a controller; `passed` counts the bytes of both directions.

    Its port stays the same while it serves, refuses, and serves again.
    """

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname, urlsplit(url).port)
        self._open: set[_Connection] = set()
        self._more = asyncio.Condition()
        self._clear = {way: asyncio.Event() for way in BOTH}
        self._loses: set[Way] = set()
        self._rough: tuple[Random, float] | None = None
        self._server: asyncio.Server | None = None
        self._port = 0
        self.passed = 0
        self.connections = 0
        self.url = ""
        self.release()

    # --- faults ---------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection in the middle of whatever it carries."""
        for connection in self._open:
            connection.abort()

    async def cut_for(self, seconds: float) -> None:
        """Reset every connection, refuse new ones for so long, then serve again."""
        await self.refuse()
        await asyncio.sleep(seconds)
        await self.accept()

    async def refuse(self) -> None:
        """Reset every connection; from now on nobody listens here."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def accept(self) -> None:
        """Listen (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=_bound(self._port))

    def hold(self, *ways: Way) -> None:
        """Let nothing through, and lose nothing: what waits arrives after `release`."""
        for way in ways or BOTH:
            self._clear[way].clear()

    def release(self) -> None:
        for event in self._clear.values():
            event.set()

    def swallow(self, *ways: Way) -> None:
        """Lose what is sent, close nothing: connections are half open until `heal`, and those
        that lost a byte stay so until their ends notice."""
        self._loses = set(ways or BOTH)

    def heal(self) -> None:
        """New connections work again."""
        self._loses = set()

    def roughen(self, random: Random, delay_s: float) -> None:
        """From now on split every write at random places; each part waits up to `delay_s`."""
        self._rough = (random, delay_s)

    def smooth(self) -> None:
        self._rough = None

    async def overtake(self, by_s: float) -> None:
        """Reset the near side; what was under way arrives `by_s` later, after its successor's."""
        late = set(self._open)
        for connection in late:
            connection.may_pass.clear()
            connection.near.transport.abort()
        await asyncio.sleep(by_s)
        for connection in late:
            connection.may_pass.set()

    # --- what tests ask -------------------------------------------------------------------------

    async def after(self, more_bytes: int, deadline_s: float = DEADLINE_S) -> None:
        """Return once so many more bytes have passed."""
        enough = self.passed + more_bytes
        async with asyncio.timeout(deadline_s), self._more:
            await self._more.wait_for(lambda: self.passed >= enough)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FaultyProxy"]:
        with _bound(0) as reserved:  # never listens: it keeps the port while we refuse
            self._port = reserved.getsockname()[1]
            self.url = f"http://127.0.0.1:{self._port}"
            await self.accept()
            try:
                yield self
            finally:
                self.release()
                await self.refuse()
                for connection in self._open:
                    connection.may_pass.set()
                async with asyncio.timeout(DEADLINE_S), self._more:
                    await self._more.wait_for(lambda: not self._open)

    # --- its work -------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection(*self._target)
        except OSError:
            near.transport.abort()
            return
        connection = _Connection(near, far)
        self._open.add(connection)
        self.connections += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry(Way.UP, reader, far, connection))
                tasks.create_task(self._carry(Way.DOWN, far_reader, near, connection))
        finally:
            connection.abort()
            self._open.discard(connection)
            async with self._more:
                self._more.notify_all()

    async def _carry(
        self,
        way: Way,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        connection: _Connection,
    ) -> None:
        with suppress(OSError):
            while data := await source.read(_READ_BYTES):
                if way in self._loses:
                    connection.void.add(way)
                if way not in connection.void:
                    await self._pass_on(way, data, sink, connection)
        if way not in connection.void or way is Way.DOWN:  # a lost end is told to nobody
            sink.close()

    async def _pass_on(
        self, way: Way, data: bytes, sink: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        await self._clear[way].wait()
        await connection.may_pass.wait()
        for piece, delay_s in self._pieces(data):
            await asyncio.sleep(delay_s)
            if sink.transport.is_closing():
                return
            sink.write(piece)
            await sink.drain()
        async with self._more:
            self.passed += len(data)
            self._more.notify_all()

    def _pieces(self, data: bytes) -> Iterable[tuple[bytes, float]]:
        if self._rough is None:
            return [(data, 0.0)]
        return _split(data, *self._rough)


def _split(data: bytes, random: Random, delay_s: float) -> Iterator[tuple[bytes, float]]:
    """Two to four parts of `data`, each with its delay; a byte alone stays one."""
    inner = range(1, len(data))
    places = sorted(random.sample(inner, min(len(inner), random.randint(1, 3))))
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        yield data[start:end], random.uniform(0, delay_s)


def _bound(port: int) -> socket.socket:
    """A socket on `port` of loopback that others of ours may share."""
    # with proto 0 asyncio would leave TCP_NODELAY off
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made
