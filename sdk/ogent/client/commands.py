"""Calls about commands: run, look at, follow, stop."""

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Final, Literal

from pydantic import ValidationError

from ogent.client.answers import parse
from ogent.client.api import Api, json_request, may_pass, segment
from ogent.client.backoff import Backoff
from ogent.client.errors import ConnectionFailed, OgentError, ProtocolError, RangeNotSatisfiable
from ogent.client.following import SILENCE_S, Followed, Following
from ogent.client.transport import HttpAnswer, HttpRequest, HttpStream
from ogent.protocol import limits
from ogent.protocol.resources import (
    Command,
    CommandPage,
    ControlRequest,
    ExecuteRequest,
    Finished,
    OutputPage,
    Unfinished,
)
from ogent.protocol.states import Action, State, Stream

_FIRST_BYTE: Final = re.compile(r"bytes (\d+)-")


class Commands:
    """The part of a Client that is about commands."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def execute(
        self,
        agent_id: str,
        command: str,
        *,
        wait: float = limits.WAIT_DEFAULT_S,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | None = None,
        execution_target: str = "auto",
        queue: bool = False,
        expires_in: float | None = None,
        idempotency_key: str | None = None,
    ) -> Finished | Unfinished:
        """Run the shell line `command` on an agent and wait up to `wait` seconds (0 to 300).

        Finished holds the exit code and the last 1 MiB of each stream as text; Unfinished the
        `command_id` to `follow`. A command that failed is a Finished, not an error. `timeout` in
        seconds stops the command; cancelling this call does not. `queue` accepts a command for
        an agent that is away, and `expires_in` seconds bound its start.

        The request carries an `Idempotency-Key`, made up where none is given. It is sent again
        by itself only where nothing of it had left: after any other ConnectionFailed look at
        `commands()` before you repeat it, since not every controller honours the key.

        Raises ValueError for a field out of range, AgentNotFound, AgentOffline, Forbidden,
        BlockedByPolicy, TooLarge, ValidationFailed, TooManyCommands, Draining, StorageFull.
        """
        body = _execute_request(
            command=command,
            wait=wait,
            timeout=timeout,
            env=dict(env or {}),
            cwd=cwd,
            stdin=stdin,
            execution_target=execution_target,
            queue=queue,
            expires_in=expires_in,
        )
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        path = f"/agents/{segment(agent_id)}/execute"
        answer = await self._send_once(json_request("POST", path, body, headers), wait_s=wait)
        if answer.status == 202:
            return parse(Unfinished, answer)
        return parse(Finished, answer)

    async def command(self, command_id: str) -> Command:
        """Where a command stands; raises CommandNotFound."""
        return parse(Command, await self._api.get(f"/commands/{segment(command_id)}"))

    async def command_page(
        self,
        *,
        agent_id: str | None = None,
        state: State | None = None,
        requester: str | None = None,
        limit: int = limits.PAGE_DEFAULT_ITEMS,
        cursor: str | None = None,
    ) -> CommandPage:
        """One page of commands, newest first, of up to `limit` (1 to 200).

        `cursor` is the `next_cursor` of the page before.
        """
        query = _given(
            agent_id=agent_id, state=state, requester=requester, limit=str(limit), cursor=cursor
        )
        return parse(CommandPage, await self._api.get("/commands", query))

    async def commands(
        self,
        *,
        agent_id: str | None = None,
        state: State | None = None,
        requester: str | None = None,
    ) -> AsyncGenerator[Command, None]:
        """Every command that matches, newest first; pages are fetched as they are needed."""
        cursor: str | None = None
        while True:
            page = await self.command_page(
                agent_id=agent_id,
                state=state,
                requester=requester,
                limit=limits.PAGE_MAX_ITEMS,
                cursor=cursor,
            )
            for command in page.items:
                yield command
            cursor = page.next_cursor
            if cursor is None:
                return

    async def follow(
        self,
        command_id: str,
        from_seq: int = 0,
        *,
        on_interruption: Callable[[OgentError], None] | None = None,
    ) -> AsyncGenerator[Followed, None]:
        """A command's output from chunk `from_seq` on, stored or live: the two are one.

        Gives a Chunk for every piece of output, in order, none missing and none twice, a
        StateChange whenever the state is another, and last one Finished, as `execute` does. A lost
        connection is resumed by itself for up to the client's `resume_for` seconds;
        `on_interruption` is called with the error before each resumption.

        Raises CommandNotFound, OutputGap where the controller has lost chunks, ConnectionFailed
        after `resume_for`. Leaving the loop early does not stop the command; close the iterator
        then (`contextlib.aclosing`).
        """
        following = Following(self._api, command_id, from_seq, on_interruption)
        async with aclosing(following.events()) as events:
            async for event in events:
                yield event

    async def output(
        self,
        command_id: str,
        stream: Literal["stdout", "stderr", "both"] = "both",
        filter: str | None = None,  # noqa: A002 - the REST parameter's name
        limit: int = 1000,
        offset: int = 0,
    ) -> OutputPage:
        """Stored lines as text, undecodable bytes replaced; `limit` is 1 to 10000.

        `filter` is an RE2 pattern. `next_offset` of the page is the next page's `offset`, and
        None only when nothing more can come: of a running command it is where to look later.
        Raises CommandNotFound, InvalidFilter.
        """
        query = _given(stream=stream, filter=filter, limit=str(limit), offset=str(offset))
        path = f"/commands/{segment(command_id)}/output"
        return parse(OutputPage, await self._api.get(path, query))

    async def output_bytes(
        self, command_id: str, stream: Stream | Literal["stdout", "stderr"], start: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """The exact bytes of a stream from byte `start` on, in pieces, up to what is stored now.

        A lost connection is resumed where it broke. Raises CommandNotFound; RangeNotSatisfiable
        where `start` lies behind the end; ConnectionFailed after `resume_for` seconds.
        """
        path = f"/commands/{segment(command_id)}/output/{Stream(stream).value}"
        position = start
        backoff = Backoff(self._api.resume_for_s)
        while True:
            headers = {"Range": f"bytes={position}-"} if position else {}
            try:
                async with self._api.stream(
                    HttpRequest("GET", path, headers=headers), silence_s=SILENCE_S
                ) as answer:
                    _check_first_byte(answer, position)
                    async for piece in answer.pieces:
                        backoff.reset()
                        position += len(piece)
                        yield piece
                return
            except RangeNotSatisfiable:
                if position > start:
                    return  # the link broke after the last byte
                raise
            except OgentError as exc:
                delay_s = backoff.next_delay_s() if may_pass(exc) else None
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)

    async def control(
        self, command_id: str, action: Action | Literal["cancel", "kill", "pause", "resume"]
    ) -> Command:
        """Ask for a command to be stopped, paused or resumed; returns before that has happened.

        `cancel` ends its process tree with a grace, `kill` at once. Raises CommandNotFound,
        InvalidState where the command has ended, Forbidden.
        """
        body = ControlRequest(action=Action(action))
        path = f"/commands/{segment(command_id)}/control"
        return parse(Command, await self._api.post(path, body))

    async def _send_once(self, request: HttpRequest, *, wait_s: float) -> HttpAnswer:
        """Send, and again only as long as not a byte has left."""
        backoff = Backoff(self._api.retry_for_s)
        while True:
            try:
                return await self._api.send(request, wait_s=wait_s)
            except ConnectionFailed as exc:
                delay_s = backoff.next_delay_s() if exc.nothing_sent else None
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)


def _execute_request(**fields: object) -> ExecuteRequest:
    try:
        return ExecuteRequest.model_validate(fields)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from exc


def _given(**fields: str | None) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items() if value is not None}


def _check_first_byte(answer: HttpStream, position: int) -> None:
    """A server that ignores `Range` would silently give bytes twice."""
    if position == 0:
        return
    found = _FIRST_BYTE.match(answer.headers.get("content-range", ""))
    if answer.status != 206 or found is None or int(found[1]) != position:
        raise ProtocolError(f"asked for bytes from {position} on, got others")
