"""`ogent ps`, `show`, `cancel`: commands that were run or are running."""

import asyncio

from ogent.cli import exit_codes
from ogent.cli.render import as_json, duration, missing, shorten, size, when
from ogent.cli.session import open_client, say
from ogent.cli.tables import moment, show_fields, show_rows
from ogent.client.client import Client
from ogent.protocol import limits
from ogent.protocol.resources import Command
from ogent.protocol.states import FINAL, Action, State

_COMMAND_WIDTH = 60


async def ps(
    *, everything: bool, agent_id: str | None, requester: str | None, limit: int, machine: bool
) -> int:
    """Show unfinished commands, or with `everything` the newest `limit` of all."""
    async with open_client() as client:
        if everything:
            commands = await _newest(client, agent_id, requester, limit)
        else:
            commands = (await _unfinished(client, agent_id, requester))[:limit]
    if machine:
        print(as_json([command.model_dump(mode="json") for command in commands]))
    elif commands:
        show_rows(
            ("command id", "agent", "state", "exit", "created", "took", "output", "command"),
            [_row(command) for command in commands],
            flexible="command",
            spare=("output", "took"),
        )
    else:
        say("no commands" if everything else "nothing is running; --all shows what has ended")
    return exit_codes.OK


async def show(command_id: str, *, machine: bool) -> int:
    """Show everything about one command but its output."""
    async with open_client() as client:
        command = await client.command(command_id)
    if machine:
        print(as_json(command.model_dump(mode="json")))
    else:
        show_fields(_fields(command))
    return exit_codes.OK


async def cancel(command_id: str, *, kill: bool, machine: bool) -> int:
    """Ask for a command to be stopped."""
    action = Action.KILL if kill else Action.CANCEL
    async with open_client() as client:
        command = await client.control(command_id, action)
    if machine:
        print(as_json(command.model_dump(mode="json")))
    else:
        say(f"asked to {action.value} {command.command_id}; it is {command.state.value}")
    return exit_codes.OK


async def _newest(
    client: Client, agent_id: str | None, requester: str | None, limit: int
) -> list[Command]:
    page_limit = min(limit, limits.PAGE_MAX_ITEMS)
    page = await client.command_page(agent_id=agent_id, requester=requester, limit=page_limit)
    return page.items


async def _unfinished(client: Client, agent_id: str | None, requester: str | None) -> list[Command]:
    """Every command in a state that is not final, newest first, without repeats."""

    async def of(state: State) -> list[Command]:
        found = client.commands(agent_id=agent_id, state=state, requester=requester)
        return [command async for command in found]

    pages = await asyncio.gather(*(of(state) for state in State if state not in FINAL))
    by_id = {command.command_id: command for page in pages for command in page}
    return sorted(by_id.values(), key=lambda command: command.created_at, reverse=True)


def _row(command: Command) -> tuple[str, ...]:
    return (
        command.command_id,
        command.agent_id,
        command.state.value,
        _exit(command),
        moment(command.created_at),
        duration(command.duration),
        size(command.stdout_bytes + command.stderr_bytes),
        shorten(command.command, _COMMAND_WIDTH),
    )


def _exit(command: Command) -> str:
    return command.signal or ("" if command.exit_code is None else str(command.exit_code))


def _fields(command: Command) -> list[tuple[str, str]]:
    error = command.error
    stop = command.stop_error
    return [
        ("command id", command.command_id),
        ("agent", command.agent_id),
        ("command", command.command),
        ("state", command.state.value),
        ("exit", _exit(command)),
        ("error", f"{error.message} ({error.code})" if error else ""),
        ("asked to", command.requested_action.value if command.requested_action else ""),
        ("not stopped", f"{stop.message} ({stop.code}), pids {stop.pids}" if stop else ""),
        ("requester", command.requester),
        ("executed", " ".join(filter(None, (command.execution_type, command.target)))),
        ("timeout", duration(command.timeout)),
        ("created", when(command.created_at)),
        ("dispatched", when(command.dispatched_at)),
        ("started", when(command.started_at)),
        ("finished", when(command.finished_at)),
        ("took", duration(command.duration)),
        ("stdout", size(command.stdout_bytes)),
        ("stderr", size(command.stderr_bytes)),
        ("not stored", missing(command) or ("some output" if command.truncated else "")),
        ("output", "" if command.output_complete else "incomplete"),
    ]
