"""A data folder with accounts, made once by a real controller and copied for every test."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import uvicorn

from app.bootstrap import Controller, bootstrap
from app.infrastructure.data_dir import open_data_dir
from app.infrastructure.socketio.servers import CLIENT_FRAME_MAX_BYTES
from app.infrastructure.socketio.websocket_protocol import DrainingWebSocket
from app.settings import Settings
from tests.fakes.protocol_agent import agent_token

ADMIN_PASSWORD = "first administrator 7"
PASSWORD = "everybody else's 7"
#: Name, role, selector; `agents` is what agents sign in with.
USERS = (
    ("olga", "operator", None),
    ("vera", "viewer", None),
    ("prod", "operator", "env=prod"),
    ("agents", "agent", None),
)
AGENTS = ("web-1", "web-2")
DEADLINE_S = 20.0
#: Never used, for loopback is plain HTTP, but loading authorities anew takes 45 ms a client.
_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True)
class Installation:
    """A data folder, and tokens that its key signed: `users` by name, `agents` by id."""

    folder: Path
    users: dict[str, str] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A controller in this process."""

    url: str
    controller: Controller
    installation: Installation
    data_dir: Path

    def http(self, user: str | None = "admin") -> httpx2.AsyncClient:
        """A client of `user`; of nobody for None."""
        return client(self.url, None if user is None else self.installation.users[user])


def client(url: str, token: str | None) -> httpx2.AsyncClient:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx2.AsyncClient(base_url=url, headers=headers, timeout=DEADLINE_S, verify=_TLS)


class _Server(uvicorn.Server):
    """uvicorn that leaves signals alone and stops at once instead of at its next tick."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own waits a tenth of a second before it looks whether anybody is left."""
        for listening in self.servers:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        async with asyncio.timeout(DEADLINE_S):
            while self.server_state.connections or self.server_state.tasks:
                await asyncio.sleep(0.002)

    def stop(self) -> None:
        self.should_exit = True
        self._stop.set()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[str, Controller]]:
    """The controller of `settings` on a free port of loopback, in the running loop."""
    with open_data_dir(settings.data_dir), socket.create_server(("127.0.0.1", 0)) as listening:
        async with bootstrap(settings) as controller:
            config = uvicorn.Config(
                controller.app,
                ws=DrainingWebSocket,
                ws_per_message_deflate=False,
                ws_max_size=CLIENT_FRAME_MAX_BYTES,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
            server = _Server(config)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(server.serve(sockets=[listening]), name="uvicorn")
                try:
                    yield f"http://127.0.0.1:{listening.getsockname()[1]}", controller
                finally:
                    await controller.drain()
                    server.stop()


async def install(folder: Path) -> Installation:
    """Make the accounts and sign everybody in, through the doors that users have."""
    made = Installation(folder)
    settings = Settings(_env_file=None, data_dir=folder, admin_password=ADMIN_PASSWORD)
    async with serving(settings) as (url, _), httpx2.AsyncClient(base_url=url) as http:
        made.users["admin"] = await _signed_in(http, "admin", ADMIN_PASSWORD)
        http.headers["Authorization"] = f"Bearer {made.users['admin']}"
        for name, role, selector in USERS:
            body = {"username": name, "password": PASSWORD, "role": role, "selector": selector}
            (await http.post("/users", json=body)).raise_for_status()
            if role != "agent":
                made.users[name] = await _signed_in(http, name, PASSWORD)
        for agent_id in AGENTS:
            made.agents[agent_id] = await agent_token(url, "agents", PASSWORD, agent_id)
    return made


async def _signed_in(http: httpx2.AsyncClient, name: str, password: str) -> str:
    answer = await http.post("/token", data={"username": name, "password": password})
    answer.raise_for_status()
    return str(answer.json()["access_token"])
