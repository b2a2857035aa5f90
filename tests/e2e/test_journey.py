"""What a user with nothing but curl sees, from the first token to the stored result."""

import httpx2

from tests.e2e.services import ADMIN_PASSWORD, Agent, Controller
from tests.integration.controller import shapes


async def test_a_password_is_exchanged_for_a_token(controller: Controller) -> None:
    form = {"username": "admin", "password": ADMIN_PASSWORD}
    async with httpx2.AsyncClient(base_url=controller.url) as nobody:
        answer = await nobody.post("/token", data=form)
        assert answer.status_code == 200
        shapes.check(
            answer.json(), {"access_token": str, "token_type": "bearer", "expires_in": float}
        )
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert (await nobody.get("/me", headers=headers)).json()["username"] == "admin"


async def test_the_agent_is_listed_with_its_facts(http: httpx2.AsyncClient, agent: Agent) -> None:
    answer = await http.get("/agents", params={"status": "online", "selector": "env=prod"})
    shapes.check(answer.json(), [shapes.AGENT])
    found = next(a for a in answer.json() if a["agent_id"] == agent.id)
    assert found["labels"] == {"env": "prod", "role": "web"}
    assert found["agent_info"]["executors"] == ["local"]
    one = await http.get(f"/agents/{agent.id}")
    assert one.json()["sid"] == found["sid"]


async def test_a_command_is_run_and_answered_with_its_result(
    http: httpx2.AsyncClient, agent: Agent
) -> None:
    body = {"command": "echo hi; echo oh >&2; exit 3"}
    answer = await http.post(f"/agents/{agent.id}/execute", json=body)
    assert answer.status_code == 200
    shapes.check(answer.json(), shapes.FINISHED)
    result = answer.json()["result"]
    assert (answer.json()["status"], answer.json()["state"]) == ("error", "failed")
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("hi\n", "oh\n", 3)
    assert (result["stdout_bytes"], result["execution_type"]) == (3, "local")


async def test_what_was_run_is_stored(http: httpx2.AsyncClient, agent: Agent) -> None:
    body = {"command": "echo one; echo two"}
    ran = (await http.post(f"/agents/{agent.id}/execute", json=body)).json()
    path = f"/commands/{ran['command_id']}"
    command = (await http.get(path)).json()
    shapes.check(command, shapes.COMMAND)
    assert (command["state"], command["requester"]) == ("succeeded", "admin")
    assert command["created_at"] <= command["started_at"] <= command["finished_at"]
    page = (await http.get("/commands", params={"agent_id": agent.id, "limit": 1})).json()
    shapes.check(page, shapes.PAGE)
    assert page["items"] == [command]


async def test_stored_output_is_read_as_lines_and_as_bytes(
    http: httpx2.AsyncClient, agent: Agent
) -> None:
    body = {"command": "printf 'one\\ntwo\\n\\377'"}
    ran = (await http.post(f"/agents/{agent.id}/execute", json=body)).json()
    path = f"/commands/{ran['command_id']}/output"
    lines = (await http.get(path, params={"filter": "^t"})).json()
    shapes.check(lines, shapes.LINES)
    assert [(line["number"], line["text"]) for line in lines["lines"]] == [(1, "two")]
    whole = await http.get(f"{path}/stdout")
    assert (whole.headers["content-type"], whole.content) == (
        "application/octet-stream",
        b"one\ntwo\n\xff",
    )
    part = await http.get(f"{path}/stdout", headers={"Range": "bytes=4-6"})
    assert (part.status_code, part.content) == (206, b"two")


async def test_a_command_that_takes_longer_than_the_caller_waits_goes_on(
    http: httpx2.AsyncClient, agent: Agent
) -> None:
    body = {"command": "sleep 0.5; echo done", "wait": 0}
    answer = await http.post(f"/agents/{agent.id}/execute", json=body)
    assert answer.status_code == 202
    shapes.check(answer.json(), shapes.UNFINISHED)
    where = answer.headers["location"]
    assert where == f"/commands/{answer.json()['command_id']}"
    events = (await http.get(f"{where}/events")).text  # ends after the result
    assert "done" in events and "event: result" in events
    assert (await http.get(where)).json()["state"] == "succeeded"


async def test_refusals_say_what_is_wrong(http: httpx2.AsyncClient, agent: Agent) -> None:
    path = f"/agents/{agent.id}/execute"
    for fields in ({"command": ""}, {"command": "a\0b"}, {"timeout": -1}, {"unknown": 1}):
        refused = await http.post(path, json={"command": "true"} | fields)
        shapes.check_problem(refused, 422, "validation_error")
    over_long = await http.post(path, json={"command": "x" * 65_537})
    shapes.check_problem(over_long, 422, "too_large")
    unknown = await http.post("/agents/nobody/execute", json={"command": "true"})
    shapes.check_problem(unknown, 404, "agent_not_found")
    nothing = await http.get("/commands/nothing-of-that-name")
    shapes.check_problem(nothing, 404, "command_not_found")
