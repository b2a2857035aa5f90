"""`ogent logs`: the output of a command, stored or live."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from ogent.cli import exit_codes
from ogent.cli.exec import way_back
from ogent.cli.render import as_json, cut, ending, missing
from ogent.cli.screen import OutputClosed, Screen
from ogent.cli.session import open_client
from ogent.client.client import Client
from ogent.client.errors import OgentError
from ogent.client.following import Chunk
from ogent.protocol.codec import format_time
from ogent.protocol.limits import OUTPUT_MAX_LINES
from ogent.protocol.resources import Command, Finished, OutputLine, Result
from ogent.protocol.states import FINAL, Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsOptions:
    """What the user asked for; `grep` is an RE2 pattern."""

    command_id: str
    follow: bool
    grep: str | None
    stream: Literal["stdout", "stderr", "both"]
    raw: bool
    as_json: bool


async def logs(options: LogsOptions) -> int:
    """Show stored output, or follow it to the end; each stream goes to its own."""
    screen = Screen(raw=options.raw)
    async with open_client() as client:
        command = await client.command(options.command_id)  # unknown ids fail at once
        try:
            if options.grep is None and (options.follow or command.state in FINAL):
                await _chunks(client, screen, options)
            else:
                await _lines(client, screen, options)
                _say_cut(await client.command(options.command_id), screen, options)
        except OutputClosed:
            return exit_codes.OUTPUT_CLOSED
        except asyncio.CancelledError:
            screen.say(way_back("no longer following", options.command_id))
            raise
    return exit_codes.OK


async def _chunks(client: Client, screen: Screen, options: LogsOptions) -> None:
    def interrupted(error: OgentError) -> None:
        if screen.talks:
            screen.say(f"{error}; resuming")

    following = client.follow(options.command_id, on_interruption=interrupted)
    async with aclosing(following) as events:
        async for event in events:
            if isinstance(event, Chunk) and options.stream in ("both", event.stream):
                if options.as_json:
                    await screen.output(Stream.STDOUT, _chunk_json(event))
                else:
                    await screen.output(event.stream, event.data)
            elif isinstance(event, Finished):
                await screen.finish()
                _say_ending(event, screen)
                _say_cut(event.result, screen, options)


def _say_ending(finished: Finished, screen: Screen) -> None:
    text = ending(finished)
    if text is not None and screen.talks:
        screen.say(text)


def _say_cut(counted: Command | Result, screen: Screen, options: LogsOptions) -> None:
    """Say what is missing of the streams that were asked for; also where nobody watches."""
    streams = Stream if options.stream == "both" else (Stream(options.stream),)
    lacking = missing(counted, streams)
    if lacking:
        screen.say(cut(lacking))


async def _lines(client: Client, screen: Screen, options: LogsOptions) -> None:
    offset: int | None = 0
    while offset is not None:
        page = await client.output(
            options.command_id, options.stream, options.grep, OUTPUT_MAX_LINES, offset
        )
        for line in page.lines:
            if options.as_json:
                data = as_json(line.model_dump(mode="json")).encode() + b"\n"
                await screen.output(Stream.STDOUT, data)
            else:
                await screen.output(line.stream, _line_bytes(line))
        # A command that runs may go on at `next_offset`: all that is there has been read then.
        goes_on = page.next_offset is not None and page.next_offset > offset
        offset = page.next_offset if goes_on else None
    await screen.finish()


def _line_bytes(line: OutputLine) -> bytes:
    return (line.text + ("…" if line.truncated else "")).encode() + b"\n"


def _chunk_json(chunk: Chunk) -> bytes:
    import base64

    value: dict[str, object] = {
        "seq": chunk.seq,
        "stream": chunk.stream.value,
        "offset": chunk.offset,
        "data": chunk.data.decode(errors="replace"),
        "timestamp": format_time(chunk.timestamp),
    }
    if str(value["data"]).encode() != chunk.data:
        value["data_base64"] = base64.b64encode(chunk.data).decode()
    return as_json(value).encode() + b"\n"
