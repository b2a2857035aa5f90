"""Where the bearer token of a request comes from."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import urlencode

from ogent.client.access_checks import usable_token
from ogent.client.answers import parse, raise_for_problem
from ogent.client.errors import NotSignedIn, ProtocolError, UnusableToken
from ogent.client.transport import HttpRequest, Transport
from ogent.protocol.resources import AccessToken

SIGN_IN_TIMEOUT_S: Final = 30.0
#: A token is renewed after this part of its life, and never later than 30 s before its end.
RENEW_AFTER: Final = 0.8


class Credentials(Protocol):
    """A source of tokens."""

    async def token(self) -> str:
        """A token that is good for the next request; raises NotSignedIn where there is none."""
        ...

    def refused(self, token: str) -> bool:
        """Note that the controller refused `token`; true where `token()` may now give another."""
        ...


class NoCredentials:
    """For what needs no token: `health` and `ready`."""

    async def token(self) -> str:
        """Raise NotSignedIn."""
        raise NotSignedIn("not signed in: give a token, or a name and a password")

    def refused(self, token: str) -> bool:  # noqa: ARG002 - the port's signature
        """False."""
        return False


class FixedToken:
    """A token that somebody else made and renews."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        """The token."""
        return self._token

    def refused(self, token: str) -> bool:  # noqa: ARG002 - the port's signature
        """False: there is no other."""
        return False


class PasswordSignIn:
    """Signs in with a name and a password when a token is first needed, and again before it ends.

    Requests that run beside each other share one sign-in.
    """

    def __init__(
        self,
        transport: Transport,
        username: str,
        password: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._username = username
        self._password = password
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._renew_at = 0.0

    async def token(self) -> str:
        """A fresh enough token; raises InvalidCredentials, TooManyAttempts, ConnectionFailed."""
        async with self._lock:
            if self._token is None or self._monotonic() >= self._renew_at:
                issued = await sign_in(self._transport, self._username, self._password)
                self._token = issued.access_token
                self._renew_at = self._monotonic() + _good_for_s(issued.expires_in)
            return self._token

    def refused(self, token: str) -> bool:
        """True: the next `token()` signs in again, unless that has happened already."""
        if token == self._token:
            self._token = None
        return True


async def sign_in(transport: Transport, username: str, password: str) -> AccessToken:
    """A token for `username`; raises InvalidCredentials, TooManyAttempts or ConnectionFailed."""
    request = HttpRequest(
        "POST",
        "/token",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode({"username": username, "password": password}).encode(),
    )
    answer = await transport.send(request, timeout_s=SIGN_IN_TIMEOUT_S)
    raise_for_problem(answer)
    issued = parse(AccessToken, answer)
    try:
        usable_token(issued.access_token)
    except UnusableToken as exc:
        raise ProtocolError(f"the controller issued a token of no use: {exc}") from exc
    return issued


def _good_for_s(expires_in_s: float) -> float:
    return max(0.0, min(expires_in_s * RENEW_AFTER, expires_in_s - 30.0))
