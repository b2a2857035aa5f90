"""Questions from the agent's own host, over a Unix socket in its folder: one line each, in JSON.

Only the agent's account and root get an answer.
"""

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.application.supervisor import Supervisor
from agent.application.use_cases.report_status import ReportStatus, Status

log = logging.getLogger(__name__)

SOCKET: Final = "agent.sock"
#: A question is one line of at most so much, and comes within so long.
QUESTION_MAX_BYTES: Final = 4096
QUESTION_TIMEOUT_S: Final = 10.0
#: How long somebody may take to read an answer.
ANSWER_TIMEOUT_S: Final = 10.0
_PEER: Final = struct.Struct("3i")

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HostDoor:
    """What may be asked."""

    report_status: ReportStatus
    supervisor: Supervisor

    async def answer(self, question: str) -> Answer:
        """The answer to a question."""
        asked: Mapping[str, Callable[[], Awaitable[Answer]]] = {
            "status": self._status,
            "stop-commands": self._stop_commands,
        }
        if question not in asked:
            return {"error": f"{question!r} means nothing to this agent"}
        return await asked[question]()

    async def _status(self) -> Answer:
        return status_facts(self.report_status())

    async def _stop_commands(self) -> Answer:
        log.warning("every command is being stopped, as asked for on this host")
        await self.supervisor.stop_commands()
        return {"stopped": True}


def status_facts(status: Status) -> Answer:
    """A status as facts."""
    return {
        "agent_id": status.agent_id,
        "pid": os.getpid(),
        "connected": status.is_connected,
        "commands": [
            {
                "command_id": command.command_id,
                "state": "waiting" if command.started_at is None else command.state.value,
                "started_at": command.started_at.isoformat() if command.started_at else None,
            }
            for command in status.commands
        ],
    }


@asynccontextmanager
async def open_host_door(folder: Path, door: HostDoor) -> AsyncIterator[None]:
    """Answer on the socket in `folder` while open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, ValueError):
            await _serve(door, reader, writer)
        writer.close()

    listening = _listening(folder)
    server = await asyncio.start_unix_server(serve, sock=listening, limit=QUESTION_MAX_BYTES)
    try:
        yield
    finally:
        server.close()
        (folder / SOCKET).unlink(missing_ok=True)


async def _serve(
    door: HostDoor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    peer = writer.get_extra_info("socket")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    if _PEER.unpack(raw)[1] not in (os.geteuid(), 0):
        return
    async with asyncio.timeout(QUESTION_TIMEOUT_S):
        question = (await reader.readline()).decode().strip()
    answer = await door.answer(question)
    writer.write(json.dumps(answer).encode() + b"\n")
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        await writer.drain()


def _listening(folder: Path) -> socket.socket:
    """A socket in `folder`, whose lock this process holds: an older one is a dead process's."""
    (folder / SOCKET).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listening.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")  # short, however deep it lies
    finally:
        os.close(descriptor)
    listening.setblocking(False)
    return listening


def ask(folder: Path, question: str) -> Answer | None:
    """The answer of the agent that runs in `folder`, however long it takes; None without one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
            asking.sendall(question.encode() + b"\n")
            with asking.makefile("rb") as file:
                line = file.readline()
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    finally:
        os.close(descriptor)
    answer: Answer | None = json.loads(line) if line else None
    return answer
