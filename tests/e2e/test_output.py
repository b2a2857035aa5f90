"""Output that is large, binary or cut in awkward places arrives as it was written."""

import asyncio
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest
import socketio

from ogent.client import Client, Finished
from tests.e2e.services import DEADLINE_S, Agent, Controller
from tests.integration.sdk.ogent_process import Ogent

#: A hundred megabytes in which no two lines are alike: nothing can be swapped, left out or doubled.
LARGE = "seq 100000000 109999999"
LARGE_BYTES = 100_000_000
#: 10 MB without a newline, of no period that a chunk or a block could share.
ONE_LINE = "seq 1234567 9999999 | tr '\\n' , | head -c 10000001"
BINARY = "seq 1 300000 | gzip -n"


def written_by(line: str) -> bytes:
    """What the shell line writes when nothing of Ogent is in between."""
    return subprocess.run(["/bin/sh", "-c", line], check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    "line",
    [
        BINARY,
        ONE_LINE,
        "printf 'half a character: \\303'",
        "printf '\\303'; printf '\\244\\n'",
        "yes 'ä€😀' | head -c 1000001",
        "true",
    ],
)
async def test_output_of_every_kind_is_exact(
    cli: Ogent, client: Client, agent: Agent, line: str
) -> None:
    expected = written_by(line)
    shown = await cli.run("exec", agent.id, "--", line)
    assert shown.code == 0
    assert shown.out == expected
    command = (await client.command_page(agent_id=agent.id, limit=1)).items[0]
    assert (command.stdout_bytes, command.output_complete) == (len(expected), True)
    stored = [piece async for piece in client.output_bytes(command.command_id, "stdout")]
    assert b"".join(stored) == expected


@pytest.fixture(scope="module")
def large_digest() -> str:
    return hashlib.sha256(written_by(LARGE)).hexdigest()


@pytest.fixture(scope="module")
def large(controller: Controller, token: str, running_agent: Agent) -> str:
    """The id of a command that has written LARGE_BYTES."""
    body = {"command": LARGE, "wait": 60}
    answer = httpx2.post(
        f"{controller.url}/agents/{running_agent.id}/execute",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        timeout=2 * DEADLINE_S,
    ).json()
    assert (answer["state"], answer["result"]["stdout_bytes"]) == ("succeeded", LARGE_BYTES)
    assert answer["result"]["truncated"] is True  # what stands in the answer is its end
    assert answer["result"]["stdout"].endswith("109999999\n")
    return str(answer["command_id"])


async def test_100_mb_of_a_running_command_go_through_ogent_into_a_file(
    cli: Ogent, agent: Agent, large_digest: str, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("wb") as out:
        process = await cli.start("exec", agent.id, "--", LARGE, stdout=out.fileno())
        async with asyncio.timeout(2 * DEADLINE_S):
            assert await process.wait() == 0
    with (tmp_path / "out").open("rb") as written:
        assert hashlib.file_digest(written, "sha256").hexdigest() == large_digest


async def test_100_mb_are_stored_and_read_as_bytes(
    http: httpx2.AsyncClient, agent: Agent, large: str, large_digest: str
) -> None:
    digest = hashlib.sha256()
    async with http.stream("GET", f"/commands/{large}/output/stdout") as answer:
        assert answer.headers["content-length"] == str(LARGE_BYTES)
        async for piece in answer.aiter_bytes():
            digest.update(piece)
    assert digest.hexdigest() == large_digest


async def test_100_mb_are_followed_by_socket(
    controller: Controller, token: str, large: str, large_digest: str
) -> None:
    digest, seqs = hashlib.sha256(), []
    ended = asyncio.Event()
    socket = socketio.AsyncClient(reconnection=False)

    def on_progress(event: dict[str, Any]) -> None:
        seqs.append(event["seq"])
        digest.update(event["data"].encode())

    socket.on("command_progress", on_progress)
    socket.on("command_result", lambda _event: ended.set())
    await socket.connect(controller.url, auth={"token": token}, transports=["websocket"])
    await socket.call("subscribe_command", {"command_id": large}, timeout=DEADLINE_S)
    async with asyncio.timeout(2 * DEADLINE_S):
        await ended.wait()
    await socket.disconnect()
    assert (digest.hexdigest(), seqs) == (large_digest, list(range(len(seqs))))


async def test_the_end_of_large_output_stands_in_the_answer(client: Client, agent: Agent) -> None:
    done = await client.execute(agent.id, ONE_LINE)
    assert isinstance(done, Finished)
    assert (len(done.result.stdout), done.result.truncated) == (1024 * 1024, True)
    assert written_by(ONE_LINE).decode().endswith(done.result.stdout)
