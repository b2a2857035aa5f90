"""The client: an account's view of one controller."""

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from ogent.client.access_checks import usable_token
from ogent.client.accounts import Accounts
from ogent.client.agents import Agents
from ogent.client.answers import parse, raise_for_problem
from ogent.client.api import Api
from ogent.client.commands import Commands
from ogent.client.login import LoginFile, find_access
from ogent.client.tokens import Credentials, FixedToken, NoCredentials, PasswordSignIn
from ogent.client.transport import HttpRequest, HttpTransport, Transport
from ogent.protocol.resources import Health

_HEALTH_TIMEOUT_S: Final = 10.0


class Client(Commands, Agents, Accounts):
    """A controller as one account sees it; use it as an async context manager.

    Give a `token`, or `username` and `password`: then it signs in when that is first needed and
    renews the token by itself. GET requests are repeated for up to `retry_for` seconds while the
    controller cannot be reached, and `follow` is resumed for up to `resume_for` seconds from the
    start of an interruption. Methods raise the classes of `ogent.client.errors`.

    Making one raises UnusableAddress or UnusableToken where no request could be sent with it.

    A client may be used by many tasks of one event loop at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        username: str | None = None,
        password: str | None = None,
        retry_for: float = 15.0,
        resume_for: float = 300.0,
        transport: Transport | None = None,
    ) -> None:
        self._transport = transport or HttpTransport(url)
        credentials = _credentials(self._transport, token, username, password)
        super().__init__(Api(self._transport, credentials, retry_for, resume_for))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Client":
        """A client for OGENT_URL with OGENT_TOKEN, or for what `ogent login` stored.

        Raises DamagedLogin, UnusableAddress, UnusableToken; a missing token shows as NotSignedIn
        at the first call.
        """
        access = find_access(environ, LoginFile.of(environ))
        return cls(access.url, token=access.token)

    @property
    def url(self) -> str:
        """The controller's address."""
        return self._transport.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._transport.aclose()

    async def health(self) -> Health:
        """That the controller answers; needs no token, is sent once; raises ConnectionFailed."""
        answer = await self._transport.send(
            HttpRequest("GET", "/health"), timeout_s=_HEALTH_TIMEOUT_S
        )
        raise_for_problem(answer)
        return parse(Health, answer)

    async def ready(self) -> bool:
        """Whether the controller takes work now; needs no token, is sent once."""
        answer = await self._transport.send(
            HttpRequest("GET", "/ready"), timeout_s=_HEALTH_TIMEOUT_S
        )
        if answer.status == 503:
            return False
        raise_for_problem(answer)
        return True


def _credentials(
    transport: Transport, token: str | None, username: str | None, password: str | None
) -> Credentials:
    if token is not None:
        return FixedToken(usable_token(token))
    if username is not None and password is not None:
        return PasswordSignIn(transport, username, password)
    return NoCredentials()
