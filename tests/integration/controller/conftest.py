import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.settings import Settings
from tests.fakes.protocol_agent import ProtocolAgent, registered_agent
from tests.integration.controller.installation import Installation, Running, install, serving
from tests.integration.controller.socket_client import SocketClient

DEADLINE_S = 60.0


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return asyncio.run(install(tmp_path_factory.mktemp("installation") / "data"))


@pytest.fixture
def data_dir(installation: Installation, tmp_path: Path) -> Path:
    return Path(shutil.copytree(installation.folder, tmp_path / "data"))


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    return Settings(_env_file=None, data_dir=data_dir)


@pytest.fixture
async def controller(
    settings: Settings, data_dir: Path, installation: Installation
) -> AsyncIterator[Running]:
    async with asyncio.timeout(DEADLINE_S), serving(settings) as (url, running):
        yield Running(url, running, installation, data_dir)


@pytest.fixture
async def admin(controller: Running) -> AsyncIterator[httpx2.AsyncClient]:
    async with controller.http("admin") as http:
        yield http


@pytest.fixture
async def vera(controller: Running) -> AsyncIterator[httpx2.AsyncClient]:
    async with controller.http("vera") as http:
        yield http


@pytest.fixture
async def nobody(controller: Running) -> AsyncIterator[httpx2.AsyncClient]:
    async with controller.http(None) as http:
        yield http


@pytest.fixture
async def agent(controller: Running) -> AsyncIterator[ProtocolAgent]:
    token = controller.installation.agents["web-1"]
    labels = {"env": "prod", "role": "web"}
    async with registered_agent(controller.url, token, "web-1", labels=labels) as registered:
        yield registered


@pytest.fixture
async def other_agent(controller: Running) -> AsyncIterator[ProtocolAgent]:
    token = controller.installation.agents["web-2"]
    async with registered_agent(
        controller.url, token, "web-2", labels={"env": "dev"}
    ) as registered:
        yield registered


OpenSocket = Callable[..., Any]


@pytest.fixture
async def open_socket(controller: Running) -> AsyncIterator[OpenSocket]:
    """Opens sockets of users; all are closed at the end."""
    opened: list[SocketClient] = []

    async def open_one(user: str = "admin", *, token: str = "", **options: Any) -> SocketClient:
        socket = SocketClient()
        shown = token or controller.installation.users[user]
        await socket.connect(controller.url, shown, **options)
        opened.append(socket)
        return socket

    yield open_one
    if any(socket.transport == "polling" for socket in opened):
        # Engine.IO's server leaves the last poll of a client that says goodbye unanswered for
        # half a minute, so here the controller says it first.
        await controller.controller.drain()
    for socket in opened:
        await socket.disconnect()
