"""Real controllers and agents: processes of their own, with folders of their own, on loopback."""

import asyncio
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from ogent.client import Client

SCRIPTS = Path(sys.executable).parent
#: For one event to happen; only a broken system needs it.
DEADLINE_S = 40.0
ADMIN_PASSWORD = "the first administrator 7"
AGENT_PASSWORD = "an account of agents 7"
AGENT_ACCOUNT = "machines"
_LOOK_EVERY_S = 0.02  # nothing tells from outside what a process or a file has become


class Service:
    """A controller or an agent; it may be started again in the same folder after its end."""

    def __init__(self, argv: list[str], folder: Path, settings: dict[str, str]) -> None:
        self.argv, self.folder, self.settings = argv, folder, settings
        self._log = folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> str:
        """What it and those before it in this folder have written."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment(self.folder) | self.settings,
            )

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, once it has one."""
        await until(self.has_ended)
        assert self._process is not None and self._process.returncode is not None
        return self._process.returncode

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        return await self.ended()

    async def logs(self, text: str) -> None:
        await until(lambda: text in self.log)

    def end(self) -> None:
        """End it whatever it does."""
        if self._process is not None and not self.has_ended():
            self._process.terminate()
            try:
                self._process.wait(DEADLINE_S)
            finally:
                self._process.kill()
                self._process.wait()


@dataclass(frozen=True)
class Controller:
    """A controller whose port stays the same over its restarts."""

    service: Service
    url: str
    verify: ssl.SSLContext | bool

    @property
    def token(self) -> str:
        """A fresh token of the administrator."""
        form = {"username": "admin", "password": ADMIN_PASSWORD}
        answer = httpx2.post(f"{self.url}/token", data=form, timeout=DEADLINE_S, verify=self.verify)
        return str(answer.raise_for_status().json()["access_token"])

    def start(self) -> None:
        """Start it and wait until it takes work."""
        self.service.start()
        deadline = time.monotonic() + DEADLINE_S
        while not self._is_ready():
            assert not self.service.has_ended(), self.service.log
            assert time.monotonic() < deadline, self.service.log
            time.sleep(_LOOK_EVERY_S)

    def make_account(self, name: str, password: str, role: str = "agent") -> None:
        body = {"username": name, "password": password, "role": role}
        headers = {"Authorization": f"Bearer {self.token}"}
        httpx2.post(
            f"{self.url}/users", json=body, headers=headers, verify=self.verify
        ).raise_for_status()

    def client(self) -> Client:
        return Client(self.url, username="admin", password=ADMIN_PASSWORD)

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/ready", verify=self.verify).status_code == 200
        except httpx2.TransportError:
            return False


@dataclass(frozen=True)
class Agent:
    """An agent and the name that the controller knows it by."""

    service: Service
    id: str


@contextmanager
def controller_in(
    folder: Path, *, verify: ssl.SSLContext | bool = False, **settings: str
) -> Iterator[Controller]:
    """A controller that is not started yet; with `verify` it is reached by TLS."""
    port = free_port()
    given = {
        "DATA_DIR": str(folder / "data"),
        "PORT": str(port),
        "ADMIN_PASSWORD": ADMIN_PASSWORD,
        "MIN_FREE_BYTES": "0",
        **settings,
    }
    service = Service([str(SCRIPTS / "ogent-controller")], folder, given)
    try:
        scheme = "https" if verify else "http"
        yield Controller(service, f"{scheme}://127.0.0.1:{port}", verify)
    finally:
        service.end()


@contextmanager
def agent_in(folder: Path, agent_id: str, url: str, **settings: str) -> Iterator[Agent]:
    """An agent that is not started yet."""
    given = {
        "DATA_DIR": str(folder / "data"),
        "CONTROLLER_URL": url,
        "AGENT_ID": agent_id,
        "AGENT_USERNAME": AGENT_ACCOUNT,
        "AGENT_PASSWORD": AGENT_PASSWORD,
        "RECONNECT_DELAY": "0.05",
        **settings,
    }
    service = Service([str(SCRIPTS / "ogent-agent")], folder, given)
    try:
        yield Agent(service, agent_id)
    finally:
        service.end()
        end_commands(service)


def end_commands(service: Service) -> None:
    """End what outlives an agent: its commands, as a user would, and then its runner."""
    subprocess.run(
        [*service.argv, "--stop-commands"],
        cwd=service.folder,
        env=environment(service.folder) | service.settings,
        timeout=DEADLINE_S,
        check=True,
    )
    pid = runner_pid(Path(service.settings["DATA_DIR"]))
    if pid is not None:
        handle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        select.select([handle], [], [], DEADLINE_S)
        os.close(handle)


def runner_pid(data_dir: Path) -> int | None:
    """The runner of an agent's folder; None where none runs."""
    path = data_dir / "runner" / "runner.pid"
    pid = int(path.read_text()) if path.exists() else 0
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return None
    return pid if str(data_dir).encode() in argv else None


def environment(home: Path) -> dict[str, str]:
    """What every process needs; a variable of the developer's shell configures nothing."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(_LOOK_EVERY_S)


async def online(client: Client, agent_id: str) -> None:
    """Return once the controller says that the agent is there."""
    async with asyncio.timeout(DEADLINE_S):
        while agent_id not in {a.agent_id for a in await client.agents(status="online")}:
            await asyncio.sleep(_LOOK_EVERY_S)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
