"""The grammar of the command line; each command imports what it does only when it is called."""

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from typing import Annotated, Final

import typer

from ogent.cli import session

app: Final = typer.Typer(
    name="ogent",
    help="Run a command on another machine and watch it live.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
tokens: Final = typer.Typer(
    help="Named tokens for programs.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(tokens, name="tokens")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
CommandId = Annotated[str, typer.Argument(metavar="COMMAND_ID", show_default=False)]
Seconds = Annotated[float | None, typer.Option(metavar="S", show_default=False)]
Text = Annotated[str | None, typer.Option(show_default=False)]


class Shown(StrEnum):
    """Which streams `ogent logs` shows."""

    STDOUT = "stdout"
    STDERR = "stderr"
    BOTH = "both"


class TokenRole(StrEnum):
    """Roles that a named token may have."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


def run_app(words: Sequence[str]) -> int:
    """Run the command that `words` name; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=list(words), prog_name="ogent")
        sys.stdout.flush()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    except BrokenPipeError:
        return session.closed_output()
    return 0


def _run(
    work: Callable[[], Coroutine[None, None, int]], *, machine: bool, failure: int = 1
) -> None:
    code = session.run(work, as_json=machine, failure=failure)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = session.closed_output()
    raise typer.Exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        from ogent.protocol.version import VERSION

        print(f"ogent {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    json: Json = False,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Run a command on another machine and watch it live."""
    context.obj = json


@app.command()
def login(
    context: typer.Context,
    url: Annotated[str | None, typer.Argument(metavar="[URL]", show_default=False)] = None,
    username: Text = None,
    password_stdin: Annotated[
        bool, typer.Option(help="Read the password from stdin, one line.")
    ] = False,
    json: Json = False,
) -> None:
    """Sign in, and keep a token for this machine."""
    from ogent.cli.login import login as work

    machine = json or context.obj
    _run(
        lambda: work(url, username, password_stdin=password_stdin, machine=machine), machine=machine
    )


@app.command()
def logout(context: typer.Context, json: Json = False) -> None:
    """End the stored token, and forget it."""
    from ogent.cli.login import logout as work

    machine = json or context.obj
    _run(lambda: work(machine=machine), machine=machine)


@app.command()
def whoami(context: typer.Context, json: Json = False) -> None:
    """Say whose token is in use, and what it may do."""
    from ogent.cli.login import whoami as work

    machine = json or context.obj
    _run(lambda: work(machine=machine), machine=machine)


@app.command()
def agents(
    context: typer.Context,
    selector: Annotated[
        str | None, typer.Option("-l", "--selector", help="As `env=prod,!old`.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """List the agents."""
    from ogent.cli.agents import agents as work

    machine = json or context.obj
    _run(lambda: work(selector, machine=machine), machine=machine)


@app.command("exec")
def exec_(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(metavar="AGENT", show_default=False)],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", show_default=False)],
    local: Annotated[bool, typer.Option("--local", help="On the agent's own host.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="Stop it after S seconds.", show_default=False),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print its id and leave.")] = False,
    send_stdin: Annotated[
        bool, typer.Option("-i", "--stdin", help="Send stdin, up to 256 KiB of text.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Leave escape sequences alone on a terminal.")
    ] = False,
    env: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="May be repeated.", show_default=False)
    ] = None,
    cwd: Annotated[str | None, typer.Option(metavar="DIR", show_default=False)] = None,
    queue: Annotated[
        bool, typer.Option("--queue", help="If the agent is away, run it on its return.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a command on an agent, watch it live, and exit with its exit code.

    One word after -- is a line of shell; several are quoted for the shell.
    """
    from ogent.cli.exec import ExecOptions, execute, shell_line
    from ogent.cli.exit_codes import OURS

    machine = json or context.obj
    options = ExecOptions(
        agent_id=agent,
        line=shell_line(command),
        target="local" if local else "auto",
        timeout=_positive(timeout),
        env=_environment(env or []),
        cwd=cwd,
        queue=queue,
        detach=detach,
        sends_stdin=send_stdin,
        raw=raw,
        as_json=machine,
    )
    _run(lambda: execute(options), machine=machine, failure=OURS)


@app.command()
def logs(
    context: typer.Context,
    command_id: CommandId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on to its end.")] = False,
    grep: Annotated[
        str | None,
        typer.Option(metavar="RE", help="Only lines that match (RE2).", show_default=False),
    ] = None,
    stream: Annotated[Shown, typer.Option()] = Shown.BOTH,
    raw: Annotated[
        bool, typer.Option("--raw", help="Leave escape sequences alone on a terminal.")
    ] = False,
    json: Json = False,
) -> None:
    """Show a command's stored output, or follow it."""
    if follow and grep is not None:
        raise typer.BadParameter("--grep searches what is stored; leave -f out")
    from ogent.cli.logs import LogsOptions
    from ogent.cli.logs import logs as work

    machine = json or context.obj
    options = LogsOptions(
        command_id=command_id,
        follow=follow,
        grep=grep,
        stream=stream.value,
        raw=raw,
        as_json=machine,
    )
    _run(lambda: work(options), machine=machine)


@app.command()
def ps(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("-a", "--all", help="Also what has ended.")] = False,
    agent: Text = None,
    user: Text = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=200)] = 50,
    json: Json = False,
) -> None:
    """List commands, newest first."""
    from ogent.cli.history import ps as work

    machine = json or context.obj
    _run(
        lambda: work(
            everything=everything, agent_id=agent, requester=user, limit=limit, machine=machine
        ),
        machine=machine,
    )


@app.command()
def show(context: typer.Context, command_id: CommandId, json: Json = False) -> None:
    """Show where a command stands."""
    from ogent.cli.history import show as work

    machine = json or context.obj
    _run(lambda: work(command_id, machine=machine), machine=machine)


@app.command()
def cancel(
    context: typer.Context,
    command_id: CommandId,
    kill: Annotated[bool, typer.Option("--kill", help="At once, without a grace.")] = False,
    json: Json = False,
) -> None:
    """Stop a command and its whole process tree."""
    from ogent.cli.history import cancel as work

    machine = json or context.obj
    _run(lambda: work(command_id, kill=kill, machine=machine), machine=machine)


@tokens.command("list")
def list_tokens(context: typer.Context, json: Json = False) -> None:
    """List your named tokens."""
    from ogent.cli.tokens import list_tokens as work

    machine = json or context.obj
    _run(lambda: work(machine=machine), machine=machine)


@tokens.command("create")
def create_token(
    context: typer.Context,
    name: Annotated[str, typer.Argument(show_default=False)],
    role: Annotated[TokenRole | None, typer.Option(show_default=False)] = None,
    selector: Text = None,
    expires_in: Seconds = None,
    json: Json = False,
) -> None:
    """Make a token and print it, this one time."""
    from ogent.cli.tokens import create_token as work
    from ogent.protocol.states import Role

    machine = json or context.obj
    wanted = None if role is None else Role(role.value)
    _run(
        lambda: work(
            name,
            role=wanted,
            selector=selector,
            expires_in=_positive(expires_in),
            machine=machine,
        ),
        machine=machine,
    )


@tokens.command("delete")
def delete_token(
    context: typer.Context,
    token_id: Annotated[str, typer.Argument(metavar="TOKEN_ID", show_default=False)],
    json: Json = False,
) -> None:
    """End a token."""
    from ogent.cli.tokens import delete_token as work

    machine = json or context.obj
    _run(lambda: work(token_id, machine=machine), machine=machine)


@app.command()
def doctor(context: typer.Context, json: Json = False) -> None:
    """Look at what is on and what is off, and how to turn it on."""
    from ogent.cli.doctor import doctor as work

    machine = json or context.obj
    _run(lambda: work(machine=machine), machine=machine)


def _positive(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"{seconds} is not a number of seconds above 0")
    return seconds


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    """`K=V` words as a mapping; `K` alone takes the value that it has here."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or (not equals and name not in os.environ):
            raise typer.BadParameter(f"--env {pair}: it has to be NAME=VALUE")
        found[name] = value if equals else os.environ[name]
    return found
