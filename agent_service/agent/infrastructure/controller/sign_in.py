"""Signing in: an account's name and password for a token of this agent."""

from dataclasses import dataclass, field
from typing import Final

import aiohttp
from pydantic import ValidationError

from agent.domain.ids import AgentId
from ogent.protocol.resources import AccessToken

#: For one try to sign in.
SIGN_IN_TIMEOUT_S: Final = 30.0
_ANSWER_MAX_BYTES: Final = 64 * 1024


class SignInFailed(Exception):
    """No token: the message says why. `retry_after_s` is what the controller asked for."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSignIn:
    """Fetches a token at each call."""

    http: aiohttp.ClientSession
    url: str
    agent_id: AgentId
    username: str
    password: str = field(repr=False)

    async def __call__(self) -> str:
        """A fresh token; raises SignInFailed."""
        form = {
            "username": self.username,
            "password": self.password,
            "scope": f"agent:{self.agent_id}",
        }
        timeout = aiohttp.ClientTimeout(total=SIGN_IN_TIMEOUT_S)
        try:
            async with self.http.post(
                f"{self.url}/token", data=form, timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    raise self._failed(answer)
                body = await answer.content.read(_ANSWER_MAX_BYTES)
        except (TimeoutError, aiohttp.ClientError, OSError) as exc:
            raise SignInFailed(f"the controller at {self.url} cannot be reached: {exc}") from exc
        return self._token(body)

    def _token(self, body: bytes) -> str:
        try:
            return AccessToken.model_validate_json(body).access_token
        except ValidationError as exc:
            raise SignInFailed(f"{self.url} does not answer as an Ogent controller") from exc

    def _failed(self, answer: aiohttp.ClientResponse) -> SignInFailed:
        wait_s = _seconds(answer.headers.get("Retry-After", ""))
        reasons = {
            401: f"wrong user name or password for {self.username!r}: "
            "check AGENT_USERNAME and AGENT_PASSWORD",
            403: f"the account {self.username!r} may not sign in as agent {self.agent_id}",
            429: "the controller refuses sign-ins after repeated failures",
        }
        reason = reasons.get(answer.status, f"the controller answered {answer.status} to /token")
        return SignInFailed(reason, retry_after_s=wait_s)


def _seconds(text: str) -> float:
    return min(float(text), 3600.0) if text.isascii() and text.isdigit() else 0.0
