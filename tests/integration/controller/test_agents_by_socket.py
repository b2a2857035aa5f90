"""subscribe_agents: the list once, then what changes in it."""

from collections.abc import Callable
from typing import Any

import httpx2

from tests.fakes.protocol_agent import INFO, ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.installation import Running

Open = Callable[..., Any]
STATUS = {"kind": shapes.Or("full", "delta"), "version": int, "agents": [shapes.AGENT]}


def ids(payload: dict[str, Any]) -> list[str]:
    return [agent["agent_id"] for agent in payload["agents"]]


async def test_the_whole_list_comes_once_and_first(
    open_socket: Open, agent: ProtocolAgent, other_agent: ProtocolAgent
) -> None:
    socket = await open_socket("vera")
    assert await socket.ok("subscribe_agents", {}) == {"ok": True}
    full = await socket.hears("agent_status", kind="full")
    shapes.check(full, STATUS)
    assert (ids(full), full["version"]) == (["web-1", "web-2"], 1)


async def test_an_agent_that_comes_and_goes_is_told_with_growing_versions(
    open_socket: Open, controller: Running, agent: ProtocolAgent
) -> None:
    socket = await open_socket()
    await socket.ok("subscribe_agents")
    await socket.hears("agent_status", kind="full")
    await agent.disconnect()
    gone = await socket.hears("agent_disconnected")
    shapes.check(gone, shapes.AGENT)
    assert (gone["agent_id"], gone["status"], gone["sid"]) == ("web-1", "offline", None)
    await agent.connect()
    await agent.register()
    back = await socket.hears("agent_connected")
    shapes.check(back, shapes.AGENT)
    assert (back["agent_id"], back["status"]) == ("web-1", "online")
    last = await socket.hears("agent_status", count=2, kind="delta")
    shapes.check(last, STATUS)
    versions = [payload["version"] for payload in socket.all("agent_status")]
    assert versions == sorted(set(versions))


async def test_an_agent_that_is_new_is_told(
    open_socket: Open, controller: Running, agent: ProtocolAgent
) -> None:
    socket = await open_socket()
    await socket.ok("subscribe_agents")
    await socket.hears("agent_status", kind="full")
    new = ProtocolAgent(controller.url, controller.installation.agents["web-2"], "web-2")
    await new.connect()
    await new.register()
    assert (await socket.hears("agent_connected"))["agent_id"] == "web-2"
    assert ids(await socket.hears("agent_status", kind="delta")) == ["web-2"]
    await new.disconnect()


async def test_changed_facts_are_a_delta(open_socket: Open, agent: ProtocolAgent) -> None:
    socket = await open_socket()
    await socket.ok("subscribe_agents")
    await socket.hears("agent_status", kind="full")
    await agent.call("agent_info", INFO | {"hostname": "renamed"})
    delta = await socket.hears("agent_status", kind="delta")
    assert delta["agents"][0]["agent_info"]["hostname"] == "renamed"
    assert not socket.all("agent_connected") + socket.all("agent_disconnected")


async def test_named_or_selected_agents_alone_are_told(
    open_socket: Open, agent: ProtocolAgent, other_agent: ProtocolAgent
) -> None:
    for wanted in ({"agent_ids": ["web-1", "nobody"]}, {"selector": "env=prod"}):
        socket = await open_socket()
        await socket.ok("subscribe_agents", wanted)
        assert ids(await socket.hears("agent_status", kind="full")) == ["web-1"]


async def test_a_limited_user_is_told_of_nothing_else(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent, other_agent: ProtocolAgent
) -> None:
    prod, everything = await open_socket("prod"), await open_socket("admin")
    for socket in (prod, everything):
        await socket.ok("subscribe_agents")
        await socket.hears("agent_status", kind="full")
    await other_agent.disconnect()
    await agent.disconnect()
    assert (await prod.hears("agent_disconnected"))["agent_id"] == "web-1"
    await everything.hears("agent_disconnected", count=2)
    told = [a for payload in prod.all("agent_status") for a in ids(payload)]
    assert set(told) == {"web-1"}
