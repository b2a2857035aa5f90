"""Output of commands: lines, exact bytes, live events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Final, Literal

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.security.utils import get_authorization_scheme_param
from starlette.responses import Response, StreamingResponse

from app import wire
from app.application.follower import Ended, Followed, StateReached
from app.application.output_lines import WantedLines
from app.application.use_cases import UseCases
from app.domain.errors import Denied, NotFound, Unauthenticated, Unavailable
from app.domain.ids import CommandId
from app.domain.models.command import Command
from app.domain.models.output import Stream
from app.domain.models.user import Principal
from app.presentation.http.byte_range import requested_range
from app.presentation.http.commands import CommandPath
from app.presentation.http.dependencies import CurrentPrincipal
from ogent.protocol import limits, resources
from ogent.protocol.names import StreamEvent

log = structlog.get_logger(__name__)

#: A comment is sent after this long without an event, so that dead links are found.
KEEPALIVE_S: Final = 15.0
_KEEPALIVE: Final = b": keepalive\n\n"
#: How often it is looked at whether the reader may still see the command.
CHECK_INTERVAL_S: Final = 3.0


def output_router(use_cases: UseCases, current: CurrentPrincipal) -> APIRouter:
    """Routes of output."""
    router = APIRouter(tags=["output"])
    Current = Annotated[Principal, Depends(current)]  # noqa: N806 - a type

    @router.get("/commands/{command_id}/output")
    async def lines(
        principal: Current,
        command_id: CommandPath,
        stream: Literal["stdout", "stderr", "both"] = "both",
        filter: Annotated[str | None, Query(max_length=limits.FILTER_MAX_CHARS)] = None,  # noqa: A002
        limit: Annotated[int, Query(ge=1, le=limits.OUTPUT_MAX_LINES)] = 1000,
        offset: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    ) -> resources.OutputPage:
        """Lines, numbered from 0 in the order in which they ended; `filter` is RE2 syntax."""
        wanted_stream = None if stream == "both" else Stream(stream)
        wanted = WantedLines(stream=wanted_stream, limit=limit, offset=offset)
        page = await use_cases.read_output.lines(
            principal, CommandId(command_id), wanted, pattern=filter
        )
        return wire.output_page(command_id, wanted_stream, page)

    @router.get("/commands/{command_id}/output/{stream}", response_class=StreamingResponse)
    async def bytes_of(
        principal: Current,
        command_id: CommandPath,
        stream: Stream,
        range: Annotated[str | None, Header(max_length=128)] = None,  # noqa: A002
    ) -> Response:
        """The stream's exact bytes as far as stored; honours `Range`."""
        command = await use_cases.queries.see_command(principal, CommandId(command_id))
        length = command.stored.bytes_of(stream)
        part = requested_range(range, length)
        start, end = (part.start, part.end) if part else (0, length)
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(end - start)}
        if part:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{length}"
        return StreamingResponse(
            use_cases.read_output.bytes_of(command, stream, start=start, end=end),
            status_code=206 if part else 200,
            headers=headers,
            media_type="application/octet-stream",
        )

    @router.get("/commands/{command_id}/events", response_class=StreamingResponse)
    async def events(
        principal: Current,
        request: Request,
        command_id: CommandPath,
        last_event_id: Annotated[str | None, Header(pattern=r"^\d{1,18}$")] = None,
    ) -> Response:
        """Server-sent events `progress` (id = `seq`), `state` and `result`; ends after it."""
        command = await use_cases.queries.see_command(principal, CommandId(command_id))
        from_seq = 0 if last_event_id is None else int(last_event_id) + 1
        token = get_authorization_scheme_param(request.headers.get("Authorization"))[1]
        return StreamingResponse(
            _events(use_cases, command, from_seq, token),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return router


async def _events(
    use_cases: UseCases, command: Command, from_seq: int, token: str
) -> AsyncIterator[bytes]:
    """Events until the result, until the controller stops, or until they may not be seen."""
    followed = use_cases.follower.follow(command.id, from_seq)
    stopping = asyncio.create_task(use_cases.lifecycle.until_draining())
    refused = asyncio.create_task(_until_refused(use_cases, command.id, token))
    upcoming = asyncio.create_task(_next(followed))
    try:
        while True:
            await asyncio.wait(
                (upcoming, stopping, refused),
                timeout=KEEPALIVE_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if refused.done():
                refused.result()
                return
            if stopping.done():
                return  # also in the middle of long output: its reader comes back with its cursor
            if upcoming.done():
                item = upcoming.result()
                yield await _event(use_cases, command, item)
                if isinstance(item, Ended):
                    return
                upcoming = asyncio.create_task(_next(followed))
            else:
                yield _KEEPALIVE
    finally:
        for task in (upcoming, stopping, refused):
            task.cancel()
        await asyncio.wait((upcoming, stopping, refused))
        await followed.aclose()


async def _until_refused(use_cases: UseCases, command_id: CommandId, token: str) -> None:
    """Return once whoever shows `token` may not see the command any more."""
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        try:
            principal = await use_cases.authenticate(token)
            await use_cases.queries.see_command(principal, command_id)
        except Unavailable as exc:
            log.warning("a reader's rights could not be looked at", reason=exc.message)
        except (Unauthenticated, Denied, NotFound):
            return


async def _next(followed: AsyncGenerator[Followed, None]) -> Followed:
    return await anext(followed)


async def _event(use_cases: UseCases, command: Command, item: Followed) -> bytes:
    if isinstance(item, Ended):
        tails = await use_cases.queries.tails(item.command)
        data = wire.client_result(item.command, tails).model_dump_json()
        return _format(StreamEvent.RESULT, data)
    if isinstance(item, StateReached):
        return _format(StreamEvent.STATE, wire.state_reached(command, item).model_dump_json())
    data = wire.progress(command, item).model_dump_json(exclude_none=True)
    return f"id: {item.seq}\n".encode() + _format(StreamEvent.PROGRESS, data)


def _format(event: StreamEvent, data: str) -> bytes:
    """One event; JSON text holds no line break, so its data is one line."""
    return f"event: {event}\ndata: {data}\n\n".encode()
