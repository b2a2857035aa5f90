"""A TCP proxy that cuts its connections on request: a network that does not keep them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class CuttingProxy:
    """Stands before a controller; `passed` counts the bytes of both directions."""

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname, urlsplit(url).port)
        self._open: set[asyncio.StreamWriter] = set()
        self._more = asyncio.Condition()
        self.passed = 0
        self.url = ""

    def cut(self) -> None:
        """Reset every connection in the middle of whatever it carries."""
        for writer in self._open:
            writer.transport.abort()

    async def after(self, more_bytes: int) -> None:
        """Return once so many more bytes have passed."""
        enough = self.passed + more_bytes
        async with asyncio.timeout(40), self._more:
            await self._more.wait_for(lambda: self.passed >= enough)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["CuttingProxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._open.add(far_writer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry(reader, far_writer))
                tasks.create_task(self._carry(far_reader, writer))
            self._open.discard(far_writer)
        writer.close()
        self._open.discard(writer)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
                async with self._more:
                    self.passed += len(data)
                    self._more.notify_all()
        sink.close()
