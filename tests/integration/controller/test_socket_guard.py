"""What sockets may cost before they are signed in, and where they do not keep to the protocol."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from app.infrastructure.socketio.guarded_server import Bounds
from app.infrastructure.socketio.servers import create_client_server
from app.settings import Settings
from tests.fakes.protocol_agent import SOCKET_PATH
from tests.integration.controller.installation import Installation, Running, client, serving
from tests.integration.controller.test_slow_reader import StoppedReader

DEADLINE_S = 20.0
POLL = "/socket.io/?EIO=4&transport=polling"


class Wire:
    """A WebSocket without Socket.IO: frames as they are."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def next(self) -> aiohttp.WSMessage:
        return await self.socket.receive(timeout=DEADLINE_S)

    async def signed_in(self, token: str) -> "Wire":
        await self.socket.send_str("40" + json.dumps({"token": token}))
        await self.hears("42")
        return self

    async def hears(self, start: str) -> str:
        while not (message := await self.next()).data.startswith(start):
            pass
        return str(message.data)

    async def ends(self) -> bool:
        """Whether the controller closes it before the deadline."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.next()).type not in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
            ):
                pass
        return True


@asynccontextmanager
async def wire(url: str, token: str = "", path: str = "/socket.io") -> AsyncIterator[Wire]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    target = f"{url}{path}/?EIO=4&transport=websocket"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(target, max_msg_size=0) as socket,
    ):
        yield Wire(socket)


@asynccontextmanager
async def bounded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, **bounds: Any
) -> AsyncIterator[str]:
    """A controller whose clients' door has these bounds."""
    monkeypatch.setattr(
        "app.bootstrap.create_client_server",
        lambda origins: create_client_server(origins, Bounds(**bounds)),
    )
    async with asyncio.timeout(60), serving(settings) as (url, _):
        yield url


# --- before CONNECT ----------------------------------------------------------------------------


async def test_a_websocket_that_never_connects_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        bounded(settings, monkeypatch, connect_timeout_s=0.2) as url,
        wire(url) as silent,
    ):
        assert await silent.ends()


async def test_a_polling_socket_that_never_connects_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        bounded(settings, monkeypatch, connect_timeout_s=0.2) as url,
        client(url, None) as http,
    ):
        sid = json.loads((await http.get(POLL)).text[1:])["sid"]
        await http.get(f"{POLL}&sid={sid}")  # returns when it is closed
        assert (await http.get(f"{POLL}&sid={sid}")).status_code == 400


async def test_a_socket_that_connects_in_time_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, installation: Installation
) -> None:
    async with bounded(settings, monkeypatch, connect_timeout_s=1) as url, wire(url) as socket:
        await socket.signed_in(installation.users["vera"])
        await asyncio.sleep(1.2)
        await socket.socket.send_str('420["subscribe_agents",{}]')
        assert '"ok":true' in await socket.hears("430")


async def test_a_socket_says_little_before_it_is_signed_in(
    controller: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wire(controller.url) as socket:
        await socket.socket.send_str("40" + json.dumps({"token": "x" * 9000}))
        assert await socket.ends()
    assert "too much before its CONNECT" in "".join(capfd.readouterr())


async def test_a_polling_socket_says_little_either(controller: Running) -> None:
    async with client(controller.url, None) as http:
        sid = json.loads((await http.get(POLL)).text[1:])["sid"]
        body = "4" + "x" * 9000
        assert (await http.post(f"{POLL}&sid={sid}", content=body)).status_code == 413
        assert (await http.post(f"{POLL}&sid={sid}", content="3")).status_code == 400


async def test_sockets_without_a_connect_are_few_per_address(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, installation: Installation
) -> None:
    async with (
        bounded(settings, monkeypatch, unconnected_per_address_max=2) as url,
        client(url, None) as http,
        wire(url) as first,
    ):
        assert (await http.get(POLL)).status_code == 200
        assert (await http.get(POLL)).status_code == 429
        with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
            async with wire(url):
                pass
        await first.signed_in(installation.users["vera"])  # and so makes room
        assert (await http.get(POLL)).status_code == 200


# --- afterwards --------------------------------------------------------------------------------


async def test_a_client_that_calls_and_never_reads_is_hung_up(controller: Running) -> None:
    reader = await asyncio.to_thread(StoppedReader, controller.url)
    await asyncio.to_thread(_call_without_reading, reader, controller.installation.users["vera"])
    while await asyncio.to_thread(reader.socket.recv, 1 << 20):  # a socket that stays times out
        pass
    reader.close()


def _call_without_reading(reader: StoppedReader, token: str) -> None:
    reader.send("40" + json.dumps({"token": token}))
    for text in reader.texts():
        if text.startswith("42"):
            break
    call = "420" + json.dumps(["subscribe_command", {"x" * 60_000: 1}])  # its answer is as long
    reader.socket.settimeout(5)
    with contextlib.suppress(OSError):  # nobody reads what is sent after the end
        for _ in range(1500):
            reader.send(call)
    reader.socket.settimeout(DEADLINE_S)


async def test_half_of_a_surrogate_pair_is_answered(controller: Running) -> None:
    async with wire(controller.url) as socket:
        await socket.signed_in(controller.installation.users["admin"])
        for text in (
            r'["execute_command",{"agent_id":"a","command":"\ud800"}]',
            r'["execute_command",{"agent_id":"a","command":"a","\ud800":1}]',
            r'["subscribe_command",{"command_id":"\ud800"}]',
        ):
            await socket.socket.send_str(f"427{text}")
            assert "validation_error" in await socket.hears("437")
        await socket.socket.send_str(r'428["\ud800",{}]')
        assert "unknown_event" in await socket.hears("438")


@pytest.mark.parametrize(
    "frame",
    ["42[]", "42", "42{}", '42[["a"]]', "42" + "[" * 100_000, "42[NaN]", "4", "", "x", '451-["a"]'],
)
async def test_a_frame_that_cannot_be_read_ends_its_socket_with_one_line(
    controller: Running,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    frame: str,
) -> None:
    async with wire(controller.url) as socket:
        await socket.signed_in(controller.installation.users["vera"])
        await socket.socket.send_str(frame)
        await socket.socket.send_str(frame)
        assert await socket.ends()
    said = capfd.readouterr()
    assert (said.out + said.err).count("was hung up") == 1
    assert "Traceback" not in said.out + said.err + caplog.text


@pytest.mark.parametrize("frame", [b"\xc1", b"\x91" * 5000, b"\x80", b"\x81\xa4type\x02"])
async def test_an_agents_frame_that_cannot_be_read_ends_its_socket(
    controller: Running, capfd: pytest.CaptureFixture[str], frame: bytes
) -> None:
    token = controller.installation.agents["web-1"]
    async with wire(controller.url, token, SOCKET_PATH) as socket:
        await socket.socket.send_bytes(frame)
        assert await socket.ends()
    said = capfd.readouterr()
    assert (said.out + said.err).count("was hung up") == 1
    assert "Traceback" not in said.out + said.err


async def test_a_page_of_the_own_origin_is_let_in_beside_the_allowed_ones(
    settings: Settings,
) -> None:
    allowed = settings.model_copy(update={"cors_allowed_origins": ("https://good.example",)})
    async with serving(allowed) as (url, _), client(url, None) as http:
        for origin, status in ((url, 200), ("https://good.example", 200), ("null", 400)):
            assert (await http.get(POLL, headers={"Origin": origin})).status_code == status
