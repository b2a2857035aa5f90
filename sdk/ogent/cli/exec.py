"""`ogent exec`."""

import os
import shlex
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass

from ogent.cli import exit_codes
from ogent.cli.render import as_json, cut, ending, missing, size
from ogent.cli.screen import OutputClosed, Screen
from ogent.cli.session import open_client, say
from ogent.cli.watching import Detached, Interrupts, Watch
from ogent.client.client import Client
from ogent.client.errors import OgentError
from ogent.protocol import limits
from ogent.protocol.resources import Finished, Unfinished


class UnusableInput(OgentError):
    """What came on stdin cannot be a command's stdin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOptions:
    """What the user asked for; `line` is a line of shell, `timeout` in seconds."""

    agent_id: str
    line: str
    target: str
    timeout: float | None
    env: dict[str, str]
    cwd: str | None
    queue: bool
    detach: bool
    sends_stdin: bool
    raw: bool
    as_json: bool


def shell_line(words: Sequence[str]) -> str:
    """One word is a line of shell as it is; several are quoted, so that each stays one word."""
    return words[0] if len(words) == 1 else shlex.join(words)


def execute(options: ExecOptions) -> Coroutine[None, None, int]:
    """What runs it, shows it, and returns the exit code; stdin has been read then.

    Raises UnusableInput. To be called outside an event loop: a loop would keep Ctrl-C from ending
    the wait for stdin.
    """
    return _execute(options, read_stdin() if options.sends_stdin else None)


async def _execute(options: ExecOptions, stdin: str | None) -> int:
    async with open_client() as client:
        started = await _start(client, options, stdin)
        if options.detach:
            print(_dump(started) if options.as_json else started.command_id)
            return exit_codes.OK
        screen = Screen(raw=options.raw, silent=options.as_json)
        try:
            return await _watch(client, started, screen, options)
        except Detached:
            screen.say(way_back("detached; the command goes on", started.command_id))
            return exit_codes.DETACHED
        except OutputClosed:
            if screen.talks:
                screen.say(way_back("nobody reads its output; it goes on", started.command_id))
            return exit_codes.OUTPUT_CLOSED


async def _start(client: Client, options: ExecOptions, stdin: str | None) -> Finished | Unfinished:
    try:
        return await client.execute(
            options.agent_id,
            options.line,
            wait=0,
            timeout=options.timeout,
            env=options.env,
            cwd=options.cwd,
            stdin=stdin,
            execution_target=options.target,
            queue=options.queue,
        )
    except ValueError as exc:
        if isinstance(exc, OgentError):
            raise
        raise UnusableInput(str(exc)) from exc


async def _watch(
    client: Client, started: Finished | Unfinished, screen: Screen, options: ExecOptions
) -> int:
    if isinstance(started, Finished) and not _written(started):
        finished, received = started, 0
    else:
        watch = Watch(client, started.command_id, screen, Interrupts())
        finished = await watch.to_the_end()
        received = watch.received
    if options.as_json:
        print(_dump(finished))
    _report(finished, received, screen)
    return exit_codes.of(finished)


def _report(finished: Finished, received: int, screen: Screen) -> None:
    text = ending(finished)
    if text is not None:
        screen.say(text)
    lacking = missing(finished.result)
    unseen = _written(finished) - received
    if lacking or unseen > 0:
        screen.say(cut(lacking or f"{size(unseen)} of it"))


def _written(finished: Finished) -> int:
    return finished.result.stdout_bytes + finished.result.stderr_bytes


def _dump(answer: Finished | Unfinished) -> str:
    return as_json(answer.model_dump(mode="json"))


def way_back(what: str, command_id: str) -> str:
    """`what`, and how to see or end the command."""
    return (
        f"{what}\n  follow it: ogent logs -f {command_id}\n  cancel it: ogent cancel {command_id}"
    )


def read_stdin() -> str:
    """All of stdin; raises UnusableInput over 256 KiB or where it is not UTF-8."""
    if os.isatty(0):
        say("reading stdin from the keyboard; Ctrl-D on a line of its own ends it")
    data = bytearray()
    while piece := os.read(0, 65536):
        data += piece
        if len(data) > limits.STDIN_MAX_BYTES:
            raise UnusableInput(
                f"stdin is over {size(limits.STDIN_MAX_BYTES)}; put the data on the agent's host"
            )
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise UnusableInput("stdin is not UTF-8 text; encode it, as with base64") from exc
