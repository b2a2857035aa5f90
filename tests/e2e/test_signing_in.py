"""Who is let in, by which door, and for how long."""

import base64
import json
from typing import Any

import aiohttp
import httpx2
import pytest
import socketio

from ogent.client import Client, Finished
from tests.e2e.conftest import NewAgent, NewController
from tests.e2e.services import (
    ADMIN_PASSWORD,
    AGENT_ACCOUNT,
    AGENT_PASSWORD,
    DEADLINE_S,
    Agent,
    Controller,
    online,
    until,
)
from tests.integration.controller import shapes
from tests.integration.sdk.ogent_process import Ogent

#: Minutes: long enough to be used once, short enough to wait for its end.
SHORT = {"ACCESS_TOKEN_EXPIRE_MINUTES": "0.03"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def agent_token(url: str) -> str:
    form = {"username": AGENT_ACCOUNT, "password": AGENT_PASSWORD, "scope": "agent:any"}
    return str(httpx2.post(f"{url}/token", data=form).raise_for_status().json()["access_token"])


def forged(token: str) -> list[str]:
    """The token with another subject, with another signature, and with none at all."""
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    other = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "root"}).encode()).decode()
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    turned = signature[:-8] + signature[-8:].swapcase()
    return [
        f"{head}.{other.rstrip('=')}.{signature}",
        f"{head}.{body}.{turned}",
        f"{unsigned}.{body}.",
        "not.a.token",
    ]


async def test_a_wrong_password_and_an_unknown_user_look_the_same(controller: Controller) -> None:
    async with httpx2.AsyncClient(base_url=controller.url) as nobody:
        answers = [
            await nobody.post("/token", data={"username": name, "password": "wrong password 1"})
            for name in ("admin", "nobody-of-that-name")
        ]
    bodies = [shapes.check_problem(answer, 401, "invalid_credentials") for answer in answers]
    assert bodies[0] == bodies[1]


async def test_login_keeps_what_later_calls_need(
    controller: Controller, agent: Agent, cli: Ogent
) -> None:
    del cli.environ["OGENT_TOKEN"], cli.environ["OGENT_URL"]
    words = ("login", controller.url, "--username", "admin", "--password-stdin")
    refused = await cli.run(*words, stdin=b"wrong password 1\n")
    assert (refused.code, cli.login_file.exists()) == (1, False)
    assert (await cli.run(*words, stdin=f"{ADMIN_PASSWORD}\n".encode())).code == 0
    assert cli.login_file.stat().st_mode & 0o777 == 0o600
    assert (await cli.run("exec", agent.id, "--", "echo hi")).out == b"hi\n"
    assert (await cli.run("logout")).code == 0
    assert (await cli.run("agents")).code == 1


async def test_a_forged_or_missing_token_opens_no_door(controller: Controller, token: str) -> None:
    async with httpx2.AsyncClient(base_url=controller.url) as nobody:
        for bad in forged(token):
            answer = await nobody.get("/agents", headers=bearer(bad))
            shapes.check_problem(answer, 401, "unauthorized")
            await refused_by_socket(controller.url, bad)
        shapes.check_problem(await nobody.get("/agents"), 401, "unauthorized")


async def refused_by_socket(url: str, token: str) -> None:
    heard: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as opened:  # the library would leave its own open
        socket = socketio.AsyncClient(reconnection=False, http_session=opened)
        socket.on("connect_error", heard.append)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await socket.connect(url, auth={"token": token}, transports=["websocket"])
        await socket.disconnect()
    assert heard[0]["data"]["code"] == "unauthorized"


async def test_an_agents_token_opens_no_door_of_users(controller: Controller) -> None:
    token = agent_token(controller.url)
    async with httpx2.AsyncClient(base_url=controller.url, headers=bearer(token)) as agent:
        for path in ("/agents", "/commands", "/me", "/users"):
            shapes.check_problem(await agent.get(path), 401, "unauthorized")
        answer = await agent.post("/agents/shared/execute", json={"command": "true"})
        shapes.check_problem(answer, 401, "unauthorized")
    await refused_by_socket(controller.url, token)


async def test_a_users_token_does_not_open_the_agents_door(
    controller: Controller, token: str
) -> None:
    async with httpx2.AsyncClient(base_url=controller.url) as agent:
        path = "/agent/socket.io/?EIO=4&transport=websocket"
        assert (await agent.get(path, headers=bearer(token))).status_code == 401
        good = await agent.get(path, headers=bearer(agent_token(controller.url)))
        assert good.status_code != 401


async def test_an_agent_waits_for_its_account_and_says_so(
    controller: Controller, client: Client, new_agent: NewAgent
) -> None:
    early = {"AGENT_USERNAME": "later", "AGENT_PASSWORD": "made a little later 7"}
    agent = new_agent(controller, "accountless", RECONNECT_DELAY="0.5", **early)
    await agent.service.logs("wrong user name or password for 'later'")
    controller.make_account("later", early["AGENT_PASSWORD"])
    await online(client, agent.id)
    assert early["AGENT_PASSWORD"] not in agent.service.log


async def test_an_expired_token_says_so_and_is_renewed_by_a_client_with_a_password(
    new_controller: NewController,
) -> None:
    controller = new_controller(started=False, **SHORT)
    controller.start()
    headers = bearer(controller.token)

    def code() -> str:
        return str(httpx2.get(f"{controller.url}/me", headers=headers).json().get("code"))

    async with controller.client() as client:
        assert (await client.me()).username == "admin"
        await until(lambda: code() == "token_expired")
        assert (await client.me()).username == "admin"


async def test_an_agent_outlives_its_token_and_comes_back_after_its_end(
    new_controller: NewController, new_agent: NewAgent
) -> None:
    controller = new_controller(**SHORT)
    agent = new_agent(controller, "renewing")
    async with controller.client() as client:
        await online(client, agent.id)
        session = (await client.agent(agent.id)).sid
        token = agent_token(controller.url)  # younger than the agent's
        await until(lambda: has_expired(controller.url, token))
        done = await client.execute(agent.id, "echo still here")
        assert isinstance(done, Finished)
        assert (await client.agent(agent.id)).sid == session
        await controller.service.stop()
        controller.start()
        await online(client, agent.id)
        done = await client.execute(agent.id, "echo back")
        assert isinstance(done, Finished)
        assert done.result.stdout == "back\n"


def has_expired(url: str, token: str) -> bool:
    """Whether the agents' door, which says no more than 401, refuses the token by now."""
    answer = httpx2.get(
        f"{url}/agent/socket.io/?EIO=4&transport=websocket",
        headers=bearer(token),
        timeout=DEADLINE_S,
    )
    return answer.status_code == 401
