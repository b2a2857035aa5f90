"""A controller in memory, for the tests of programs that use `ogent.client`.

Make a FakeTransport, tell it of agents with `add_agent` and of lines with `on`, and open
`Client("http://fake", token="any", transport=transport)`.
"""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import unquote

from ogent.client.errors import ConnectionFailed
from ogent.client.transport import HttpAnswer, HttpRequest, HttpStream
from ogent.protocol.codec import format_time
from ogent.protocol.messages import ClientProgress, ClientResult
from ogent.protocol.problems import problem
from ogent.protocol.resources import (
    Agent,
    AgentInfo,
    Answer,
    Command,
    CommandPage,
    Finished,
    Me,
    Result,
)
from ogent.protocol.states import STATUS, Role, State, Stream


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a line does when it is run: its output, and how it ends."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int = 0


@dataclass(slots=True)
class FakeTransport:
    """A Transport to a controller in memory, where every command ends at once.

    It knows agents, execute, commands, their events and their bytes; anything else is 404
    `not_found`. A line that `on` was not told of fails with exit code 127. `requests` lists what
    was asked; while `breaks` is above 0, each request fails with ConnectionFailed and lowers it.
    """

    url: str = "http://fake"
    requests: list[HttpRequest] = field(default_factory=list)
    breaks: int = 0
    _agents: dict[str, Agent] = field(default_factory=dict)
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    _commands: dict[str, tuple[Command, Outcome]] = field(default_factory=dict)

    def add_agent(
        self,
        agent_id: str,
        *,
        labels: Mapping[str, str] | None = None,
        status: Literal["online", "offline"] = "online",
    ) -> None:
        """Let there be an agent."""
        info = AgentInfo(
            platform="Linux",
            version="6.1",
            python="3.11",
            hostname=agent_id,
            agent_version="0.1.0",
            executors=["local"],
        )
        self._agents[agent_id] = Agent(
            agent_id=agent_id,
            sid=None,
            status=status,
            connected_at=None,
            last_seen_at=None,
            labels=dict(labels or {}),
            running=0,
            agent_info=info,
        )

    def on(
        self, line: str, *, stdout: bytes = b"", stderr: bytes = b"", exit_code: int = 0
    ) -> None:
        """Say what the line does from now on, on every agent."""
        self._outcomes[line] = Outcome(stdout, stderr, exit_code)

    async def send(self, request: HttpRequest, *, timeout_s: float) -> HttpAnswer:  # noqa: ARG002
        """The answer; raises ConnectionFailed while `breaks` says so."""
        self.requests.append(request)
        if self.breaks > 0:
            self.breaks -= 1
            raise ConnectionFailed(self.url, "broken on purpose", nothing_sent=True)
        return self._answer(request)

    @asynccontextmanager
    async def stream(self, request: HttpRequest, *, silence_s: float) -> AsyncIterator[HttpStream]:
        """The answer in two pieces."""
        answer = await self.send(request, timeout_s=silence_s)
        yield HttpStream(answer.status, answer.headers, _halves(answer.body))

    async def aclose(self) -> None:
        """Nothing happens."""

    def _answer(self, request: HttpRequest) -> HttpAnswer:
        match [request.method, *map(unquote, request.path.strip("/").split("/"))]:
            case ["GET", "health" | "ready"]:
                return _json({"status": "healthy"})
            case ["GET", "me"]:
                return _model(Me(username="fake", role=Role.OPERATOR, selector=None))
            case ["GET", "agents"]:
                return _json([agent.model_dump(mode="json") for agent in self._agents.values()])
            case ["GET", "agents", agent_id]:
                found = self._agents.get(agent_id)
                return _model(found) if found else _problem("agent_not_found", agent_id)
            case ["POST", "agents", agent_id, "execute"]:
                return self._execute(agent_id, json.loads(request.body or b"{}"))
            case ["GET", "commands"]:
                items = [command for command, _ in reversed(self._commands.values())]
                return _model(CommandPage(items=items, next_cursor=None))
            case ["GET", "commands", command_id, *rest]:
                return self._of_command(command_id, rest, request)
        return _problem("not_found", request.path)

    def _execute(self, agent_id: str, asked: Mapping[str, object]) -> HttpAnswer:
        agent = self._agents.get(agent_id)
        if agent is None:
            return _problem("agent_not_found", agent_id)
        if agent.status == "offline":
            return _problem("agent_offline", agent_id)
        line = str(asked["command"])
        outcome = self._outcomes.get(line, Outcome(stderr=b"unknown line\n", exit_code=127))
        command = _command(f"fake-{len(self._commands) + 1}", agent_id, line, outcome)
        self._commands[command.command_id] = (command, outcome)
        return _model(_finished(command, outcome))

    def _of_command(self, command_id: str, rest: list[str], request: HttpRequest) -> HttpAnswer:
        if command_id not in self._commands:
            return _problem("command_not_found", command_id)
        command, outcome = self._commands[command_id]
        match rest:
            case []:
                return _model(command)
            case ["events"]:
                first = int(request.headers.get("Last-Event-ID", "-1")) + 1
                return HttpAnswer(200, {}, _events(command, outcome, first))
            case ["output", "stdout" | "stderr" as stream]:
                return _bytes(outcome.stdout if stream == "stdout" else outcome.stderr, request)
        return _problem("not_found", request.path)


async def _halves(body: bytes) -> AsyncIterator[bytes]:
    middle = len(body) // 2
    yield body[:middle]
    yield body[middle:]


def _json(value: object) -> HttpAnswer:
    return HttpAnswer(200, {}, json.dumps(value).encode())


def _model(model: Answer) -> HttpAnswer:
    return HttpAnswer(200, {}, model.model_dump_json().encode())


def _problem(code: str, detail: str) -> HttpAnswer:
    body = problem(code, detail)
    return HttpAnswer(body.status, {}, body.model_dump_json().encode())


def _bytes(data: bytes, request: HttpRequest) -> HttpAnswer:
    wanted = request.headers.get("Range")
    if wanted is None:
        return HttpAnswer(200, {}, data)
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    if start >= len(data):
        return _problem("range_not_satisfiable", wanted)
    headers = {"content-range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    return HttpAnswer(206, headers, data[start:])


def _command(command_id: str, agent_id: str, line: str, outcome: Outcome) -> Command:
    state = State.FAILED if outcome.exit_code else State.SUCCEEDED
    return Command(
        command_id=command_id,
        agent_id=agent_id,
        command=line,
        execution_target="auto",
        execution_type="local",
        state=state,
        status=STATUS[state],
        requester="fake",
        created_at=datetime.now(UTC),
        exit_code=outcome.exit_code,
        stdout_bytes=len(outcome.stdout),
        stderr_bytes=len(outcome.stderr),
    )


def _finished(command: Command, outcome: Outcome) -> Finished:
    result = Result(
        command=command.command,
        exit_code=command.exit_code,
        signal=None,
        stdout=outcome.stdout.decode(errors="replace"),
        stderr=outcome.stderr.decode(errors="replace"),
        timestamp=command.created_at,
        execution_type="local",
        target=None,
        duration=0.0,
        stdout_bytes=command.stdout_bytes,
        stderr_bytes=command.stderr_bytes,
        truncated=False,
    )
    status: Literal["success", "error"] = "error" if outcome.exit_code else "success"
    return Finished(
        status=status,
        state=command.state,
        command_id=command.command_id,
        command=command.command,
        result=result,
    )


def _events(command: Command, outcome: Outcome, first: int) -> bytes:
    streams = ((Stream.STDOUT, outcome.stdout), (Stream.STDERR, outcome.stderr))
    written = [(stream, data) for stream, data in streams if data]
    events = [
        _event("progress", _progress(command, seq, stream, data), seq)
        for seq, (stream, data) in enumerate(written)
        if seq >= first
    ]
    at = format_time(command.created_at)
    state = {"command_id": command.command_id, "agent_id": command.agent_id, "timestamp": at}
    events.append(_event("state", json.dumps({**state, "state": command.state.value})))
    finished = _finished(command, outcome).model_dump()
    result = ClientResult(**finished, agent_id=command.agent_id, timestamp=command.created_at)
    events.append(_event("result", result.model_dump_json()))
    return b"".join(events)


def _progress(command: Command, seq: int, stream: Stream, data: bytes) -> str:
    return ClientProgress(
        command_id=command.command_id,
        agent_id=command.agent_id,
        seq=seq,
        stream=stream,
        data=data.decode(errors="replace"),
        data_base64=base64.b64encode(data).decode(),
        offset=0,
        timestamp=command.created_at,
    ).model_dump_json()


def _event(name: str, data: str, number: int | None = None) -> bytes:
    lead = "" if number is None else f"id: {number}\n"
    return f"{lead}event: {name}\ndata: {data}\n\n".encode()
