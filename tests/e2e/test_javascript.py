"""npm's socket.io-client as the client: what a page or a program in JavaScript sees."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gate import Gate
from tests.e2e.services import DEADLINE_S, Agent, Controller
from tests.integration.controller import shapes

PROGRAM = Path(__file__).with_name("js")
INSTALL = ("install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program beside the library that npm has installed for it."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not here: socket.io-client of npm was not tried")
    folder = tmp_path_factory.mktemp("js") / "program"
    shutil.copytree(PROGRAM, folder)
    done = subprocess.run([npm, *INSTALL], cwd=folder, capture_output=True, text=True, timeout=90)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install socket.io-client: {done.stderr.strip()[-200:]}")
    return folder / "run_command.js"


class Node:
    """The running program; `next` gives its next event."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def next(self) -> tuple[str, dict[str, Any]]:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            said = json.loads(await self.process.stdout.readline())
        return said["event"], said["payload"]

    async def until(self, event: str) -> dict[str, Any]:
        while True:
            name, payload = await self.next()
            if name == event:
                return payload


@pytest.fixture
async def start(program: Path, controller: Controller) -> AsyncIterator[Callable[..., Any]]:
    started: list[asyncio.subprocess.Process] = []

    async def one(token: str, agent_id: str, command: str) -> Node:
        argv = ("node", str(program), controller.url, token, agent_id, command)
        pipe = asyncio.subprocess.PIPE
        started.append(await asyncio.create_subprocess_exec(*argv, stdout=pipe, limit=1 << 22))
        return Node(started[-1])

    yield one
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


Start = Callable[[str, str, str], Awaitable[Node]]


async def test_lines_are_seen_while_the_command_runs_and_the_result_comes_last(
    start: Start, token: str, agent: Agent, gate: Gate
) -> None:
    line = f"echo one; {gate.wait('one')}; echo two >&2; {gate.wait('two')}; exit 3"
    node = await start(token, agent.id, line)
    shapes.check(
        await node.until("connection_response"),
        {"status": "connected", "sid": str, "server_version": str},
    )
    for seq, (stream, word) in enumerate([("stdout", "one"), ("stderr", "two")]):
        progress = await node.until("command_progress")
        shapes.check(progress, shapes.PROGRESS)
        assert (progress["seq"], progress["stream"], progress["data"]) == (seq, stream, f"{word}\n")
        gate.open(word)  # only now does the command go on
    event, result = await node.next()
    assert event == "command_result"
    shapes.check(result, shapes.RESULT)
    assert (result["status"], result["result"]["exit_code"]) == ("error", 3)
    assert await node.process.wait() == 0


async def test_many_events_keep_their_order(start: Start, token: str, agent: Agent) -> None:
    node = await start(token, agent.id, "seq 300000")
    text, seqs = "", []
    while True:
        event, payload = await node.next()
        if event == "command_progress":
            text += payload["data"]
            seqs.append(payload["seq"])
        if event == "command_result":
            break
    assert seqs == list(range(len(seqs)))
    assert text == "".join(f"{n}\n" for n in range(1, 300_001))


async def test_a_bad_token_is_a_connect_error_with_its_code(start: Start, agent: Agent) -> None:
    node = await start("no token at all", agent.id, "true")
    refused = await node.until("connect_error")
    assert refused["data"]["code"] == "unauthorized"
    assert await node.process.wait() == 1


async def test_an_unknown_agent_is_said_in_the_acknowledgement(start: Start, token: str) -> None:
    node = await start(token, "nobody", "true")
    answer = await node.until("acknowledged")
    assert (answer["ok"], answer["error"]["code"]) == (False, "agent_not_found")
    assert await node.process.wait() == 1
