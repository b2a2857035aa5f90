"""The clients' Socket.IO door: signing in, and what its calls answer."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import engineio
import httpx2
import pytest
import socketio

from app.presentation.socketio import client_namespace
from app.settings import Settings
from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller import shapes
from tests.integration.controller.commands import leave, seen, submit, taken
from tests.integration.controller.installation import Running, client, serving
from tests.integration.controller.socket_client import SocketClient
from tests.integration.controller.test_sign_in import jwt

Open = Callable[..., Any]
REFUSED = {"ok": False, "error": shapes.ERROR}


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("by_header", [True, False])
async def test_a_user_connects_and_is_greeted(
    open_socket: Open, transport: str, by_header: bool
) -> None:
    socket = await open_socket("vera", transport=transport, by_header=by_header)
    hello = await socket.hears("connection_response")
    shapes.check(hello, {"status": "connected", "sid": str, "server_version": str})
    assert hello["sid"] == socket.socket.get_sid("/")


async def refused(url: str, auth: object) -> dict[str, Any]:
    """The data of the connect error."""
    socket = socketio.AsyncClient(reconnection=False)
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    socket.on("connect_error", heard.put)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await socket.connect(url, auth=auth, transports=["websocket"])
    await socket.disconnect()
    async with asyncio.timeout(20):
        return await heard.get()


async def test_a_bad_token_is_refused_with_a_code(controller: Running) -> None:
    key = (controller.data_dir / "secret-key").read_text().strip()
    for auth in (
        None,
        {},
        {"token": None},
        {"token": 7},
        {"token": ""},
        {"token": "nonsense"},
        {"token": jwt("", alg="none")},
        {"token": jwt(key, exp=int(time.time()) - 5)},
        {"token": controller.installation.agents["web-1"]},
        "text",
    ):
        data = await refused(controller.url, auth)
        # python-socketio wraps what was refused: its message, and our data.
        body = data.get("data", data)
        shapes.check(body, shapes.ERROR)
        assert body["code"] == "unauthorized"


async def test_a_page_of_a_foreign_origin_is_refused(controller: Running) -> None:
    path = "/socket.io/?EIO=4&transport=polling"
    async with client(controller.url, controller.installation.users["admin"]) as http:
        foreign = await http.get(path, headers={"Origin": "https://evil.example"})
        own = await http.get(path, headers={"Origin": controller.url})
    assert (foreign.status_code, own.status_code) == (400, 200)
    socket = socketio.AsyncClient(reconnection=False)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await socket.connect(
            controller.url,
            headers={"Origin": "https://evil.example"},
            auth={"token": controller.installation.users["admin"]},
            transports=["websocket"],
        )
    await socket.disconnect()


async def test_an_allowed_origin_is_let_in(settings: Settings) -> None:
    allowed = settings.model_copy(update={"cors_allowed_origins": ("https://good.example",)})
    path = "/socket.io/?EIO=4&transport=polling"
    async with serving(allowed) as (url, _), client(url, None) as http:
        for origin, status in (("https://good.example", 200), ("https://evil.example", 400)):
            answer = await http.get(path, headers={"Origin": origin})
            assert answer.status_code == status


async def test_unknown_events_and_bad_payloads_are_answered(open_socket: Open) -> None:
    socket = await open_socket()
    for event, payload, code in (
        ("no_such_event", {}, "unknown_event"),
        ("__init__", None, "unknown_event"),
        ("command_result", {}, "unknown_event"),
        ("execute_command", None, "validation_error"),
        ("execute_command", "text", "validation_error"),
        ("execute_command", {"agent_id": "web-1"}, "validation_error"),
        ("execute_command", {"agent_id": "a", "command": "a", "x": 1}, "validation_error"),
        ("execute_command", {"agent_id": "a", "command": "a\0"}, "validation_error"),
        ("execute_command", {"agent_id": "a", "command": "é" * 40_000}, "too_large"),
        ("execute_command", {"agent_id": "a", "command": "a"}, "agent_not_found"),
        ("subscribe_command", {"command_id": "nowhere"}, "command_not_found"),
        ("subscribe_command", {"command_id": 7}, "validation_error"),
        ("subscribe_command", {"command_id": "x", "from_seq": -1}, "validation_error"),
        ("control_command", {"command_id": "x", "action": "dance"}, "validation_error"),
        ("control_command", {"command_id": "x", "action": "kill"}, "command_not_found"),
        ("subscribe_agents", {"selector": "a=b="}, "invalid_selector"),
        ("subscribe_agents", {"agent_ids": ["a b"]}, "validation_error"),
        ("authenticate", {"token": "nonsense"}, "unauthorized"),
        ("authenticate", {}, "validation_error"),
    ):
        answer = await socket.call(event, payload)
        shapes.check(answer, REFUSED)
        assert answer["error"]["code"] == code, (event, payload, answer)
    assert not socket.closed.is_set()


async def test_events_named_as_the_library_names_its_own_are_harmless(
    controller: Running, open_socket: Open, caplog: pytest.LogCaptureFixture
) -> None:
    bystander = await open_socket("vera")
    sid = bystander.socket.get_sid("/")
    raw = await RawSocket.opened(controller)
    names = (["connect"], ["connect", {}], ["disconnect"], ["disconnect", sid], ["*"], ["*", {}])
    for number, words in enumerate((*names, ["*", sid], [7, {}], [None], ["*", "a", "b"])):
        await raw.send(f"42{number}{json.dumps(words)}")
        await raw.hears(f"43{number}")
    await bystander.ok("subscribe_agents", {})
    assert not bystander.closed.is_set()
    await raw.close()
    assert "Traceback" not in caplog.text


class RawSocket:
    """Socket.IO written by hand over Engine.IO."""

    def __init__(self) -> None:
        self.engine = engineio.AsyncClient()
        self.heard: list[str] = []
        self._changed = asyncio.Condition()
        self.engine.on("message", self._on_message)

    @classmethod
    async def opened(cls, controller: Running) -> "RawSocket":
        raw = cls()
        await raw.engine.connect(controller.url, engineio_path="/socket.io")
        await raw.send("40" + json.dumps({"token": controller.installation.users["admin"]}))
        await raw.hears("40")
        return raw

    async def send(self, text: str) -> None:
        await self.engine.send(text[1:])  # Engine.IO writes its own 4

    async def hears(self, start: str) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(
                lambda: any(text.startswith(start[1:]) for text in self.heard)
            )

    async def close(self) -> None:
        await self.engine.disconnect()

    async def _on_message(self, text: str) -> None:
        self.heard.append(text)
        async with self._changed:
            self._changed.notify_all()


@pytest.mark.parametrize("event", ["execute_command", "execute_command_request"])
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_command_is_run_and_followed_over_one_socket(
    open_socket: Open, agent: ProtocolAgent, event: str, transport: str
) -> None:
    socket = await open_socket("olga", transport=transport)
    answer = await socket.ok(event, {"agent_id": "web-1", "command": "echo"})
    shapes.check(answer, {"ok": True, "command_id": shapes.ID})
    run = await agent.execution()
    assert run.command_id == answer["command_id"]
    await run.start()
    await run.write(b"one\n")
    shapes.check(await socket.hears("command_progress"), shapes.PROGRESS)
    await run.write(b"\xfftwo", "stderr")
    await run.end("failed", exit_code=3)
    result = await socket.hears("command_result")
    shapes.check(result, shapes.RESULT)
    assert (result["status"], result["result"]["exit_code"]) == ("error", 3)
    names = [name for name, _ in socket.heard if name.startswith("command")]
    assert names[0] == "command_response" and names[-1] == "command_result"
    shapes.check(socket.all("command_response")[0], shapes.ACCEPTED)
    shapes.check(socket.all("command_state"), [shapes.REACHED])
    shapes.check(socket.all("command_progress"), [shapes.PROGRESS])
    states = [payload["state"] for payload in socket.all("command_state")]
    assert states == ["queued", "dispatched", "running", "failed"]


async def test_an_idempotency_key_is_the_same_at_both_doors(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    socket = await open_socket()
    wanted = {"agent_id": "web-1", "command": "a", "idempotency_key": "k"}
    first = await socket.ok("execute_command", wanted)
    assert (await socket.ok("execute_command", wanted))["command_id"] == first["command_id"]
    other = await socket.call("execute_command", wanted | {"command": "b"})
    assert other["error"]["code"] == "idempotency_conflict"
    body, headers = {"command": "a", "wait": 0}, {"Idempotency-Key": "k"}
    answer = await admin.post("/agents/web-1/execute", json=body, headers=headers)
    assert answer.json()["command_id"] == first["command_id"]


async def test_a_repeat_is_answered_on_a_full_socket_whose_agent_is_away(
    controller: Running, open_socket: Open, agent: ProtocolAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_namespace, "SUBSCRIPTIONS_MAX", 1)
    socket = await open_socket()
    wanted = {"agent_id": "web-1", "command": "a", "idempotency_key": "k"}
    first = await socket.ok("execute_command", wanted)
    await leave(controller, agent)
    assert (await socket.ok("execute_command", wanted))["command_id"] == first["command_id"]


async def test_a_command_is_controlled_over_a_socket(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    socket = await open_socket()
    run = await taken(admin, agent)
    wanted = {"command_id": run.command_id, "action": "kill"}
    answer = await socket.ok("control_command", wanted)
    assert answer == {"ok": True, "state": "running"}
    assert (await agent.next_order("control"))["action"] == "kill"
    await run.end("cancelled", signal="SIGKILL")
    refusal = await socket.call("control_command", wanted)
    assert refusal["error"]["code"] == "invalid_state"


async def test_roles_and_selectors_hold_at_this_door_as_well(
    open_socket: Open, admin: httpx2.AsyncClient, agent: ProtocolAgent, other_agent: ProtocolAgent
) -> None:
    command_id = await submit(admin, "web-2")
    vera, prod = await open_socket("vera"), await open_socket("prod")
    for socket, event, payload, code in (
        (vera, "execute_command", {"agent_id": "web-1", "command": "a"}, "forbidden"),
        (vera, "control_command", {"command_id": command_id, "action": "kill"}, "forbidden"),
        (prod, "execute_command", {"agent_id": "web-2", "command": "a"}, "agent_not_found"),
        (prod, "subscribe_command", {"command_id": command_id}, "command_not_found"),
        (prod, "control_command", {"command_id": command_id, "action": "kill"}, None),
    ):
        answer = await socket.call(event, payload)
        assert answer["ok"] is False
        assert answer["error"]["code"] == (code or "command_not_found")
    assert (await vera.ok("subscribe_command", {"command_id": command_id}))["ok"]
    assert (await seen(admin, command_id))["requested_action"] is None


async def test_an_expired_token_has_to_be_renewed(
    settings: Settings, controller: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its life is counted from the whole second before it, so it is about 2 s here."""
    key = (controller.data_dir / "secret-key").read_text().strip()
    socket = SocketClient()
    await socket.connect(controller.url, jwt(key, exp=int(time.time()) + 2))
    await socket.ok("subscribe_agents", {})
    async with asyncio.timeout(20):
        while (answer := await socket.call("subscribe_agents", {}))["ok"]:
            await asyncio.sleep(0.1)
    shapes.check(answer, REFUSED)
    assert answer["error"]["code"] == "token_expired"
    other = await socket.call("authenticate", {"token": controller.installation.users["vera"]})
    assert other["error"]["code"] == "unauthorized"
    await socket.ok("authenticate", {"token": jwt(key)})
    await socket.ok("subscribe_agents", {})
    await socket.disconnect()


async def test_a_socket_whose_token_stays_expired_is_closed(
    controller: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.presentation.socketio.client_namespace.EXPIRED_GRACE_S", 0.1)
    key = (controller.data_dir / "secret-key").read_text().strip()
    socket = SocketClient()
    await socket.connect(controller.url, jwt(key, exp=int(time.time()) + 1))
    async with asyncio.timeout(20):
        await socket.closed.wait()
    await socket.disconnect()


async def test_a_draining_controller_takes_no_command_here_and_closes_the_socket(
    controller: Running, open_socket: Open, agent: ProtocolAgent
) -> None:
    socket = await open_socket()
    controller.controller.lifecycle.drain()
    answer = await socket.call("execute_command", {"agent_id": "web-1", "command": "a"})
    assert answer["error"]["code"] == "draining"
    await controller.controller.drain()
    async with asyncio.timeout(20):
        await socket.closed.wait()
