"""GET /agents and what of them is seen."""

import httpx2

from tests.fakes.protocol_agent import INFO, ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import leave, submit
from tests.integration.controller.installation import Running


async def ids(http: httpx2.AsyncClient, **filters: str) -> list[str]:
    answer = await http.get("/agents", params=filters)
    assert answer.status_code == 200, answer.text
    return [agent["agent_id"] for agent in answer.json()]


async def test_an_agent_is_shown_as_it_describes_itself(
    vera: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    found = (await vera.get("/agents/web-1")).json()
    shapes.check(found, shapes.AGENT)
    assert (found["status"], found["running"]) == ("online", 0)
    assert found["labels"] == {"env": "prod", "role": "web"}
    assert found["agent_info"] == INFO
    assert found["last_seen_at"] >= found["connected_at"]
    (listed,) = (await vera.get("/agents")).json()
    assert listed["last_seen_at"] >= found["last_seen_at"]  # it is there, so it was seen just now
    assert {**listed, "last_seen_at": None} == {**found, "last_seen_at": None}


async def test_running_counts_unfinished_commands(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    await submit(admin)
    run = await agent.execution()
    assert (await admin.get("/agents/web-1")).json()["running"] == 1
    await run.end()
    assert (await admin.get("/agents/web-1")).json()["running"] == 0


async def test_changed_facts_are_shown(vera: httpx2.AsyncClient, agent: ProtocolAgent) -> None:
    targets = [{"name": "db", "target": "root@db:22", "labels": {"env": "prod"}}]
    info = INFO | {"ssh_enabled": True, "ssh_targets": targets, "executors": ["local", "ssh"]}
    assert await agent.call("agent_info", info) == {"ok": True}
    found = (await vera.get("/agents/web-1")).json()
    shapes.check(found, shapes.AGENT)
    assert found["agent_info"] == info


async def test_agents_are_filtered_by_status_and_selector(
    controller: Running, vera: httpx2.AsyncClient, agent: ProtocolAgent, other_agent: ProtocolAgent
) -> None:
    await leave(controller, other_agent)
    assert await ids(vera) == ["web-1", "web-2"]
    assert await ids(vera, status="online") == ["web-1"]
    assert await ids(vera, status="offline") == ["web-2"]
    assert await ids(vera, selector="env=prod") == ["web-1"]
    assert await ids(vera, selector="env in (dev, test)") == ["web-2"]
    assert await ids(vera, selector="env!=prod") == ["web-2"]
    assert await ids(vera, selector="role") == ["web-1"]
    assert await ids(vera, selector="!role,env", status="online") == []


async def test_an_agent_that_left_is_offline_and_keeps_its_facts(
    controller: Running, vera: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    await leave(controller, agent)
    found = (await vera.get("/agents/web-1")).json()
    shapes.check(found, shapes.AGENT)
    assert (found["status"], found["sid"], found["agent_info"]) == ("offline", None, INFO)
    assert found["last_seen_at"] >= found["connected_at"]


async def test_a_bad_filter_is_said(vera: httpx2.AsyncClient) -> None:
    bad = await vera.get("/agents", params={"selector": "a=b="})
    shapes.check_problem(bad, 422, "invalid_selector")
    bad = await vera.get("/agents", params={"status": "asleep"})
    shapes.check_problem(bad, 422, "validation_error")


async def test_what_is_outside_a_selector_looks_as_if_it_did_not_exist(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent, other_agent: ProtocolAgent
) -> None:
    hidden = await submit(admin, "web-2")
    requests = [
        ("GET", "/agents/{}", "web-2", None),
        ("POST", "/agents/{}/execute", "web-2", {"command": "a", "wait": 0}),
        ("GET", "/commands/{}", hidden, None),
        ("GET", "/commands/{}/output", hidden, None),
        ("GET", "/commands/{}/output/stdout", hidden, None),
        ("GET", "/commands/{}/events", hidden, None),
        ("POST", "/commands/{}/control", hidden, {"action": "cancel"}),
    ]
    async with controller.http("prod") as prod:
        for method, path, name, body in requests:
            found = await prod.request(method, path.format(name), json=body)
            absent = await prod.request(method, path.format("nowhere"), json=body)
            assert found.status_code == absent.status_code == 404
            assert found.text.replace(name, "nowhere") == absent.text
        assert await ids(prod) == ["web-1"]
        assert (await prod.get("/commands")).json()["items"] == []


async def test_a_limited_viewer_is_told_the_same_of_what_he_may_not_do(
    controller: Running, admin: httpx2.AsyncClient, other_agent: ProtocolAgent
) -> None:
    body = {"username": "lim", "password": "at least twelve", "role": "viewer", "selector": "x=y"}
    await admin.post("/users", json=body)
    form = {"username": "lim", "password": "at least twelve"}
    token = (await admin.post("/token", data=form)).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    for name in ("web-2", "nowhere"):
        answer = await admin.post(f"/agents/{name}/execute", json={"command": "a"}, headers=headers)
        shapes.check_problem(answer, 404, "agent_not_found")


async def test_hostile_words_of_an_agent_stay_words(
    controller: Running, vera: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    hostile = '<img src=x onerror="alert(1)">\x1b[2J\u202e'
    assert await agent.call("agent_info", INFO | {"hostname": hostile}) == {"ok": True}
    answer = await vera.get("/agents/web-1")
    assert answer.json()["agent_info"]["hostname"] == hostile
    assert answer.headers["content-type"] == "application/json"
