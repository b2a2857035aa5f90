"""The controller as a process that stops, and what the next start still knows."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller.commands import played, seen, submit, taken
from tests.integration.controller.controller_process import service_folder, started
from tests.integration.controller.installation import PASSWORD, Installation, client
from tests.integration.controller.socket_client import SocketClient


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return service_folder(tmp_path / "controller_service")


async def test_sigterm_lets_every_reader_go_and_exits_with_0(
    folder: Path, data_dir: Path, installation: Installation
) -> None:
    token = installation.users["admin"]
    agent_token = installation.agents["web-1"]
    async with started(folder, DATA_DIR=data_dir) as controller:
        url = await controller.url()
        agent = ProtocolAgent(url, agent_token, "web-1")
        await agent.connect()
        await agent.register()
        sockets = [SocketClient(), SocketClient()]
        for socket, transport in zip(sockets, ("websocket", "polling"), strict=True):
            await socket.connect(url, token, transport=transport)
        async with client(url, token) as http:
            run = await taken(http, agent)
            await sockets[0].ok("subscribe_command", {"command_id": run.command_id})
            body = {"command": "a", "wait": 300}
            waiting = asyncio.create_task(http.post("/agents/web-1/execute", json=body))
            await agent.next_order()
            async with http.stream("GET", f"/commands/{run.command_id}/events") as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                begun = asyncio.get_running_loop().time()
                assert await controller.stop() == 0
                assert asyncio.get_running_loop().time() - begun < 4
                assert "event: result" not in [line async for line in lines]
            assert (await waiting).status_code == 202
        for peer in (*sockets, agent):
            async with asyncio.timeout(20):
                await peer.closed.wait()
        assert "Traceback" not in controller.log and "[error" not in controller.log


async def test_sigint_exits_with_0_and_a_second_signal_changes_nothing(folder: Path) -> None:
    async with started(folder) as controller:
        await controller.url()
        controller.process.send_signal(signal.SIGINT)
        assert await controller.stop() == 0


async def test_a_restart_keeps_commands_output_users_and_tokens(
    folder: Path, data_dir: Path, installation: Installation
) -> None:
    token = installation.users["admin"]
    async with started(folder, DATA_DIR=data_dir) as controller:
        url = await controller.url()
        agent = ProtocolAgent(url, installation.agents["web-1"], "web-1")
        await agent.connect()
        await agent.register()
        async with client(url, token) as http:
            done = await played(http, agent, b"kept\n")
            run = await taken(http, agent)
            await run.write(b"half")
            await run.stored()
            named = (await http.post("/tokens", json={"name": "t"})).json()["token"]
        controller.process.kill()
        await controller.ended()
    async with asyncio.timeout(20):
        await agent.closed.wait()
    async with started(folder, DATA_DIR=data_dir) as controller:
        url = await controller.url()
        async with client(url, named) as http, client(url, token) as signed:
            assert (await signed.get("/me")).json()["username"] == "admin"
            assert len((await http.get("/users")).json()) == 5
            assert (await seen(http, done))["state"] == "succeeded"
            output = await http.get(f"/commands/{done}/output/stdout")
            assert output.content == b"kept\n"
            assert (await http.get("/agents/web-1")).json()["status"] == "offline"
            agent.url = url
            await agent.connect()
            held = {"command_id": run.command_id, "state": "running", "next_seq": 1}
            response = await agent.register(resume=[held])
            assert (response["epoch"], response["resume"][0]["stdout_bytes"]) == (2, 4)
            await run.write(b" and half")
            assert (await run.end())["ok"]
            output = await http.get(f"/commands/{run.command_id}/output/stdout")
            assert output.content == b"half and half"
            await submit(http)
            await agent.next_order()
        await agent.disconnect()
        assert await controller.stop() == 0


async def test_short_tokens_expire_for_rest(
    folder: Path, data_dir: Path, installation: Installation
) -> None:
    async with (
        started(folder, DATA_DIR=data_dir, ACCESS_TOKEN_EXPIRE_MINUTES=0.02) as controller,
        client(await controller.url(), None) as http,
    ):
        form = {"username": "vera", "password": PASSWORD}
        answer = (await http.post("/token", data=form)).json()
        assert answer["expires_in"] == pytest.approx(1.2)
        http.headers["Authorization"] = f"Bearer {answer['access_token']}"
        async with asyncio.timeout(20):
            while (refused := await http.get("/me")).status_code == 200:
                await asyncio.sleep(0.05)
        assert (refused.status_code, refused.json()["code"]) == (401, "token_expired")
