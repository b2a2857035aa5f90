"""An agent that does not behave costs little, and nobody else anything."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx2
import pytest

from app.settings import Settings
from tests.fakes.protocol_agent import INFO, ProtocolAgent, now
from tests.integration.controller.installation import Running

Open = Callable[..., Any]
NAMESPACE = "app.presentation.socketio.agent_namespace"
DEADLINE_S = 40.0


@pytest.fixture
def patient_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that waits long for another process; asked for before the controller."""
    monkeypatch.setattr("app.infrastructure.database.sqlite_database.BUSY_TIMEOUT_MS", 30_000)


async def test_an_agent_that_does_not_register_is_hung_up(
    controller: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{NAMESPACE}.REGISTER_TIMEOUT_S", 0.2)
    agent = ProtocolAgent(controller.url, controller.installation.agents["web-1"], "web-1")
    await agent.connect()
    async with asyncio.timeout(DEADLINE_S):
        await agent.closed.wait()


async def test_of_many_facts_the_first_and_the_newest_are_stored(
    open_socket: Open, agent: ProtocolAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{NAMESPACE}.INFO_INTERVAL_S", 2.0)
    socket = await open_socket()
    await socket.ok("subscribe_agents")
    await socket.hears("agent_status", kind="full")
    for number in range(100):
        assert await agent.call("agent_info", INFO | {"hostname": f"host {number}"}) == {"ok": True}
    await socket.hears("agent_status", count=2, kind="delta")
    told = [p["agents"][0]["agent_info"]["hostname"] for p in socket.all("agent_status")[1:]]
    assert told == ["host 0", "host 99"]


async def test_a_flood_of_reports_leaves_room_in_the_store(
    patient_store: None, settings: Settings, agent: ProtocolAgent
) -> None:
    """More commands than may wait for the store, reported while it is busy."""
    frame = {"state": "running", "timestamp": now()}
    with closing(sqlite3.connect(settings.database_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(6000):
            await agent.emit("command_state", frame | {"command_id": f"none {number}"})
        assert (await agent.call("agent_info", {}))["ok"] is False  # all of them have arrived
        other.execute("ROLLBACK")
    answer = await agent.call("command_state", frame | {"command_id": "none"})
    assert answer["error"]["code"] == "command_not_found"
    assert not agent.closed.is_set()


async def test_a_session_that_could_not_be_released_is_released_later(
    settings: Settings,
    admin: httpx2.AsyncClient,
    agent: ProtocolAgent,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = ""
    other = sqlite3.connect(settings.database_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # for longer than the store waits
    async with asyncio.timeout(DEADLINE_S):
        await agent.disconnect()
        while "a release was not stored" not in (said := said + "".join(capfd.readouterr())):
            await asyncio.sleep(0.1)
        other.execute("ROLLBACK")
        while (await admin.get("/agents/web-1")).json()["status"] != "offline":
            await asyncio.sleep(0.1)
    other.close()
