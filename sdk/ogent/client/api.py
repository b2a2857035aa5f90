"""Requests with a token, repeated where that is safe, and their answers as types."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from pydantic import BaseModel

from ogent.client.answers import raise_for_problem
from ogent.client.backoff import Backoff
from ogent.client.errors import (
    ApiError,
    ConnectionFailed,
    InvalidId,
    OgentError,
    UnexpectedAnswer,
)
from ogent.client.tokens import Credentials
from ogent.client.transport import HttpAnswer, HttpRequest, HttpStream, Transport

ANSWER_TIMEOUT_S: Final = 60.0
_PASSING: Final = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Api:
    """A controller's REST interface for one account.

    GET requests are repeated for up to `retry_for_s` while the controller cannot be reached or
    says that it is not ready; everything else is sent once.
    """

    transport: Transport
    credentials: Credentials
    retry_for_s: float
    resume_for_s: float

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> HttpAnswer:
        """The answer to a GET; raises the error that it carries."""
        backoff = Backoff(self.retry_for_s)
        while True:
            try:
                return await self.send(HttpRequest("GET", path, query or {}))
            except OgentError as exc:
                if not may_pass(exc):
                    raise
                delay_s = backoff.next_delay_s()
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)

    async def post(
        self, path: str, body: BaseModel | None = None, *, wait_s: float = 0.0
    ) -> HttpAnswer:
        """The answer to a POST of `body` as JSON; raises the error that it carries."""
        return await self.send(json_request("POST", path, body), wait_s=wait_s)

    async def delete(self, path: str) -> None:
        """Send a DELETE; raises the error that its answer carries."""
        await self.send(HttpRequest("DELETE", path))

    async def send(self, request: HttpRequest, *, wait_s: float = 0.0) -> HttpAnswer:
        """The answer to `request`, sent once; after a refused token once more with a new one.

        `wait_s` is how long the controller may take beyond the usual.
        """
        timeout_s = ANSWER_TIMEOUT_S + wait_s
        token = await self.credentials.token()
        answer = await self.transport.send(_with_token(request, token), timeout_s=timeout_s)
        if answer.status == 401 and self.credentials.refused(token):
            token = await self.credentials.token()
            answer = await self.transport.send(_with_token(request, token), timeout_s=timeout_s)
        raise_for_problem(answer)
        return answer

    @asynccontextmanager
    async def stream(self, request: HttpRequest, *, silence_s: float) -> AsyncIterator[HttpStream]:
        """The answer to `request` as it comes; raises the error that it carries.

        A refused token is replaced where that is possible, and then the stream is asked again.
        """
        for may_renew in (True, False):
            token = await self.credentials.token()
            async with self.transport.stream(
                _with_token(request, token), silence_s=silence_s
            ) as stream:
                if stream.status == 401 and may_renew and self.credentials.refused(token):
                    continue
                if stream.status >= 300:
                    raise_for_problem(await stream.answer())
                yield stream
                return


def json_request(
    method: str, path: str, body: BaseModel | None, headers: Mapping[str, str] | None = None
) -> HttpRequest:
    """A request with `body` as JSON, without fields that were left at their defaults."""
    if body is None:
        return HttpRequest(method, path, headers=headers or {})
    # Defaults stay out, so that an older controller is not sent what it does not know.
    content = json.dumps(body.model_dump(mode="json", exclude_defaults=True)).encode()
    all_headers = {"Content-Type": "application/json", **(headers or {})}
    return HttpRequest(method, path, headers=all_headers, body=content)


def segment(text: str) -> str:
    """`text` as one segment of a path; raises InvalidId where it cannot be one."""
    if text in {"", ".", ".."}:
        raise InvalidId(f"{text!r} is no id")
    return quote(text, safe="")


def may_pass(error: OgentError) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, ApiError | UnexpectedAnswer):
        return error.status in _PASSING
    return isinstance(error, ConnectionFailed)


def _with_token(request: HttpRequest, token: str) -> HttpRequest:
    return replace(request, headers={**request.headers, "Authorization": f"Bearer {token}"})
