"""A controller that plays scripts over real HTTP, with bad luck on order.

It speaks the REST shapes by plain dictionaries, so that it agrees with the documents and not with
the SDK's models. `cuts` breaks event streams off after so many bytes, wherever that falls.
"""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

WHEN = "2026-11-21T05:44:00.000000Z"
GOOD_TOKEN = "good-token"
TAIL_BYTES = 1024 * 1024
FINAL = {"succeeded", "failed", "timed_out", "cancelled", "lost", "rejected"}


class Cut(Exception):
    """Raised in the middle of a body: the server drops the connection."""


@dataclass
class Script:
    """What a line does: output at once, then the end; with state None it goes on running."""

    chunks: list[tuple[str, bytes]] = field(default_factory=list)
    state: str | None = "succeeded"
    exit_code: int | None = 0
    signal: str | None = None
    error: dict[str, str] | None = None
    lost_bytes: int = 0


@dataclass
class ScriptedCommand:
    """A command that the test writes to and ends."""

    command_id: str
    agent_id: str
    request: dict[str, object]
    state: str = "running"
    chunks: list[tuple[str, bytes]] = field(default_factory=list)
    exit_code: int | None = None
    signal: str | None = None
    error: dict[str, str] | None = None
    lost_bytes: int = 0
    #: The states after the first `running`: paused, running, paused…
    moves: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, stream: str, data: bytes) -> None:
        self.chunks.append((stream, data))
        self._wake()

    def move(self, state: str) -> None:
        self.state = state
        self.moves.append(state)
        self._wake()

    def end(self, state: str, exit_code: int | None = None, **fields: object) -> None:
        self.state, self.exit_code = state, exit_code
        for name, value in fields.items():
            setattr(self, name, value)
        self._wake()

    def play(self, script: Script) -> None:
        self.chunks += script.chunks
        self.lost_bytes = script.lost_bytes
        if script.state is not None:
            self.end(script.state, script.exit_code, signal=script.signal, error=script.error)

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def of(self, stream: str) -> bytes:
        return b"".join(data for name, data in self.chunks if name == stream)

    def offset(self, seq: int) -> int:
        stream = self.chunks[seq][0]
        return sum(len(data) for name, data in self.chunks[:seq] if name == stream)


class ScriptedController:
    """The application; `requests` is what it was asked, `cuts` and the like what goes wrong."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.agents: list[dict[str, object]] = [agent("web-1"), agent("away-1", status="offline")]
        self.commands: dict[str, ScriptedCommand] = {}
        self.passwords = {"ada": "correct horse battery"}
        self.tokens = {GOOD_TOKEN}
        self.named: dict[str, dict[str, object]] = {}
        self.token_life_s = 1800.0
        self.sign_ins = 0
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.started = asyncio.Event()
        self.controlled = asyncio.Event()
        self.streaming = asyncio.Event()
        #: One per connection to an event stream or to bytes: dropped after so many bytes of body.
        self.cuts: list[int] = []
        #: Chunks that are sent again, although the client said that it has them.
        self.repeats = 0
        #: Chunks that are never sent.
        self.skipped: set[int] = set()
        #: Statuses that GET requests are answered with first.
        self.refusals: list[int] = []
        self.app = Starlette(routes=self._routes())

    def _routes(self) -> list[Route]:
        table = [
            ("GET", "/health", self.health),
            ("GET", "/ready", self.health),
            ("POST", "/token", self.token),
            ("GET", "/me", self.me),
            ("POST", "/me/password", self.no_content),
            ("GET", "/tokens", self.list_tokens),
            ("POST", "/tokens", self.create_token),
            ("DELETE", "/tokens/{token_id}", self.delete_token),
            ("GET", "/users", self.list_users),
            ("POST", "/users", self.create_user),
            ("DELETE", "/users/{username}", self.no_content),
            ("GET", "/agents", self.list_agents),
            ("GET", "/agents/{agent_id}", self.one_agent),
            ("POST", "/agents/{agent_id}/execute", self.execute),
            ("GET", "/commands", self.list_commands),
            ("GET", "/commands/{command_id}", self.one_command),
            ("GET", "/commands/{command_id}/output", self.output),
            ("GET", "/commands/{command_id}/output/{stream}", self.output_bytes),
            ("GET", "/commands/{command_id}/events", self.events),
            ("POST", "/commands/{command_id}/control", self.control),
        ]
        return [
            Route(path, self._door(endpoint), methods=[method]) for method, path, endpoint in table
        ]

    def _door(self, endpoint):
        async def enter(request: Request) -> Response:
            body = await request.body()
            path = request.url.path
            self.requests.append((request.method, path, dict(request.headers), body))
            if path not in {"/health", "/ready", "/token"} and not self._known(request):
                return problem("unauthorized", 401, "no valid token")
            if request.method == "GET" and self.refusals:
                return problem("draining", self.refusals.pop(0), "the controller is stopping")
            return await endpoint(request)

        return enter

    def _known(self, request: Request) -> bool:
        return request.headers.get("authorization", "").removeprefix("Bearer ") in self.tokens

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of every request for `path`."""
        return [headers for _, asked, headers, _ in self.requests if asked == path]

    # --- accounts

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy"})

    async def token(self, request: Request) -> Response:
        form = parse_qs((await request.body()).decode())
        name, password = form["username"][0], form["password"][0]
        if self.passwords.get(name) != password:
            return problem("invalid_credentials", 401, "unknown user or wrong password")
        self.sign_ins += 1
        made = f"made-{self.sign_ins}"
        self.tokens.add(made)
        return JSONResponse(
            {"access_token": made, "token_type": "bearer", "expires_in": self.token_life_s}
        )

    async def no_content(self, request: Request) -> Response:
        return Response(status_code=204)

    async def me(self, request: Request) -> Response:
        return JSONResponse(
            {"username": "ada", "role": "operator", "selector": None, "newer_field": 1}
        )

    async def list_tokens(self, request: Request) -> Response:
        return JSONResponse(list(self.named.values()))

    async def create_token(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        number = len(self.named) + 1
        made = {
            "token_id": f"tok-{number}",
            "name": asked["name"],
            "role": asked.get("role") or "operator",
            "selector": None,
            "created_at": WHEN,
            "expires_at": None,
        }
        self.named[f"tok-{number}"] = made
        self.tokens.add(f"secret-{number}")
        return JSONResponse({**made, "token": f"secret-{number}"}, 201)

    async def delete_token(self, request: Request) -> Response:
        token_id = request.path_params["token_id"]
        if self.named.pop(token_id, None) is None:
            return problem("token_not_found", 404, f"no token {token_id}")
        self.tokens.discard(token_id.replace("tok", "secret"))
        return Response(status_code=204)

    async def list_users(self, request: Request) -> Response:
        return problem("forbidden", 403, "only administrators may see accounts")

    async def create_user(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        return JSONResponse(
            {"username": asked["username"], "role": asked["role"], "selector": None}
            | {"disabled": False},
            201,
        )

    # --- agents and commands

    async def list_agents(self, request: Request) -> Response:
        status = request.query_params.get("status")
        return JSONResponse([a for a in self.agents if status in (None, a["status"])])

    async def one_agent(self, request: Request) -> Response:
        found = self._agent(request)
        return JSONResponse(found) if found else problem("agent_not_found", 404, "no such agent")

    def _agent(self, request: Request) -> dict[str, object] | None:
        wanted = request.path_params["agent_id"]
        return next((a for a in self.agents if a["agent_id"] == wanted), None)

    async def execute(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        found = self._agent(request)
        if found is None:
            return problem("agent_not_found", 404, "no such agent")
        if found["status"] == "offline" and not asked.get("queue"):
            return problem("agent_offline", 409, f"{found['agent_id']} is not connected")
        command = self.start(asked["command"], str(found["agent_id"]), asked)
        if command.state in FINAL and asked.get("wait", 30) > 0:
            return JSONResponse(finished(command))
        return JSONResponse(
            {"status": "running", "state": command.state, "command_id": command.command_id}
            | {"command": asked["command"]},
            202,
        )

    def start(
        self, line: str, agent_id: str = "web-1", request: dict[str, object] | None = None
    ) -> ScriptedCommand:
        """Run `line` as its script says; without one it goes on until the test ends it."""
        command_id = f"cmd-{len(self.commands) + 1}"
        command = ScriptedCommand(command_id, agent_id, request or {"command": line})
        command.play(self.scripts.get(line, Script(state=None)))
        self.commands[command_id] = command
        self.started.set()
        return command

    def _command(self, request: Request) -> ScriptedCommand | None:
        return self.commands.get(request.path_params["command_id"])

    async def list_commands(self, request: Request) -> Response:
        state = request.query_params.get("state")
        newest = [describe(c) for c in reversed(self.commands.values())]
        found = [c for c in newest if state in (None, c["state"])]
        first = int(request.query_params.get("cursor", 0))
        last = first + int(request.query_params.get("limit", 50))
        more = str(last) if last < len(found) else None
        return JSONResponse({"items": found[first:last], "next_cursor": more})

    async def one_command(self, request: Request) -> Response:
        command = self._command(request)
        return JSONResponse(describe(command)) if command else no_command()

    async def control(self, request: Request) -> Response:
        command = self._command(request)
        if command is None:
            return no_command()
        if command.state in FINAL:
            return problem("invalid_state", 409, "it has ended")
        command.end("cancelled")
        self.controlled.set()
        return JSONResponse(describe(command), 202)

    async def output(self, request: Request) -> Response:
        command = self._command(request)
        if command is None:
            return no_command()
        pattern = request.query_params.get("filter", "")
        if pattern == "(":
            return problem("invalid_filter", 422, "missing )")
        first = int(request.query_params.get("offset", 0))
        lines = [
            {"number": number, "stream": stream, "text": text, "timestamp": WHEN}
            for number, (stream, text) in enumerate(
                (stream, text)
                for stream, data in command.chunks
                for text in data.decode(errors="replace").splitlines()
            )
            if pattern in text
        ][first:]
        page = {"command_id": command.command_id, "stream": "both", "lines": lines}
        goes_on = None if command.state in FINAL else first + len(lines)
        page |= {"total_lines": len(lines), "matched_lines": len(lines), "next_offset": goes_on}
        return JSONResponse({**page, "complete": command.state in FINAL, "missing": []})

    async def output_bytes(self, request: Request) -> Response:
        command = self._command(request)
        if command is None:
            return no_command()
        data = command.of(request.path_params["stream"])
        wanted = request.headers.get("range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start and start >= len(data):
            return problem("range_not_satisfiable", 416, "outside the stream")
        headers = {"Content-Length": str(len(data) - start)}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = self._cut_short(pieces(data[start:]))
        return StreamingResponse(body, 206 if wanted else 200, headers)

    # --- events

    async def events(self, request: Request) -> Response:
        command = self._command(request)
        if command is None:
            return no_command()
        last = request.headers.get("last-event-id")
        first = 0 if last is None else max(0, int(last) + 1 - self.repeats)
        body = self._cut_short(self._event_bytes(command, first))
        self.streaming.set()
        return StreamingResponse(body, media_type="text/event-stream")

    async def _event_bytes(self, command: ScriptedCommand, seq: int) -> AsyncIterator[bytes]:
        yield b": welcome\n\n"
        for state in ("dispatched", "running"):
            yield event("state", {**about(command), "state": state, "timestamp": WHEN})
        moved = len(command.moves) - (command.state == "paused")
        while True:
            changed = command.changed
            for state in command.moves[moved:]:
                yield event("state", {**about(command), "state": state, "timestamp": WHEN})
            moved = len(command.moves)
            for number in range(seq, len(command.chunks)):
                if number not in self.skipped:
                    yield event("progress", progress(command, number), number)
            seq = len(command.chunks)
            if command.state in FINAL:
                yield event("state", {**about(command), "state": command.state, "timestamp": WHEN})
                yield event("result", {**about(command), **finished(command), "timestamp": WHEN})
                return
            await changed.wait()

    async def _cut_short(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        left = self.cuts.pop(0) if self.cuts else None
        async for piece in body:
            if left is not None and len(piece) > left:
                yield piece[:left]
                raise Cut
            left = None if left is None else left - len(piece)
            yield piece


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 65536):
        yield data[at : at + 65536]


def event(name: str, data: dict[str, object], number: int | None = None) -> bytes:
    lead = "" if number is None else f"id: {number}\n"
    return f"{lead}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def about(command: ScriptedCommand) -> dict[str, object]:
    return {"command_id": command.command_id, "agent_id": command.agent_id}


def progress(command: ScriptedCommand, seq: int) -> dict[str, object]:
    stream, data = command.chunks[seq]
    text = data.decode(errors="replace")
    exact = {} if text.encode() == data else {"data_base64": base64.b64encode(data).decode()}
    return {
        **about(command),
        **exact,
        "seq": seq,
        "status": "running",
        "stream": stream,
        "data": text,
        "offset": command.offset(seq),
        "timestamp": WHEN,
    }


def finished(command: ScriptedCommand) -> dict[str, object]:
    result = {
        "command": command.request["command"],
        "exit_code": command.exit_code,
        "signal": command.signal,
        "stdout": command.of("stdout")[-TAIL_BYTES:].decode(errors="replace"),
        "stderr": command.of("stderr")[-TAIL_BYTES:].decode(errors="replace"),
        "timestamp": WHEN,
        "execution_type": "local",
        "target": None,
        "duration": 1.5,
        "stdout_bytes": len(command.of("stdout")) + command.lost_bytes,
        "stderr_bytes": len(command.of("stderr")),
        **stored(command),
    }
    return {
        "status": "success" if command.state == "succeeded" else "error",
        "state": command.state,
        "command_id": command.command_id,
        "command": command.request["command"],
        "result": result,
        "error": command.error,
    }


def describe(command: ScriptedCommand) -> dict[str, object]:
    status = {"succeeded": "success", "running": "running", "queued": "queued"}
    return {
        **about(command),
        "command": command.request["command"],
        "processed_command": None,
        "execution_target": "auto",
        "execution_type": "local",
        "target": None,
        "state": command.state,
        "status": status.get(command.state, "error"),
        "requester": "ada",
        "created_at": WHEN,
        "exit_code": command.exit_code,
        "signal": command.signal,
        "error": command.error,
        "stdout_bytes": len(command.of("stdout")) + command.lost_bytes,
        "stderr_bytes": len(command.of("stderr")),
        **stored(command),
    }


def stored(command: ScriptedCommand) -> dict[str, object]:
    return {
        "stdout_stored": len(command.of("stdout")),
        "stderr_stored": len(command.of("stderr")),
        "truncated": command.lost_bytes > 0,
    }


def agent(agent_id: str, *, status: str = "online", hostname: str = "host") -> dict[str, object]:
    return {
        "agent_id": agent_id,
        "sid": "s1" if status == "online" else None,
        "status": status,
        "connected_at": WHEN,
        "last_seen_at": WHEN,
        "labels": {"role": "web"},
        "running": 0,
        "agent_info": {
            "platform": "Linux",
            "version": "6.1",
            "python": "3.11",
            "hostname": hostname,
            "agent_version": "0.1.0",
            "executors": ["local"],
        },
    }


def problem(code: str, status: int, detail: str) -> Response:
    body = {"type": f"urn:ogent:problem:{code}", "title": code, "status": status}
    return JSONResponse(
        {**body, "detail": detail, "code": code},
        status,
        media_type="application/problem+json",
    )


def no_command() -> Response:
    return problem("command_not_found", 404, "no such command")


class _Server(uvicorn.Server):
    """A server that leaves the signals of its process alone."""

    def capture_signals(self):
        return nullcontext()


@asynccontextmanager
async def serving(controller: ScriptedController) -> AsyncIterator[str]:
    """The address at which `controller` answers for as long as this is entered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            controller.app, log_level=60, lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        server = _Server(config)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]), name="scripted controller")
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
