"""A controller and an agent as processes of their own, with fresh folders, on loopback."""

import asyncio
import os
import re
import secrets
import signal
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


@dataclass(frozen=True, slots=True)
class Stack:
    """A running controller with one agent."""

    url: str
    token: str
    controller_pid: int
    agent_pid: int

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"}


@asynccontextmanager
async def running_stack() -> AsyncIterator[Stack]:
    """Start both, wait until the agent is online, and end both by their pids."""
    with tempfile.TemporaryDirectory(prefix="ogent-bench-") as folder:
        password = secrets.token_urlsafe(18)
        async with _controller(Path(folder), password) as (url, controller_pid):
            token = await _sign_in(url, password)
            agent_password = secrets.token_urlsafe(18)
            await _make_agent_account(url, token, agent_password)
            async with _agent(Path(folder), url, agent_password) as agent_pid:
                await _until_online(url, token)
                yield Stack(url, token, controller_pid, agent_pid)


@asynccontextmanager
async def _controller(folder: Path, password: str) -> AsyncIterator[tuple[str, int]]:
    environment = {
        "DATA_DIR": str(folder / "controller"),
        "PORT": "0",
        "ADMIN_PASSWORD": password,
        "MIN_FREE_BYTES": "0",
        "ACCESS_TOKEN_EXPIRE_MINUTES": "600",
        "LOG_FORMAT": "json",
    }
    async with _process("controller_service/run.py", environment, folder / "controller.log") as pid:
        yield await _url_in(folder / "controller.log"), pid


@asynccontextmanager
async def _agent(folder: Path, url: str, password: str) -> AsyncIterator[int]:
    environment = {
        "DATA_DIR": str(folder / "agent"),
        "CONTROLLER_URL": url,
        "AGENT_ID": AGENT_ID,
        "AGENT_USERNAME": "bench-agent",
        "AGENT_PASSWORD": password,
        "MAX_CONCURRENT_COMMANDS": "32",
    }
    async with _process("agent_service/agent.py", environment, folder / "agent.log") as pid:
        yield pid


@asynccontextmanager
async def _process(script: str, environment: dict[str, str], log: Path) -> AsyncIterator[int]:
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / script),
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
            stdout=file,
            stderr=file,
        )
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _url_in(log: Path) -> str:
    """The address that the controller says it listens on, once it is ready."""
    async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as session:
        while True:
            found = re.search(r'"url": ?"(http[^"]+)"', log.read_text())
            if found:
                try:
                    async with session.get(f"{found[1]}/ready") as answer:
                        if answer.status == 200:
                            return found[1]
                except aiohttp.ClientError:
                    pass
            await asyncio.sleep(0.05)


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
