"""A controller for the agent's tests: real sockets, real MessagePack, and a strict memory.

It stores every chunk that is exactly the next one, acknowledges what it stored, and takes an
outcome only when counts and digests agree, as the real one does.
"""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import socketio
import uvicorn

from ogent.protocol.codec import format_time, pack

USERNAME = "agent-account"
PASSWORD = "correct horse battery"
BLOCK = 1024 * 1024
#: Behind every id of a command: other tests run on this host, and a tree is found by its id, too.
OWN = f"-{os.urandom(6).hex()}"
DEADLINE_S = 60


@dataclass
class Record:
    """What the controller knows of one command."""

    states: list[str] = field(default_factory=list)
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    next_seq: int = 0
    repeats: int = 0
    gaps: int = 0
    result: dict[str, Any] | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def stored(self) -> dict[str, int]:
        return {
            "next_seq": self.next_seq,
            "stdout_bytes": len(self.stdout),
            "stderr_bytes": len(self.stderr),
        }

    def take(self, frame: dict[str, Any]) -> None:
        stream = self.stdout if frame["stream"] == "stdout" else self.stderr
        if frame["seq"] < self.next_seq:
            self.repeats += 1
        elif frame["seq"] > self.next_seq or frame["offset"] != len(stream):
            self.gaps += 1
        else:
            stream += frame["data"]
            self.next_seq += 1
            self.chunks.append({**frame, "data": len(frame["data"])})

    def disagreement(self, frame: dict[str, Any]) -> str | None:
        counts = (frame["next_seq"], frame["stdout_stored"], frame["stderr_stored"])
        if counts != (self.next_seq, len(self.stdout), len(self.stderr)):
            return "incomplete"
        digests = (frame["stdout_digest"], frame["stderr_digest"])
        if digests != (block_digest(self.stdout), block_digest(self.stderr)):
            return "digest_mismatch"
        return None


def _name(frame: dict[str, Any]) -> str:
    """What the test calls a command."""
    return str(frame["command_id"]).removesuffix(OWN)


def block_digest(data: bytes | bytearray) -> str:
    """SHA-256 over the SHA-256 digests of the blocks of 1 MiB, worked out anew."""
    blocks = (bytes(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK))
    return hashlib.sha256(b"".join(hashlib.sha256(b).digest() for b in blocks)).hexdigest()


class RecordingController:
    """One agent's controller; `commands` outlives a restart of the server, as a database does."""

    def __init__(self) -> None:
        self.commands: dict[str, Record] = {}
        self.registrations: list[dict[str, Any]] = []
        self.connections: list[dict[str, Any]] = []
        self.sign_ins: list[dict[str, str]] = []
        self.frames: list[str] = []
        self.registered = asyncio.Event()
        self.epoch = 0
        self.acks_chunks = True
        self.answers_states = True
        self.outcome_answers: list[dict[str, Any]] = []
        self.token_answer: Callable[[], tuple[int, dict[str, str]]] = lambda: (200, {})
        self.port = 0
        self._sid = ""
        self._server: uvicorn.Server | None = None
        self._sio: socketio.AsyncServer | None = None
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- its life -------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["RecordingController"]:
        """Listen on `port`, a free one the first time; gone at the end, its memory is not."""
        # with proto 0 asyncio would leave TCP_NODELAY off, and each answer take 40 ms
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self.registered.clear()
        self._sio = socketio.AsyncServer(
            async_mode="asgi", serializer="msgpack", max_http_buffer_size=1024 * 1024
        )
        self._hook(self._sio)
        app = socketio.ASGIApp(self._sio, self._http, socketio_path="agent/socket.io")
        config = uvicorn.Config(
            app,
            log_level="error",
            lifespan="off",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(self._server._serve([listener]))
        try:
            yield self
        finally:
            await self._cut(self._sio)
            self._server.should_exit = True
            self._server.force_exit = True
            await serving
            listener.close()

    async def cut(self) -> None:
        """Close the agent's connection without a word."""
        assert self._sio is not None
        self.registered.clear()
        await self._cut(self._sio)

    async def _cut(self, sio: socketio.AsyncServer) -> None:
        for session in list(sio.eio.sockets.values()):
            await session.close(wait=False)

    # --- what tests ask -------------------------------------------------------------------

    def run(self, command_id: str, command: str, **fields: Any) -> dict[str, Any]:
        """An order for the agent that registered last."""
        self.commands.setdefault(command_id, Record())
        now = datetime.now(UTC)
        return {
            "v": 1,
            "kind": "run",
            "command_id": command_id,
            "agent_id": self.registrations[-1]["agent_id"],
            "command": command,
            "execution_target": "auto",
            "timeout": None,
            "env": {},
            "cwd": None,
            "stdin": None,
            "max_output_bytes": 1 << 30,
            "requester": "ann",
            "issued_at": format_time(now),
            "expires_at": format_time(now + timedelta(seconds=60)),
            **fields,
        }

    async def execute(self, command_id: str, command: str, **fields: Any) -> dict[str, Any]:
        """Send an order to run; the agent's acknowledgement."""
        return await self.send_order("execute_command", self.run(command_id, command, **fields))

    async def control(self, command_id: str, action: str) -> dict[str, Any]:
        """Send a control order; the agent's acknowledgement."""
        order = self.run(command_id, "") | {
            "kind": "control",
            "control_id": f"{command_id}-{action}",
            "action": action,
        }
        return await self.send_order("control_command", order)

    async def send_order(self, event: str, order: dict[str, Any]) -> dict[str, Any]:
        """Send any order; the agent's acknowledgement."""
        own = {**order, "command_id": order["command_id"] + OWN}
        return await self.call(event, {"order": pack(own), "signature": b"", "key_id": ""})

    async def call(self, event: str, payload: Any) -> Any:
        """Send anything to the agent; its acknowledgement."""
        assert self._sio is not None
        return await self._sio.call(event, payload, to=self._sid, timeout=20)

    async def emit(self, event: str, payload: Any) -> None:
        """Send anything to the agent."""
        assert self._sio is not None
        if "command_id" in payload:
            payload = {**payload, "command_id": payload["command_id"] + OWN}
        await self._sio.emit(event, payload, to=self._sid)

    async def finished(self, command_id: str) -> Record:
        """The record of a command once its outcome was taken."""
        await self.commands[command_id].finished.wait()
        return self.commands[command_id]

    async def until(self, happened: Callable[[], bool]) -> None:
        """Return once `happened()`; asked after every frame. Raises TimeoutError after 60 s."""
        async with asyncio.timeout(DEADLINE_S):
            while not happened():
                self._changed.clear()
                await self._changed.wait()

    # --- what the agent does --------------------------------------------------------------

    def _hook(self, sio: socketio.AsyncServer) -> None:
        async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
            self.connections.append(
                {"authorization": environ.get("HTTP_AUTHORIZATION"), "auth": auth}
            )
            self._sid = sid

        async def register(sid: str, frame: dict[str, Any]) -> None:
            held = [{**held, "command_id": _name(held)} for held in frame["resume"]]
            self.registrations.append({**frame, "resume": held})
            self.epoch += 1
            answer = {
                "status": "success",
                "agent_id": frame["agent_id"],
                "epoch": self.epoch,
                "server_time": format_time(datetime.now(UTC)),
                "dispatch_keys": [],
                "resume": [self._resume(command) for command in frame["resume"]],
            }
            assert await sio.call("registration_response", answer, to=sid, timeout=20) is True
            self.registered.set()
            self._changed.set()

        async def progress(sid: str, frame: dict[str, Any]) -> None:
            self.frames.append("command_progress")
            record = self.commands.get(_name(frame))
            if record is None:
                return
            record.take(frame)
            self._changed.set()
            if self.acks_chunks:
                ack = {"command_id": frame["command_id"], **record.stored()}
                await sio.emit("progress_ack", ack, to=sid)

        async def state(sid: str, frame: dict[str, Any]) -> dict[str, Any]:
            self.frames.append("command_state")
            if not self.answers_states:
                await asyncio.Event().wait()
            self.commands.setdefault(_name(frame), Record()).states.append(frame["state"])
            self._changed.set()
            return {"ok": True}

        async def result(sid: str, frame: dict[str, Any]) -> dict[str, Any]:
            self.frames.append("command_result")
            self._changed.set()
            if self.outcome_answers:
                return self.outcome_answers.pop(0)
            return self._settle(frame)

        sio.on("connect", connect)
        sio.on("register", register)
        sio.on("command_progress", progress)
        sio.on("command_state", state)
        sio.on("command_result", result)

    def _resume(self, held: dict[str, Any]) -> dict[str, Any]:
        command_id, record = held["command_id"], self.commands.get(_name(held))
        if record is None or record.result is not None:
            return {"command_id": command_id, "drop": True}
        return {"command_id": command_id, "drop": False, **record.stored()}

    def _settle(self, frame: dict[str, Any]) -> dict[str, Any]:
        record = self.commands.setdefault(_name(frame), Record())
        if disagreement := record.disagreement(frame):
            error = {"code": disagreement, "message": ""}
            return {"ok": False, "error": error, **record.stored()}
        record.result = frame
        record.finished.set()
        self._changed.set()
        return {"ok": True}

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        assert (scope["type"], scope["path"]) == ("http", "/token")
        form = parse_qs((await receive())["body"].decode())
        self.sign_ins.append({name: values[0] for name, values in form.items()})
        status, headers = self.token_answer()
        if form["password"] != [PASSWORD]:
            status = 401
        body = b'{"access_token": "t%d", "token_type": "bearer", "expires_in": 60}'
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": body % len(self.sign_ins)})
        self._changed.set()
