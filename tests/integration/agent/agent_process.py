"""The real agent, as a process of its own with a folder of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.recording_controller import PASSWORD, USERNAME
from tests.fakes.runner_process import end_everything

OGENT_AGENT = Path(sys.executable).with_name("ogent-agent")
DEADLINE_S = 60.0


@dataclass
class AgentProcess:
    process: asyncio.subprocess.Process
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    async def exit_code(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    async def kill(self) -> None:
        """As the system would, or its user in anger."""
        self.process.kill()
        await self.exit_code()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.exit_code()

    async def logged(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while text not in self.log:
                await asyncio.sleep(0.02)  # a file tells nobody that it has grown

    def resident_mib(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


def settings_for(url: str, **settings: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "CONTROLLER_URL": url,
        "AGENT_USERNAME": USERNAME,
        "AGENT_PASSWORD": PASSWORD,
        "RECONNECT_DELAY": "0.05",
        **settings,
    }


async def asked(folder: Path, settings: Mapping[str, str], *argv: str) -> tuple[int, str, str]:
    """Exit status, output and errors of `ogent-agent` with `argv`, in an agent's folder."""
    process = await asyncio.create_subprocess_exec(
        OGENT_AGENT,
        *argv,
        env=settings,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@asynccontextmanager
async def agent_process(
    folder: Path, settings: Mapping[str, str], *argv: str
) -> AsyncIterator[AgentProcess]:
    """Running, and at the end ended with all that outlives an agent."""
    with (folder / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(argv or (str(OGENT_AGENT),)), env=settings, cwd=folder, stdout=log, stderr=log
        )
    try:
        yield AgentProcess(process, folder)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            await process.wait()
        end_everything(folder / settings.get("DATA_DIR", "data"))


@asynccontextmanager
async def agent_that_leaves(
    folder: Path, settings: Mapping[str, str]
) -> AsyncIterator[AgentProcess]:
    """An agent whose commands go on after it, for the one that comes next in its folder."""
    with (folder / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            OGENT_AGENT, env=settings, cwd=folder, stdout=log, stderr=log
        )
    try:
        yield AgentProcess(process, folder)
    finally:
        if process.returncode is None:
            process.kill()
        async with asyncio.timeout(DEADLINE_S):
            await process.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
