"""SIGTERM under load: new work hears `draining`, nothing held is lost, and it ends in time."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.fakes.protocol_agent import Execution, ProtocolAgent
from tests.integration.controller.commands import seen, submit, taken
from tests.integration.controller.controller_process import (
    ControllerProcess,
    service_folder,
    started,
)
from tests.integration.controller.installation import Installation, client
from tests.integration.controller.socket_client import SocketClient
from tests.integration.controller.test_slow_reader import StoppedReader

STOPS_WITHIN_S = 8.0  # promised are 10
QUEUED, FOLLOWERS = 200, 10
CHUNK = b"0123456789abcdef" * 4096


@pytest.fixture
async def process(tmp_path: Path, data_dir: Path) -> AsyncIterator[ControllerProcess]:
    folder = service_folder(tmp_path / "controller_service")
    async with started(folder, DATA_DIR=data_dir) as running:
        yield running


async def write_until_closed(run: Execution) -> None:
    """Output as fast as it is stored, until the session ends."""
    while not run.agent.closed.is_set():
        await run.write(CHUNK)
        acknowledged = asyncio.create_task(run.stored())
        closed = asyncio.create_task(run.agent.closed.wait())
        await asyncio.wait((acknowledged, closed), return_when=asyncio.FIRST_COMPLETED)
        for task in (acknowledged, closed):
            task.cancel()


async def submit_until_refused(http: httpx2.AsyncClient) -> tuple[int, str]:
    """The first answer that is not an acceptance."""
    body = {"command": "one more", "wait": 0}
    while (answer := await http.post("/agents/web-1/execute", json=body)).status_code == 202:
        await asyncio.sleep(0.005)
    return answer.status_code, answer.json()["code"]


async def call_until_refused(socket: SocketClient) -> str:
    body = {"command": "one more", "agent_id": "web-2", "queue": True}
    while (answer := await socket.call("execute_command", body))["ok"]:
        await socket.call("unsubscribe_command", {"command_id": answer["command_id"]})
        await asyncio.sleep(0.005)
    return str(answer["error"]["code"])


async def read_all(http: httpx2.AsyncClient, command_id: str) -> None:
    async with http.stream("GET", f"/commands/{command_id}/events") as events:
        async for _ in events.aiter_lines():
            pass


@asynccontextmanager
async def followed(url: str, token: str, command_id: str) -> AsyncIterator[None]:
    """Readers of the command by both ways, and two that have stopped reading."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as reading:
        http = await stack.enter_async_context(client(url, token))
        for _ in range(FOLLOWERS):
            reading.create_task(read_all(http, command_id))
            socket = SocketClient()
            await socket.connect(url, token)
            stack.push_async_callback(socket.disconnect)
            await socket.ok("subscribe_command", {"command_id": command_id})
        for _ in range(2):
            stopped = await asyncio.to_thread(StoppedReader, url)
            stack.callback(stopped.close)
            await asyncio.to_thread(stopped.subscribe, token, command_id)
        yield


async def test_sigterm_under_load_refuses_new_work_and_ends_in_time(
    process: ControllerProcess, installation: Installation
) -> None:
    url, token = await process.url(), installation.users["admin"]
    agent = ProtocolAgent(url, installation.agents["web-1"], "web-1")
    await agent.connect()
    await agent.register()
    away = ProtocolAgent(url, installation.agents["web-2"], "web-2")
    await away.connect()
    await away.register()
    await away.disconnect()
    async with client(url, token) as http, asyncio.TaskGroup() as tasks:
        run = await taken(http, agent)
        agent.may_answer.clear()  # what comes now stays queued
        for _ in range(QUEUED):
            await submit(http)
        socket = SocketClient()
        await socket.connect(url, token)
        tasks.create_task(write_until_closed(run))
        async with followed(url, token, run.command_id):
            refused = tasks.create_task(submit_until_refused(http))
            called = tasks.create_task(call_until_refused(socket))
            body = {"command": "waited for", "wait": 300}
            waiting = tasks.create_task(http.post("/agents/web-1/execute", json=body))
            await agent.acknowledged(run.command_id, 50)  # all of it is under way
            begun = asyncio.get_running_loop().time()
            assert await process.stop(signal.SIGTERM) == 0
            took_s = asyncio.get_running_loop().time() - begun
            assert took_s < STOPS_WITHIN_S
        assert await refused == (503, "draining")
        assert await called == "draining"
        assert (await waiting).status_code == 202
        await socket.disconnect()
    assert "Traceback" not in process.log and "[error" not in process.log


async def test_what_was_held_at_the_end_goes_on_with_the_next_start(
    process: ControllerProcess, installation: Installation, tmp_path: Path, data_dir: Path
) -> None:
    url, token = await process.url(), installation.users["admin"]
    agent = ProtocolAgent(url, installation.agents["web-1"], "web-1")
    await agent.connect()
    await agent.register()
    async with client(url, token) as http, asyncio.TaskGroup() as tasks:
        run = await taken(http, agent)
        agent.may_answer.clear()
        queued = [await submit(http, expires_in=3600) for _ in range(QUEUED)]
        tasks.create_task(write_until_closed(run))
        await agent.acknowledged(run.command_id, 50)
        assert await process.stop(signal.SIGTERM) == 0
    async with started(tmp_path / "controller_service", DATA_DIR=data_dir) as again:
        agent.url = await again.url()
        agent.seen.clear()
        await agent.connect()
        held = {"command_id": run.command_id, "state": "running", "next_seq": run.next_seq}
        (point,) = (await agent.register(resume=[held]))["resume"]
        for seq in range(point["next_seq"], run.next_seq):  # what was never acknowledged
            await run.send_chunk(seq, "stdout", seq * len(CHUNK), CHUNK)
        assert (await run.end())["ok"] is True
        async with client(agent.url, token) as http:
            command = await seen(http, run.command_id)
            assert (command["state"], command["stdout_bytes"]) == (
                "succeeded",
                run.next_seq * len(CHUNK),
            )
        async with asyncio.timeout(30):
            while len(agent.seen) < QUEUED:
                await agent.next_order()
        assert [order["command_id"] for order in agent.seen] == queued
        await agent.disconnect()
        assert await again.stop() == 0
