"""What was given away ends soon after the right to it does."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller.commands import taken
from tests.integration.controller.installation import Running
from tests.integration.controller.test_sign_in import jwt

Open = Callable[..., Any]
DEADLINE_S = 20.0


async def closed(peer: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await peer.closed.wait()


async def test_a_deleted_users_socket_is_closed(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    vera, olga = await open_socket("vera"), await open_socket("olga")
    await vera.ok("subscribe_command", {"command_id": run.command_id})
    await admin.delete("/users/vera")
    await closed(vera)
    await olga.ok("subscribe_command", {"command_id": run.command_id})


async def test_the_socket_of_a_deleted_token_is_closed(
    open_socket: Open, admin: httpx2.AsyncClient
) -> None:
    made = (await admin.post("/tokens", json={"name": "ci", "role": "viewer"})).json()
    socket = await open_socket(token=made["token"])
    assert (await admin.delete(f"/tokens/{made['token_id']}")).status_code == 204
    await closed(socket)


async def test_a_deleted_users_event_stream_ends(
    admin: httpx2.AsyncClient, vera: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    async with vera.stream("GET", f"/commands/{run.command_id}/events") as answer:
        await admin.delete("/users/vera")
        async with asyncio.timeout(DEADLINE_S):
            told = [data async for data in answer.aiter_bytes()]
    assert b"event: result" not in b"".join(told)


async def test_a_session_ends_with_the_account_of_its_agent(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    await admin.delete("/users/agents")
    await closed(agent)


async def test_a_session_outlives_its_token(
    controller: Running, vera: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.presentation.socketio.agent_namespace.CHECK_INTERVAL_S", 0.1)
    key = (controller.data_dir / "secret-key").read_text().strip()
    claims = {"aud": "ogent-agent", "typ": "agent", "sub": "agents", "agent_id": "web-1"}
    agent = ProtocolAgent(controller.url, jwt(key, **claims, exp=int(time.time()) + 3), "web-1")
    await agent.connect()
    await agent.register()
    await asyncio.sleep(3.5)  # its token has expired, and checks have passed since
    assert not agent.closed.is_set()
    assert (await vera.get("/agents/web-1")).json()["status"] == "online"
    await agent.disconnect()


async def test_an_agent_that_leaves_the_view_is_told_as_gone(
    open_socket: Open, controller: Running, agent: ProtocolAgent
) -> None:
    socket = await open_socket()
    await socket.ok("subscribe_agents", {"selector": "env=prod"})
    await socket.hears("agent_status", kind="full")
    again = ProtocolAgent(
        controller.url, controller.installation.agents["web-1"], "web-1", agent.instance_id
    )
    await again.connect()
    await again.register(last_epoch=agent.epoch, labels={"env": "dev"})
    gone = await socket.hears("agent_disconnected", status="offline", sid=None)
    assert gone["agent_id"] == "web-1"
    await again.disconnect()
