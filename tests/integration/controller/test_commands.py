"""GET /commands, one command, and POST /commands/{command_id}/control."""

import httpx2

from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import leave, played, seen, submit, taken
from tests.integration.controller.installation import Running


async def listed(http: httpx2.AsyncClient, **filters: object) -> list[str]:
    answer = await http.get("/commands", params=filters)
    assert answer.status_code == 200, answer.text
    shapes.check(answer.json(), shapes.PAGE)
    return [item["command_id"] for item in answer.json()["items"]]


async def test_pages_go_from_the_newest_to_the_oldest_and_lose_nothing(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    made = [await submit(admin, command=f"c{i}") for i in range(7)]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await admin.get("/commands", params={"limit": 3, **cursor})).json()
        shapes.check(page, shapes.PAGE)
        found += [item["command_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        await submit(admin, command="newer ones do not shift the pages")
        cursor = {"cursor": page["next_cursor"]}
    assert found == made[::-1]


async def test_a_page_that_is_exactly_full_is_the_last(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    for _ in range(2):
        await submit(admin)
    page = (await admin.get("/commands", params={"limit": 2})).json()
    assert (len(page["items"]), page["next_cursor"]) == (2, None)


async def test_commands_are_filtered_by_agent_state_and_requester(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent, other_agent: ProtocolAgent
) -> None:
    done = await played(admin, agent)
    other = await submit(admin, "web-2")
    async with controller.http("olga") as olga:
        hers = (await taken(olga, agent)).command_id
    assert await listed(admin) == [hers, other, done]
    assert await listed(admin, agent_id="web-2") == [other]
    assert await listed(admin, state="succeeded") == [done]
    assert await listed(admin, state="running", agent_id="web-1") == [hers]
    assert await listed(admin, requester="olga") == [hers]
    assert await listed(admin, requester="nobody") == []


async def test_a_page_has_1_to_200_commands_and_filters_that_exist(
    admin: httpx2.AsyncClient,
) -> None:
    for filters in ({"limit": "0"}, {"limit": "201"}, {"state": "asleep"}, {"agent_id": "a b"}):
        answer = await admin.get("/commands", params=filters)
        shapes.check_problem(answer, 422, "validation_error")


async def test_an_unknown_command_is_not_found(admin: httpx2.AsyncClient) -> None:
    for path in ("", "/output", "/output/stdout", "/events"):
        answer = await admin.get(f"/commands/nowhere{path}")
        shapes.check_problem(answer, 404, "command_not_found")
    answer = await admin.post("/commands/nowhere/control", json={"action": "cancel"})
    shapes.check_problem(answer, 404, "command_not_found")


async def test_a_cancel_reaches_the_agent_and_the_agent_says_when_it_is_done(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    answer = await admin.post(f"/commands/{run.command_id}/control", json={"action": "cancel"})
    assert answer.status_code == 202
    shapes.check(answer.json(), shapes.COMMAND)
    assert (answer.json()["state"], answer.json()["requested_action"]) == ("running", "cancel")
    order = await agent.next_order("control")
    wanted = {"v": 1, "kind": "control", "command_id": run.command_id, "action": "cancel"}
    assert wanted.items() <= order.items()
    assert (order["agent_id"], order["requester"]) == ("web-1", "admin")
    await run.end("cancelled", signal="SIGTERM")
    ended = await seen(admin, run.command_id)
    assert (ended["state"], ended["status"], ended["signal"]) == ("cancelled", "error", "SIGTERM")


async def test_pause_and_resume_go_with_what_the_agent_reports(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    for action, state in (("pause", "paused"), ("resume", "running")):
        path = f"/commands/{run.command_id}/control"
        assert (await admin.post(path, json={"action": action})).status_code == 202
        assert (await agent.next_order("control"))["action"] == action
        await run.state(state)
        assert (await seen(admin, run.command_id))["state"] == state


async def test_a_stop_that_failed_leaves_the_state_and_says_so(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    error = {"code": "stop_not_permitted", "message": "sudo", "pids": [17]}
    await run.state("running", stop_error=error)
    command = await seen(admin, run.command_id)
    shapes.check(command, shapes.COMMAND)
    assert (command["state"], command["stop_error"]) == ("running", error)


async def test_what_has_ended_cannot_be_controlled(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent)
    for action in ("cancel", "kill", "pause", "resume"):
        answer = await admin.post(f"/commands/{command_id}/control", json={"action": action})
        shapes.check_problem(answer, 409, "invalid_state")
    answer = await admin.post(f"/commands/{command_id}/control", json={"action": "dance"})
    shapes.check_problem(answer, 422, "validation_error")


async def test_a_command_that_was_never_offered_is_cancelled_at_once(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    await leave(controller, agent)
    command_id = await submit(admin, queue=True)
    answer = await admin.post(f"/commands/{command_id}/control", json={"action": "cancel"})
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert answer.json()["finished_at"] is not None
    await agent.connect()
    await agent.register()
    last = await submit(admin)
    assert (await agent.next_order())["command_id"] == last


async def test_a_control_order_waits_for_an_agent_that_is_away(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await leave(controller, agent)
    answer = await admin.post(f"/commands/{run.command_id}/control", json={"action": "kill"})
    assert answer.json()["state"] == "running"
    await agent.connect()
    held = {"command_id": run.command_id, "state": "running", "next_seq": 0}
    await agent.register(resume=[held])
    assert (await agent.next_order("control"))["action"] == "kill"


async def test_a_control_order_waits_until_the_agent_knows_the_command(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    agent.may_answer.clear()
    command_id = await submit(admin)
    await agent.next_order()
    answer = await admin.post(f"/commands/{command_id}/control", json={"action": "cancel"})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    agent.may_answer.set()
    assert (await agent.next_order("control"))["command_id"] == command_id
    assert (await seen(admin, command_id))["state"] == "dispatched"


async def test_a_viewer_controls_nothing(
    admin: httpx2.AsyncClient, vera: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    answer = await vera.post(f"/commands/{run.command_id}/control", json={"action": "kill"})
    shapes.check_problem(answer, 403, "forbidden")
    assert (await seen(vera, run.command_id))["requested_action"] is None
