"""POST /agents/{agent_id}/execute."""

import asyncio
import json

import httpx2

from tests.fakes.protocol_agent import INFO, ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import leave, played, reaches, seen, submit, taken
from tests.integration.controller.installation import Running

EXECUTE = "/agents/web-1/execute"
JSON = {"Content-Type": "application/json"}
BODIES_WITHOUT_MEANING: tuple[object, ...] = (
    {},
    [],
    {"command": ""},
    {"command": " \n"},
    {"command": "a\0b"},
    {"command": "\ud800"},
    {"command": 7},
    {"command": "a", "unknown": 1},
    {"command": "a", "timeout": -1},
    {"command": "a", "timeout": 0},
    {"command": "a", "timeout": "NaN"},
    {"command": "a", "timeout": float("inf")},
    {"command": "a", "wait": 301},
    {"command": "a", "wait": -1},
    {"command": "a", "expires_in": 30 * 86400},
    {"command": "a", "execution_target": "docker"},
    {"command": "a", "execution_target": "ssh:"},
    {"command": "a", "env": {"A=B": "1"}},
    {"command": "a", "env": {"": "1"}},
    {"command": "a", "env": {"A": "\0"}},
    {"command": "a", "cwd": "relative"},
    {"command": "a", "use_ai": True},
)
TOO_LARGE: tuple[tuple[str, dict[str, object]], ...] = (
    ("command", {"command": "é" * 32_769}),
    ("env", {"env": {f"N{i}": "" for i in range(129)}}),
    ("env", {"env": {"A": "x" * 65_536}}),
    ("stdin", {"stdin": "x" * 262_145}),
)


async def test_a_command_that_ends_within_wait_is_answered_with_its_result(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    asked = asyncio.create_task(admin.post(EXECUTE, json={"command": "echo hi", "wait": 30}))
    run = await agent.execution()
    await run.start()
    await run.write(b"hi \xff\n")
    await run.write(b"oh\n", "stderr")
    await run.end(exit_code=0)
    answer = await asked
    assert answer.status_code == 200
    body = answer.json()
    shapes.check(body, shapes.FINISHED)
    assert (body["status"], body["state"]) == ("success", "succeeded")
    assert (body["result"]["stdout"], body["result"]["stderr"]) == ("hi \ufffd\n", "oh\n")
    assert (body["result"]["stdout_bytes"], body["result"]["exit_code"]) == (5, 0)
    assert body["result"]["execution_type"] == "local"


async def test_a_failed_command_is_answered_with_200_and_error(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    asked = asyncio.create_task(admin.post(EXECUTE, json={"command": "no", "wait": 30}))
    run = await agent.execution()
    failure = {"code": "spawn_failed", "message": "there is no such folder"}
    await run.end("failed", error=failure)
    answer = await asked
    shapes.check(answer.json(), shapes.FINISHED)
    assert (answer.status_code, answer.json()["status"]) == (200, "error")
    assert answer.json()["error"] == failure


async def test_a_command_that_goes_on_is_answered_with_202_and_where_it_is(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    answer = await admin.post(EXECUTE, json={"command": "sleep 9", "wait": 0.05})
    assert answer.status_code == 202
    shapes.check(answer.json(), shapes.UNFINISHED)
    assert answer.headers["location"] == f"/commands/{answer.json()['command_id']}"
    found = await admin.get(answer.headers["location"])
    assert found.status_code == 200


async def test_a_result_carries_the_last_mebibyte_of_each_stream(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    asked = asyncio.create_task(admin.post(EXECUTE, json={"command": "much"}))
    run = await agent.execution()
    await run.start()
    for letter in b"abcdefg":
        await run.write(bytes([letter]) * 200_000)
    await run.end()
    result = (await asked).json()["result"]
    whole = "".join(letter * 200_000 for letter in "abcdefg")
    assert result["stdout"] == whole[-(1 << 20) :]
    assert (result["truncated"], result["stdout_bytes"]) == (True, 1_400_000)


async def test_the_order_says_what_was_asked(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    asked = {"command": "env", "env": {"A": "ü"}, "cwd": "/srv", "stdin": "in\0", "timeout": 2.5}
    command_id = await submit(admin, **asked, expires_in=7)
    order = await agent.next_order()
    assert asked.items() <= order.items()
    assert (order["v"], order["kind"], order["agent_id"]) == (1, "run", "web-1")
    assert (order["command_id"], order["requester"]) == (command_id, "admin")
    assert order["execution_target"] == "local"
    assert order["max_output_bytes"] == 1 << 30
    shapes.check(order["issued_at"], shapes.TIME)
    shapes.check(order["expires_at"], shapes.TIME)


async def test_auto_is_ssh_where_the_agent_has_an_ssh_target(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    info = {"ssh_enabled": True, "ssh_target": "root@db", "executors": ["local", "ssh"]}
    assert (await agent.call("agent_info", INFO | info)) == {"ok": True}
    command_id = await submit(admin)
    assert (await agent.next_order())["execution_target"] == "ssh"
    assert (await seen(admin, command_id))["execution_target"] == "ssh"


async def test_a_repeat_with_the_same_key_gets_the_first_command(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    key = {"Idempotency-Key": "once"}
    first = await admin.post(EXECUTE, json={"command": "a", "wait": 0}, headers=key)
    again = await admin.post(EXECUTE, json={"command": "a", "wait": 0.01}, headers=key)
    assert again.json()["command_id"] == first.json()["command_id"]
    await submit(admin, command="last")
    assert [(await agent.next_order())["command"] for _ in range(2)] == ["a", "last"]


async def test_a_repeat_gets_the_first_command_while_its_agent_is_away(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    key = {"Idempotency-Key": "once"}
    first = await admin.post(EXECUTE, json={"command": "a", "wait": 0}, headers=key)
    await leave(controller, agent)
    again = await admin.post(EXECUTE, json={"command": "a", "wait": 0}, headers=key)
    assert (again.status_code, again.json()["command_id"]) == (202, first.json()["command_id"])
    assert len((await admin.get("/commands")).json()["items"]) == 1


async def test_a_key_used_for_another_request_is_a_conflict(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    key = {"Idempotency-Key": "once"}
    await admin.post(EXECUTE, json={"command": "a", "wait": 0}, headers=key)
    other = await admin.post(EXECUTE, json={"command": "b", "wait": 0}, headers=key)
    shapes.check_problem(other, 409, "idempotency_conflict")
    assert len((await admin.get("/commands")).json()["items"]) == 1


async def test_keys_of_two_users_are_apart(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    key = {"Idempotency-Key": "once"}
    mine = await admin.post(EXECUTE, json={"command": "a", "wait": 0}, headers=key)
    async with controller.http("olga") as olga:
        hers = await olga.post(EXECUTE, json={"command": "b", "wait": 0}, headers=key)
    assert hers.status_code == 202
    assert hers.json()["command_id"] != mine.json()["command_id"]


async def test_an_agent_that_is_away_is_a_conflict_unless_the_command_may_wait(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    await leave(controller, agent)
    refused = await admin.post(EXECUTE, json={"command": "a"})
    shapes.check_problem(refused, 409, "agent_offline")
    assert (await admin.get("/commands")).json()["items"] == []
    queued = await admin.post(EXECUTE, json={"command": "a", "queue": True, "wait": 0})
    assert (queued.status_code, queued.json()["status"]) == (202, "queued")
    await agent.connect()
    await agent.register()
    assert (await agent.next_order())["command_id"] == queued.json()["command_id"]


async def test_a_queued_command_whose_time_has_passed_is_rejected(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    await leave(controller, agent)
    command_id = await submit(admin, queue=True, expires_in=0.1)
    command = await reaches(admin, command_id, "rejected")
    assert (command["status"], command["error"]["code"]) == ("error", "expired")
    await agent.connect()
    await agent.register()
    last = await submit(admin)
    assert (await agent.next_order())["command_id"] == last


async def test_an_agent_that_refuses_an_order_has_it_rejected(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    error = {"code": "no_executor", "message": "no SSH here"}
    agent.answer = lambda order: {"ok": False, "command_id": order["command_id"], "error": error}
    answer = await admin.post(EXECUTE, json={"command": "a", "execution_target": "ssh"})
    assert (answer.status_code, answer.json()["state"]) == (200, "rejected")
    assert answer.json()["error"] == error


async def test_a_client_that_goes_away_does_not_stop_its_command(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    async with controller.http("admin") as leaving:
        asked = asyncio.create_task(leaving.post(EXECUTE, json={"command": "a", "wait": 60}))
        run = await agent.execution()
        await run.start()
        asked.cancel()
        await asyncio.wait([asked])
    await run.write(b"still here")
    assert (await run.end())["ok"]
    assert (await seen(admin, run.command_id))["state"] == "succeeded"


async def test_what_is_over_its_bound_is_too_large(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    for part, body in TOO_LARGE:
        answer = await admin.post(EXECUTE, json={"command": "a", **body})
        assert part in shapes.check_problem(answer, 422, "too_large")["detail"]
    assert (await admin.get("/commands")).json()["items"] == []


async def test_what_is_just_within_its_bounds_reaches_the_agent(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    env = {f"N{i:03}": "" for i in range(127)} | {"A": "x" * (65_536 - 127 * 4 - 1)}
    body = {"command": "\u0001" * 65_536, "env": env, "stdin": "\u0001" * 262_144}
    await submit(admin, **body)
    assert body.items() <= (await agent.next_order()).items()


async def test_what_cannot_be_meant_is_a_validation_error(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    for body in BODIES_WITHOUT_MEANING:
        answer = await admin.post(EXECUTE, content=json.dumps(body), headers=JSON)
        shapes.check_problem(answer, 422, "validation_error")
    assert (await admin.get("/commands")).json()["items"] == []


async def test_an_unknown_field_is_named(admin: httpx2.AsyncClient, agent: ProtocolAgent) -> None:
    answer = await admin.post(EXECUTE, json={"command": "a", "comand": "b"})
    body = shapes.check_problem(answer, 422, "validation_error")
    assert body["errors"][0]["loc"] == ["body", "comand"]


async def test_an_idempotency_key_has_1_to_128_characters(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    for key in ("", "x" * 129):
        headers = {"Idempotency-Key": key}
        answer = await admin.post(EXECUTE, json={"command": "a"}, headers=headers)
        shapes.check_problem(answer, 422, "validation_error")


async def test_an_unknown_agent_is_not_found(admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/agents/nobody/execute", json={"command": "a"})
    shapes.check_problem(answer, 404, "agent_not_found")


async def test_a_viewer_runs_nothing(vera: httpx2.AsyncClient, agent: ProtocolAgent) -> None:
    shapes.check_problem(await vera.post(EXECUTE, json={"command": "a"}), 403, "forbidden")
    assert (await vera.get("/commands")).json()["items"] == []


async def test_a_user_with_a_selector_runs_only_within_it(
    controller: Running, agent: ProtocolAgent, other_agent: ProtocolAgent
) -> None:
    async with controller.http("prod") as prod:
        await submit(prod, "web-1")
        answer = await prod.post("/agents/web-2/execute", json={"command": "a"})
        shapes.check_problem(answer, 404, "agent_not_found")
    assert other_agent.seen == []


async def test_a_draining_controller_takes_no_command(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    controller.controller.lifecycle.drain()
    answer = await admin.post(EXECUTE, json={"command": "a"})
    shapes.check_problem(answer, 503, "draining")
    shapes.check_problem(await admin.get("/ready"), 503, "draining")
    assert (await admin.get("/health")).json() == {"status": "healthy"}


async def test_who_waits_is_told_where_its_command_is_when_the_controller_stops(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    asked = asyncio.create_task(admin.post(EXECUTE, json={"command": "a", "wait": 300}))
    await (await agent.execution()).start()
    controller.controller.lifecycle.drain()
    answer = await asked
    assert (answer.status_code, answer.json()["state"]) == (202, "running")


async def test_the_state_of_a_command_goes_with_what_its_agent_says(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    running = await seen(admin, run.command_id)
    shapes.check(running, shapes.COMMAND)
    assert (running["state"], running["status"]) == ("running", "running")
    await run.end("failed", exit_code=3)
    ended = await seen(admin, run.command_id)
    shapes.check(ended, shapes.COMMAND)
    assert (ended["state"], ended["status"], ended["exit_code"]) == ("failed", "error", 3)
    assert ended["created_at"] <= ended["dispatched_at"] <= ended["finished_at"]
    assert ended["duration"] >= 0


async def test_truncated_says_that_more_was_written_than_is_stored(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    await run.write(b"part")
    gap = {"stream": "stdout", "offset": 4, "length": 96}
    await run.end(stdout_bytes=100, missing=[gap])
    command = await seen(admin, run.command_id)
    assert (command["truncated"], command["output_complete"]) == (True, False)
    assert command["stdout_bytes"] == 100
    page = (await admin.get(f"/commands/{run.command_id}/output")).json()
    assert page["missing"] == [gap]


async def test_a_signal_is_kept_by_name(admin: httpx2.AsyncClient, agent: ProtocolAgent) -> None:
    run = await taken(admin, agent)
    await run.end("failed", signal="SIGKILL")
    command = await seen(admin, run.command_id)
    assert (command["signal"], command["exit_code"]) == ("SIGKILL", None)


async def test_output_that_is_played_is_stored(
    admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    command_id = await played(admin, agent, b"one\n", ("stderr", b"two\n"))
    command = await seen(admin, command_id)
    assert (command["stdout_bytes"], command["stderr_bytes"]) == (4, 4)
    assert (command["truncated"], command["output_complete"]) == (False, True)
