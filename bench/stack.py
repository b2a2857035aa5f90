"""A controller and an agent as processes of their own, with fresh folders, on loopback."""

import asyncio
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

ROOT: Final = Path(__file__).resolve().parents[1]
START_TIMEOUT_S: Final = 60
AGENT_ID: Final = "bench"


class Process:
    """A service as a process, which may be killed and started again in its folder."""

    def __init__(self, script: str, environment: dict[str, str], log: Path) -> None:
        self._script = script
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it; what it logs is appended to what was logged before."""
        home = os.environ.get("HOME", "/")
        with self._log.open("ab") as file:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(ROOT / self._script),
                env={"PATH": os.environ["PATH"], "HOME": home, **self._environment},
                stdout=file,
                stderr=file,
            )

    async def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def end(self) -> None:
        """Ask it to end, and see to it."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), 15)
        except TimeoutError:
            await self.kill()


@dataclass(frozen=True, slots=True)
class Stack:
    """A running controller with one agent."""

    url: str
    token: str
    controller: Process
    agent: Process
    data: Path

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def controller_pid(self) -> int:
        """The controller's number."""
        return self.controller.pid

    @property
    def agent_pid(self) -> int:
        """The agent's number."""
        return self.agent.pid

    @property
    def runner_pid(self) -> int:
        """The number of the agent's runner."""
        return int((self.data / "agent" / "runner" / "runner.pid").read_text())

    async def controller_is_ready(self) -> None:
        """Return once the controller takes work."""
        await _until_ready(self.url)


@asynccontextmanager
async def running_stack() -> AsyncIterator[Stack]:
    """Start both, wait until the agent is online, and end both by their pids."""
    with tempfile.TemporaryDirectory(prefix="ogent-bench-") as folder:
        data = Path(folder)
        password, agent_password = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
        url = f"http://127.0.0.1:{_free_port()}"
        controller = _controller(data, url, password)
        agent = _agent(data, url, agent_password)
        try:
            await controller.start()
            await _until_ready(url)
            token = await _sign_in(url, password)
            await _make_agent_account(url, token, agent_password)
            await agent.start()
            await _until_online(url, token)
            yield Stack(url, token, controller, agent, data)
        finally:
            await agent.end()
            await controller.end()


def _controller(data: Path, url: str, password: str) -> Process:
    environment = {
        "DATA_DIR": str(data / "controller"),
        "PORT": url.rsplit(":", 1)[1],
        "ADMIN_PASSWORD": password,
        "MIN_FREE_BYTES": "0",
        "MAX_OUTPUT_BYTES": str(4 * 1024**3),
        "ACCESS_TOKEN_EXPIRE_MINUTES": "600",
        "LOG_FORMAT": "json",
    }
    return Process("controller_service/run.py", environment, data / "controller.log")


def _agent(data: Path, url: str, password: str) -> Process:
    environment = {
        "DATA_DIR": str(data / "agent"),
        "CONTROLLER_URL": url,
        "AGENT_ID": AGENT_ID,
        "AGENT_USERNAME": "bench-agent",
        "AGENT_PASSWORD": password,
        "MAX_CONCURRENT_COMMANDS": "32",
    }
    return Process("agent_service/agent.py", environment, data / "agent.log")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


async def _until_ready(url: str) -> None:
    async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)


async def _sign_in(url: str, password: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/token", data={"username": "admin", "password": password}) as answer,
    ):
        answer.raise_for_status()
        return str((await answer.json())["access_token"])


async def _make_agent_account(url: str, token: str, password: str) -> None:
    body = {"username": "bench-agent", "password": password, "role": "agent"}
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/users", json=body) as answer,
    ):
        answer.raise_for_status()


async def _until_online(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession(headers=headers) as session:
        while True:
            async with session.get(f"{url}/agents?status=online") as answer:
                if await answer.json():
                    return
            await asyncio.sleep(0.05)
