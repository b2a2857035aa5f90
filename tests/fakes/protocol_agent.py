"""An agent that is all protocol: a real MessagePack client that plays what a test scripts.

It starts no process. It signs in, registers, acknowledges, and sends what it is told to send, by
plain dictionaries, so that it agrees with the documents and not with anybody's models.
"""

import asyncio
import hashlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
import msgpack
import socketio

DEADLINE_S = 20.0
SOCKET_PATH = "/agent/socket.io"
INFO: dict[str, Any] = {
    "platform": "Linux",
    "version": "6.1",
    "python": "3.11.2",
    "hostname": "scripted",
    "agent_version": "0.1.0",
    "executors": ["local"],
    "ssh_enabled": False,
    "ssh_target": None,
    "ssh_targets": [],
}

Frame = dict[str, Any]


def now() -> str:
    """This moment as the protocol writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def agent_token(url: str, username: str, password: str, agent_id: str) -> str:
    """What a real agent asks for when it signs in by password."""
    form = {"username": username, "password": password, "scope": f"agent:{agent_id}"}
    async with httpx2.AsyncClient(base_url=url) as http:
        answer = await http.post("/token", data=form)
        answer.raise_for_status()
        return str(answer.json()["access_token"])


class BlockDigest:
    """SHA-256 over the SHA-256 digests of blocks of 1 MiB, as the protocol has it."""

    def __init__(self) -> None:
        self.blocks = b""
        self.rest = b""

    def update(self, data: bytes) -> None:
        self.rest += data
        while len(self.rest) >= 1 << 20:
            self.blocks += hashlib.sha256(self.rest[: 1 << 20]).digest()
            self.rest = self.rest[1 << 20 :]

    def hexdigest(self) -> str:
        last = hashlib.sha256(self.rest).digest() if self.rest else b""
        return hashlib.sha256(self.blocks + last).hexdigest()


class Execution:
    """What the agent says of one command; it counts `seq` and offsets."""

    def __init__(self, agent: "ProtocolAgent", command_id: str) -> None:
        self.agent = agent
        self.command_id = command_id
        self.started_at: str | None = None
        self.next_seq = 0
        self.sizes = {"stdout": 0, "stderr": 0}
        self.digests = {"stdout": BlockDigest(), "stderr": BlockDigest()}

    async def start(self, **changes: object) -> Frame:
        """Report `running`."""
        self.started_at = now()
        return await self.state("running", **changes)

    async def state(self, state: str, **changes: object) -> Frame:
        """Report a state, and return its acknowledgement."""
        frame = {
            "command_id": self.command_id,
            "state": state,
            "timestamp": now(),
            "started_at": self.started_at,
            "execution_type": "local",
            "target": None,
        }
        return await self.agent.call("command_state", frame | changes)

    async def write(self, data: bytes, stream: str = "stdout") -> None:
        """Send the next chunk; nobody waits for it to be stored."""
        await self.send_chunk(self.next_seq, stream, self.sizes[stream], data)
        self.next_seq += 1
        self.sizes[stream] += len(data)
        self.digests[stream].update(data)

    async def send_chunk(self, seq: int, stream: str, offset: int, data: bytes) -> None:
        """Send any chunk, also one that does not follow."""
        frame = {
            "command_id": self.command_id,
            "seq": seq,
            "stream": stream,
            "offset": offset,
            "data": data,
            "timestamp": now(),
        }
        await self.agent.emit("command_progress", frame)

    async def stored(self) -> Frame:
        """Wait until all that was written is durable: the `progress_ack` that says so."""
        return await self.agent.acknowledged(self.command_id, self.next_seq)

    async def end(self, state: str = "succeeded", **changes: object) -> Frame:
        """Report the result, and return its acknowledgement."""
        return await self.agent.call("command_result", self.result(state, **changes))

    def result(self, state: str = "succeeded", **changes: object) -> Frame:
        """A result that agrees with what was written, apart from `changes`."""
        out, err = self.sizes["stdout"], self.sizes["stderr"]
        frame = {
            "command_id": self.command_id,
            "state": state,
            "next_seq": self.next_seq,
            "exit_code": 0 if state == "succeeded" else None,
            "signal": None,
            "stdout_bytes": out,
            "stderr_bytes": err,
            "stdout_stored": out,
            "stderr_stored": err,
            "stdout_digest": self.digests["stdout"].hexdigest(),
            "stderr_digest": self.digests["stderr"].hexdigest(),
            "missing": [],
            "started_at": self.started_at,
            "finished_at": now(),
            "execution_type": "local" if self.started_at else None,
            "target": None,
        }
        return frame | changes


def willing(order: Frame) -> Frame:
    """The acknowledgement of an agent that takes what it is given."""
    return {"ok": True, "command_id": order["command_id"], "state": "dispatched"}


class ProtocolAgent:
    """One instance of an agent; `answer` decides how it acknowledges orders.

    `answer` is given the order's map and returns the acknowledgement. `seen` holds every order in
    the order in which it came, also repeated ones.
    """

    def __init__(self, url: str, token: str, agent_id: str, instance_id: str = "") -> None:
        self.url = url
        self.token = token
        self.agent_id = agent_id
        self.instance_id = instance_id or uuid.uuid4().hex
        self.epoch = 0
        self.answer: Callable[[Frame], Frame] = willing
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.takes_epochs = True
        self.epoch_answer: object = True
        self.seen: list[Frame] = []
        self.superseded = asyncio.Event()
        self.closed = asyncio.Event()
        self._orders: dict[str, deque[Frame]] = {"run": deque(), "control": deque()}
        self._acks: dict[str, Frame] = {}
        self._responses: deque[Frame] = deque()
        self._changed = asyncio.Condition()
        self._socket = self._new_socket()

    def _new_socket(self) -> socketio.AsyncClient:
        made = socketio.AsyncClient(serializer="msgpack", reconnection=False)
        for event, handler in (
            ("registration_response", self._on_registered),
            ("execute_command", self._on_order),
            ("control_command", self._on_order),
            ("progress_ack", self._on_progress_ack),
            ("superseded", self._on_superseded),
            ("disconnect", self._on_disconnect),
        ):
            made.on(event, handler)
        return made

    # --- what the test makes it do --------------------------------------------------------------

    async def connect(self, *, protocol: int = 1) -> None:
        """Open the socket; raises what python-socketio raises when it is refused."""
        self.closed.clear()
        self._socket = self._new_socket()
        await self._socket.connect(
            self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            auth={"instance_id": self.instance_id, "boot_id": "boot-1", "protocol": protocol},
            socketio_path=SOCKET_PATH,
            transports=["websocket"],
            wait_timeout=DEADLINE_S,
        )

    async def register(
        self,
        *,
        last_epoch: int | None = None,
        resume: Sequence[Frame] = (),
        labels: Mapping[str, str] | None = None,
        **info: object,
    ) -> Frame:
        """Register, acknowledge the epoch, and return the `registration_response`."""
        frame = {
            "agent_id": self.agent_id,
            "agent_info": INFO | info,
            "labels": dict(labels or {}),
            "last_epoch": self.epoch if last_epoch is None else last_epoch,
            "resume": list(resume),
        }
        self._responses.clear()
        answer = await self.call("register", frame)
        assert answer == {"ok": True}, answer
        return await self._until(lambda: self._responses.popleft() if self._responses else None)

    async def call(self, event: str, frame: object) -> Frame:
        """Send a frame and return its acknowledgement."""
        answer: Frame = await self._socket.call(event, frame, timeout=DEADLINE_S)
        return answer

    async def emit(self, event: str, frame: object) -> None:
        """Send a frame without an acknowledgement."""
        await self._socket.emit(event, frame)

    async def next_order(self, kind: str = "run") -> Frame:
        """The next `run` or `control` order that it has not given out, once it is there."""
        orders = self._orders[kind]
        return await self._until(lambda: orders.popleft() if orders else None)

    async def execution(self) -> Execution:
        """The next run order, taken up."""
        return Execution(self, (await self.next_order())["command_id"])

    async def acknowledged(self, command_id: str, next_seq: int) -> Frame:
        """The `progress_ack` that covers every chunk before `next_seq`, once it is there."""

        def covering() -> Frame | None:
            ack = self._acks.get(command_id)
            return ack if ack is not None and ack["next_seq"] >= next_seq else None

        return await self._until(covering)

    async def disconnect(self) -> None:
        """Leave, without a word to anybody else."""
        await self._socket.disconnect()

    # --- what it hears --------------------------------------------------------------------------

    async def _on_registered(self, response: Frame) -> object:
        if not self.takes_epochs:
            await self.closed.wait()
            return None
        if self.epoch_answer in (True, {"ok": True}):
            self.epoch = response["epoch"]
        self._responses.append(response)
        await self._tell()
        return self.epoch_answer

    async def _on_order(self, envelope: Frame) -> Frame:
        assert set(envelope) == {"order", "signature", "key_id"}, envelope
        order: Frame = msgpack.unpackb(envelope["order"])
        self.seen.append(order)
        self._orders[order["kind"]].append(order)
        await self._tell()
        await self.may_answer.wait()
        return self.answer(order)

    async def _on_progress_ack(self, ack: Frame) -> None:
        self._acks[ack["command_id"]] = ack
        await self._tell()

    async def _on_superseded(self, _payload: object) -> None:
        self.superseded.set()

    async def _on_disconnect(self, _reason: object = None) -> None:
        self.closed.set()
        self.may_answer.set()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, find: Callable[[], Frame | None]) -> Frame:
        async with asyncio.timeout(DEADLINE_S), self._changed:
            while True:
                found = find()
                if found is not None:
                    return found
                await self._changed.wait()


@asynccontextmanager
async def registered_agent(
    url: str, token: str, agent_id: str, **registration: Any
) -> AsyncIterator[ProtocolAgent]:
    """An agent with a session, until the context ends."""
    agent = ProtocolAgent(url, token, agent_id)
    await agent.connect()
    try:
        await agent.register(**registration)
        yield agent
    finally:
        await agent.disconnect()
