"""A subscriber that stops reading costs bounded memory, delays nobody, and gets everything."""

import asyncio
import base64
import gc
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.fakes.protocol_agent import ProtocolAgent
from tests.integration.controller.commands import taken
from tests.integration.controller.installation import Running

MIB = 1024 * 1024
CHUNK = b"0123456789abcdef" * (256 * 1024 // 16)
CHUNKS = 208  # 52 MiB
READERS = 16
#: The controller's own caches, its window of frames and one event of this reader.
GROWTH_MAX = 40 * MIB


class StoppedReader:
    """A WebSocket by hand over a real socket, which reads when the test says so."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.file = self.socket.makefile("rb", buffering=65536)
        assert b" 101 " in self.file.readline()
        while self.file.readline() != b"\r\n":
            pass

    def send(self, text: str) -> None:
        data, mask = text.encode(), os.urandom(4)
        assert len(data) < 65536
        head = struct.pack("!BBH", 0x81, 0x80 | 126, len(data))
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self.socket.sendall(head + mask + masked)

    def texts(self) -> Iterator[str]:
        """Messages; pings of Engine.IO are answered."""
        while True:
            opcode, length = struct.unpack("!BB", self.file.read(2))
            if length == 126:
                (length,) = struct.unpack("!H", self.file.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self.file.read(8))
            text = self.file.read(length).decode()
            assert opcode == 0x81, (opcode, text)
            if text == "2":
                self.send("3")
            else:
                yield text

    def subscribe(self, token: str, command_id: str) -> None:
        texts = self.texts()
        assert next(texts).startswith("0")
        self.send("40" + json.dumps({"token": token}))
        while not next(texts).startswith("40"):
            pass
        self.send("42" + json.dumps(["subscribe_command", {"command_id": command_id}]))

    def read_to_the_result(self) -> tuple[int, int]:
        """How many chunks came, in order, and their bytes."""
        chunks = size = 0
        for text in self.texts():
            if text.startswith('42["command_progress"'):
                payload = json.loads(text[2:])[1]
                assert (payload["seq"], payload["offset"]) == (chunks, size)
                assert payload["data"].encode() == CHUNK
                chunks, size = chunks + 1, size + len(CHUNK)
            elif text.startswith('42["command_result"'):
                break
        return chunks, size

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class StoppedStream:
    """A request for an event stream whose answer nobody reads."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    def subscribe(self, token: str, command_id: str) -> None:
        head = f"GET /commands/{command_id}/events HTTP/1.1\r\nHost: localhost\r\n"
        self.socket.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())

    def close(self) -> None:
        self.socket.close()


async def test_a_subscriber_that_stops_reading_costs_little_and_gets_everything_afterwards(
    controller: Running, admin: httpx2.AsyncClient, agent: ProtocolAgent
) -> None:
    run = await taken(admin, agent)
    token = controller.installation.users["admin"]
    reader = await asyncio.to_thread(StoppedReader, controller.url)
    await asyncio.to_thread(reader.subscribe, token, run.command_id)
    before = _resident()
    async with asyncio.timeout(60):
        for number in range(CHUNKS):
            await run.write(CHUNK)
            if number % 16 == 15:
                await run.stored()
        assert (await run.end())["ok"]
    assert _resident() - before < GROWTH_MAX
    assert (await admin.get("/health")).status_code == 200
    found = await asyncio.to_thread(reader.read_to_the_result)
    assert found == (CHUNKS, CHUNKS * len(CHUNK))
    reader.close()


@pytest.mark.parametrize(
    ("reader", "chunk"),
    [
        (StoppedReader, CHUNK),
        (StoppedReader, bytes(range(128, 256)) * 2048),  # no text: the largest events
        (StoppedStream, CHUNK),
        (StoppedStream, bytes(range(128, 256)) * 2048),
    ],
)
async def test_each_reader_that_stops_costs_at_most_two_mebibytes(
    controller: Running,
    admin: httpx2.AsyncClient,
    agent: ProtocolAgent,
    reader: type[StoppedReader | StoppedStream],
    chunk: bytes,
) -> None:
    run = await taken(admin, agent)
    for _ in range(24):
        await run.write(chunk)
    await run.stored()
    token = controller.installation.users["admin"]
    readers: list[StoppedReader | StoppedStream] = []

    async def stopped(more: int) -> int:
        """What the process holds once `more` readers have come and stopped."""
        for _ in range(more):
            readers.append(await asyncio.to_thread(reader, controller.url))
            await asyncio.to_thread(readers[-1].subscribe, token, run.command_id)
        return await _resident_at_rest()

    before = await stopped(4)  # caches are full by then
    assert await stopped(READERS) - before < READERS * 2 * MIB
    for one in readers:
        one.close()


async def _resident_at_rest() -> int:
    """What is in memory once that has not grown for a while."""
    most, looks = 0, 0
    async with asyncio.timeout(90):
        while looks < 10:
            gc.collect()
            looks = looks + 1 if (now := _resident()) <= most else 0
            most = max(most, now)
            await asyncio.sleep(0.05)
    return most


def _resident() -> int:
    """Bytes of this process that are in memory; the controller runs in it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
