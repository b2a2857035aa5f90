"""The controller as its users start it: a process with an environment."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.controller.installation import client

SERVICE = Path(__file__).resolve().parents[3] / "controller_service"
DEADLINE_S = 40.0
_LISTENING = re.compile(r"url=(http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


class ControllerProcess:
    """A started controller; `log` is what it has written to stderr so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log = ""
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log += line.decode()
            found = _LISTENING.search(line.decode())
            if found and not self._url.done():
                self._url.set_result(found[1])

    async def url(self) -> str:
        """Its address, once it is ready there."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([self._url, self._reading], return_when=asyncio.FIRST_COMPLETED)
            assert self._url.done(), self.log
            url = await self._url
            async with client(url, None) as http:
                assert (await http.get("/ready")).status_code == 200
        return url

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            await self._reading
            return await self.process.wait()


def service_folder(at: Path, env_text: str = "") -> Path:
    """A `controller_service` folder with its own `.env`, as a user has it."""
    at.mkdir()
    shutil.copy(SERVICE / "run.py", at)
    (at / ".env").write_text(env_text)
    return at


def environment(**variables: object) -> dict[str, str]:
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVICE)}
    return kept | {name: str(value) for name, value in variables.items()}


async def _start(
    folder: Path, arguments: tuple[str, ...], variables: dict[str, object]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, folder / "run.py", *arguments),
        env=environment(**{"PORT": 0, **variables}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(folder: Path, *arguments: str, **variables: object) -> Ended:
    """A controller that ends by itself."""
    process = await _start(folder, arguments, variables)
    try:
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def started(folder: Path, **variables: object) -> AsyncIterator[ControllerProcess]:
    """A controller that is ended with the context, if it was not before."""
    process = await _start(folder, (), variables)
    controller = ControllerProcess(process)
    try:
        yield controller
    finally:
        if process.returncode is None:
            process.kill()
        await controller.ended()
