"""Commands through the whole system: what they are given, and how their ends become exit codes."""

from pathlib import Path

import pytest

from ogent.client import Client, Finished, State
from tests.e2e.services import AGENT_PASSWORD, Agent
from tests.integration.sdk.ogent_process import Ogent


async def test_both_streams_are_exact_and_apart(cli: Ogent, agent: Agent) -> None:
    ended = await cli.run("exec", agent.id, "--", "printf 'a\\r\\n\\0b'; printf 'c\\377' >&2")
    assert (ended.code, ended.out) == (0, b"a\r\n\0b")
    assert ended.err.encode(errors="surrogateescape") == b"c\xff"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("true", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("no-such-program-anywhere", 127),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
        ("kill -SEGV $$", 128 + 11),
    ],
)
async def test_the_exit_code_is_the_commands(
    cli: Ogent, agent: Agent, line: str, code: int
) -> None:
    assert (await cli.run("exec", agent.id, "--", line)).code == code


async def test_a_signal_is_named(client: Client, agent: Agent) -> None:
    done = await client.execute(agent.id, "kill -USR1 $$")
    assert isinstance(done, Finished)
    assert (done.state, done.result.exit_code, done.result.signal) == (
        State.FAILED,
        None,
        "SIGUSR1",
    )


async def test_a_command_is_given_its_variables_folder_and_input(
    cli: Ogent, agent: Agent, tmp_path: Path
) -> None:
    words = ("--env", "MINE=a b", "--cwd", str(tmp_path), "-i", "--", 'echo "$MINE"; pwd; cat')
    ended = await cli.run("exec", agent.id, *words, stdin="grüße\n".encode() * 10_000)
    assert ended.code == 0
    assert ended.out == f"a b\n{tmp_path}\n".encode() + "grüße\n".encode() * 10_000


async def test_several_words_stay_the_words_that_they_were(cli: Ogent, agent: Agent) -> None:
    ended = await cli.run("exec", agent.id, "--", "printf", "%s|", "a b", "$HOME", "it's")
    assert ended.out == b"a b|$HOME|it's|"


async def test_nothing_of_the_agents_environment_reaches_a_command(
    client: Client, agent: Agent
) -> None:
    done = await client.execute(agent.id, "env", env={"MINE": "1"})
    assert isinstance(done, Finished)
    names = {line.partition("=")[0] for line in done.result.stdout.splitlines()}
    given = {"PATH", "HOME", "USER", "SHELL", "LANG", "TZ", "OGENT_COMMAND_ID", "MINE"}
    assert given <= names <= given | {"PWD", "OLDPWD", "SHLVL", "_"}
    assert AGENT_PASSWORD not in done.result.stdout


async def test_a_timeout_stops_the_command_and_keeps_its_output(
    cli: Ogent, client: Client, agent: Agent
) -> None:
    line = "echo begun; sleep 1000"
    ended = await cli.run("exec", agent.id, "--timeout", "0.5", "--", line)
    assert (ended.code, ended.out) == (124, b"begun\n")
    assert "timed out" in ended.err
    command = (await client.command_page(agent_id=agent.id, limit=1)).items[0]
    assert (command.command, command.state) == (line, State.TIMED_OUT)
    assert command.timeout == 0.5


@pytest.mark.parametrize("folder", ["/no/such/folder", "/etc/passwd"])
async def test_a_command_that_cannot_start_says_why(
    cli: Ogent, client: Client, agent: Agent, folder: str
) -> None:
    done = await client.execute(agent.id, "true", cwd=folder)
    assert isinstance(done, Finished)
    assert done.error is not None
    assert (done.state, done.error.code) == (State.FAILED, "spawn_failed")
    ended = await cli.run("exec", agent.id, "--cwd", folder, "--", "true")
    assert ended.code == 125
    assert folder in ended.err


async def test_the_longest_command_runs(client: Client, agent: Agent) -> None:
    line = "echo ok #" + "x" * (65_536 - 9)
    done = await client.execute(agent.id, line)
    assert isinstance(done, Finished)
    assert (done.result.stdout, done.command) == ("ok\n", line)


@pytest.mark.parametrize(
    ("line", "said"), [("x" * 65_537, "at most 65536 are allowed"), (" ", "command is empty")]
)
async def test_a_refused_command_runs_nothing_and_is_ogents_own_failure(
    cli: Ogent, client: Client, agent: Agent, line: str, said: str
) -> None:
    before = (await client.command_page(agent_id=agent.id, limit=1)).items
    ended = await cli.run("exec", agent.id, "--", line)
    assert (ended.code, ended.out) == (125, b"")
    assert said in ended.err
    assert (await client.command_page(agent_id=agent.id, limit=1)).items == before
