"""How requests travel: the port `Transport`, and its HTTP adapter."""

import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import httpx2

from ogent.client.access_checks import usable_address
from ogent.client.errors import ConnectionFailed
from ogent.protocol.version import VERSION

CONNECT_TIMEOUT_S: Final = 10.0
WRITE_TIMEOUT_S: Final = 30.0
#: Below what servers commonly use, so that an idle connection is not found dead by a request.
KEEPALIVE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to a controller; `path` starts with a slash and its segments are quoted."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer; the names of `headers` are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpStream:
    """An answer whose body is still coming; `pieces` may be iterated once.

    The iterator raises ConnectionFailed where the body breaks off or stays silent too long.
    """

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]

    async def answer(self) -> HttpAnswer:
        """The whole answer, once its body has come."""
        return HttpAnswer(self.status, self.headers, b"".join([p async for p in self.pieces]))


class Transport(Protocol):
    """A way to a controller; `url` is its address, for messages."""

    @property
    def url(self) -> str:
        """The controller's address."""
        ...

    async def send(self, request: HttpRequest, *, timeout_s: float) -> HttpAnswer:
        """The answer to `request`, whatever its status.

        Raises ConnectionFailed where none came, or none for `timeout_s`. Nothing is repeated.
        """
        ...

    def stream(
        self, request: HttpRequest, *, silence_s: float
    ) -> AbstractAsyncContextManager[HttpStream]:
        """The answer to `request` as soon as its head is there; leaving the context ends it.

        Raises ConnectionFailed as `send` does, and where no byte comes for `silence_s`.
        A reader that does not read slows the sender down; nothing piles up.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection; the transport is of no use afterwards."""
        ...


class HttpTransport:
    """A Transport over HTTP/1.1 connections that are kept and reused.

    Making one raises UnusableAddress.
    """

    def __init__(self, url: str) -> None:
        self._url = usable_address(url).rstrip("/")
        self._http = httpx2.AsyncClient(
            headers={"User-Agent": f"ogent/{VERSION}", "Accept-Encoding": "identity"},
            limits=httpx2.Limits(max_connections=100, keepalive_expiry=KEEPALIVE_S),
        )

    @property
    def url(self) -> str:
        """The controller's address, without a slash at its end."""
        return self._url

    async def send(self, request: HttpRequest, *, timeout_s: float) -> HttpAnswer:
        """The answer to `request`; raises ConnectionFailed."""
        async with self.stream(request, silence_s=timeout_s) as stream:
            return await stream.answer()

    @asynccontextmanager
    async def stream(self, request: HttpRequest, *, silence_s: float) -> AsyncIterator[HttpStream]:
        """The answer to `request` as it comes; raises ConnectionFailed."""
        response = await self._open(request, silence_s)
        try:
            yield HttpStream(response.status_code, dict(response.headers), self._pieces(response))
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def _open(self, request: HttpRequest, silence_s: float) -> httpx2.Response:
        timeout = httpx2.Timeout(
            connect=CONNECT_TIMEOUT_S, write=WRITE_TIMEOUT_S, pool=CONNECT_TIMEOUT_S, read=silence_s
        )
        try:
            outgoing = self._http.build_request(
                request.method,
                self._url + request.path,
                params=dict(request.query) or None,
                headers=dict(request.headers),
                content=request.body,
                timeout=timeout,
            )
            return await self._http.send(outgoing, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as exc:
            raise ConnectionFailed(self._url, _reason(exc), nothing_sent=True) from exc
        except httpx2.UnsupportedProtocol as exc:
            reason = "the address has to start with http:// or https://"
            raise ConnectionFailed(self._url, reason, nothing_sent=True) from exc
        except httpx2.InvalidURL as exc:
            raise ConnectionFailed(self._url, f"bad address: {exc}", nothing_sent=True) from exc
        except httpx2.TransportError as exc:
            raise ConnectionFailed(self._url, _reason(exc), nothing_sent=False) from exc

    async def _pieces(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        try:
            async for piece in response.aiter_raw():
                yield piece
        except httpx2.TransportError as exc:
            raise ConnectionFailed(self._url, _reason(exc), nothing_sent=False) from exc


def _reason(exc: BaseException) -> str:
    """What the operating system said, where it said anything; it is clearer than the library."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted here: {seen.verify_message}"
        if isinstance(seen, ssl.SSLError):  # an OSError whose number is not the system's
            return f"TLS failed: {seen.reason or seen}"
        if isinstance(seen, OSError) and seen.errno is not None:
            return os.strerror(seen.errno) if seen.errno > 0 else str(seen.strerror)
        seen = seen.__cause__ or seen.__context__
    if isinstance(exc, httpx2.TimeoutException):
        return "no answer in time"
    return str(exc) or type(exc).__name__
