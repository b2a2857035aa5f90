"""What is measured: each function gives figures for one row or more of the table."""

import asyncio
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncssh
import socketio

from bench.stack import AGENT_ID, Stack

MIB: Final = 1024 * 1024
BULK_BYTES: Final = 50_000_000
#: Writes BULK_BYTES of text as fast as a pipe takes it.
BULK_COMMAND: Final = (
    f"yes 'the quick brown fox jumps over the lazy dog, again and again' | head -c {BULK_BYTES}"
)

GIGABYTE: Final = 1_000_000_000
GIGABYTE_COMMAND: Final = f"seq 1 1000000000 | head -c {GIGABYTE}"

#: Writes a line with the time at which it is written, 200 times, 10 ms apart.
TICKER: Final = (
    f"{sys.executable} -S -c 'import time,sys\n"
    "for i in range(200):\n"
    " sys.stdout.write(str(time.time_ns())+chr(10)); sys.stdout.flush(); time.sleep(0.01)'"
)

Once = Callable[[], Awaitable[object]]


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


async def echo_latency(
    session: aiohttp.ClientSession, ssh: asyncssh.SSHClientConnection, pairs: int
) -> dict[str, float]:
    """Milliseconds for `echo hi`, taken in turn from both."""
    ours: list[float] = []
    theirs: list[float] = []
    for index in range(pairs + 20):
        for times, once in ((ours, _by_rest(session)), (theirs, _by_ssh(ssh))):
            begun = time.perf_counter()
            await once()
            if index >= 20:  # the first ones warm both up
                times.append((time.perf_counter() - begun) * 1000)
    return {
        "p50_ms": statistics.median(ours),
        "p99_ms": percentile(ours, 0.99),
        "peer_p50_ms": statistics.median(theirs),
        "peer_p99_ms": percentile(theirs, 0.99),
        "ratio": statistics.median(ours) / statistics.median(theirs),
    }


async def throughput(
    session: aiohttp.ClientSession, ssh: asyncssh.SSHClientConnection, commands: int, rounds: int
) -> dict[str, float]:
    """Commands per second with 16 in flight, in alternating rounds; the median of each."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        ours.append(await _rate(_by_rest(session), commands))
        theirs.append(await _rate(_by_ssh(ssh), commands))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "per_s": statistics.median(ours),
        "peer_per_s": statistics.median(theirs),
        "ratio": statistics.median(ratios),
    }


def _by_rest(session: aiohttp.ClientSession) -> Once:
    async def once() -> None:
        body = {"command": "echo hi"}
        async with session.post(f"/agents/{AGENT_ID}/execute", json=body) as answer:
            found = await answer.json()
            assert found["result"]["stdout"] == "hi\n", found

    return once


def _by_ssh(ssh: asyncssh.SSHClientConnection) -> Once:
    async def once() -> None:
        found = await ssh.run("echo hi", encoding=None, stdin=asyncssh.DEVNULL)
        assert found.stdout == b"hi\n", found

    return once


async def _rate(once: Once, commands: int, in_flight: int = 16) -> float:
    left = iter(range(commands))

    async def worker() -> None:
        for _ in left:
            await once()

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return commands / (time.perf_counter() - begun)


async def fairness(session: aiohttp.ClientSession, stack: Stack) -> dict[str, float]:
    """The same while another command of the agent prints as fast as it can."""
    body = {"command": "yes", "wait": 0}
    async with session.post(f"/agents/{AGENT_ID}/execute", json=body) as answer:
        path = f"/commands/{(await answer.json())['command_id']}"
    while not (await _json(session, path))["stdout_bytes"]:
        await asyncio.sleep(0.01)
    try:
        return await line_latency(stack)
    finally:
        async with session.post(f"{path}/control", json={"action": "kill"}) as answer:
            answer.raise_for_status()
        await _until_idle(session)


async def line_latency(stack: Stack) -> dict[str, float]:
    """Milliseconds from a line's writing to the client's Socket.IO handler."""
    delays: list[float] = []
    done = asyncio.Event()
    async with _client(stack) as client:

        def on_progress(frame: dict[str, Any]) -> None:
            now = time.time_ns()
            delays.extend((now - int(word)) / 1e6 for word in frame["data"].split())

        client.on("command_progress", on_progress)
        client.on("command_result", lambda _frame: done.set())
        await client.call("execute_command", {"agent_id": AGENT_ID, "command": TICKER})
        await asyncio.wait_for(done.wait(), 60)
    return {
        "p50_ms": statistics.median(delays),
        "p99_ms": percentile(delays, 0.99),
        "max_ms": max(delays),
    }


class _client:  # noqa: N801 - used as a function
    """A signed-in Socket.IO client, for as long as the context is open."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._client = socketio.AsyncClient(reconnection=False)

    async def __aenter__(self) -> socketio.AsyncClient:
        await self._client.connect(
            self._stack.url, auth={"token": self._stack.token}, transports=["websocket"]
        )
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.disconnect()


async def bulk(session: aiohttp.ClientSession, stack: Stack) -> dict[str, float]:
    """50 MB stored, then read as bytes; MB/s (10^6), and the controller's growth meanwhile."""
    before = _peak_reset(stack.controller_pid)
    begun = time.perf_counter()
    command_id = await _finished(session, BULK_COMMAND)
    stored = time.perf_counter()
    received = 0
    async with session.get(f"/commands/{command_id}/output/stdout") as answer:
        async for piece in answer.content.iter_any():
            received += len(piece)
    ended = time.perf_counter()
    assert received == BULK_BYTES, received
    return {
        "stored_mb_s": BULK_BYTES / 1e6 / (stored - begun),
        "read_mb_s": BULK_BYTES / 1e6 / (ended - stored),
        "stored_and_read_mb_s": BULK_BYTES / 1e6 / (ended - begun),
        "controller_up_mib": (_peak(stack.controller_pid) - before) / MIB,
    }


async def bulk_followed(stack: Stack) -> dict[str, float]:
    """The same followed live over Socket.IO."""
    received = 0
    done = asyncio.Event()
    before = _peak_reset(stack.controller_pid)
    async with _client(stack) as client:

        def on_progress(frame: dict[str, Any]) -> None:
            nonlocal received
            received += len(frame["data"].encode())

        client.on("command_progress", on_progress)
        client.on("command_result", lambda _frame: done.set())
        begun = time.perf_counter()
        await client.call("execute_command", {"agent_id": AGENT_ID, "command": BULK_COMMAND})
        await asyncio.wait_for(done.wait(), 120)
        took = time.perf_counter() - begun
    assert received == BULK_BYTES, received
    return {
        "followed_mb_s": BULK_BYTES / 1e6 / took,
        "controller_up_mib": (_peak(stack.controller_pid) - before) / MIB,
    }


async def bulk_by_ssh(ssh: asyncssh.SSHClientConnection) -> dict[str, float]:
    """The peer's MB/s for the same 50 MB, not stored anywhere."""
    begun = time.perf_counter()
    found = await ssh.run(BULK_COMMAND, encoding=None, stdin=asyncssh.DEVNULL)
    took = time.perf_counter() - begun
    assert found.stdout is not None and len(found.stdout) == BULK_BYTES
    return {"mb_s": BULK_BYTES / 1e6 / took}


async def _finished(session: aiohttp.ClientSession, command: str) -> str:
    body = {"command": command, "wait": 300}
    async with session.post(f"/agents/{AGENT_ID}/execute", json=body) as answer:
        found = await answer.json()
        assert found["status"] == "success", found
        return str(found["command_id"])


async def accepted(session: aiohttp.ClientSession, commands: int) -> dict[str, float]:
    """Commands accepted and durable per second, 16 in flight, while they run; their latency."""
    times: list[float] = []

    async def once() -> None:
        body = {"command": "true", "wait": 0, "expires_in": 600}
        begun = time.perf_counter()
        async with session.post(f"/agents/{AGENT_ID}/execute", json=body) as answer:
            assert answer.status in (200, 202), answer.status
            await answer.read()
        times.append((time.perf_counter() - begun) * 1000)

    per_s = await _rate(once, commands)
    await _until_idle(session)
    return {
        "per_s": per_s,
        "p50_ms": statistics.median(times),
        "p99_ms": percentile(times, 0.99),
    }


async def gigabyte(session: aiohttp.ClientSession, stack: Stack) -> dict[str, Any]:
    """1 GB through one command: MB/s until stored, the services' peaks, and whether it is right."""
    before = _peak_reset(stack.controller_pid)
    _peak_reset(stack.agent_pid)
    begun = time.perf_counter()
    command_id = await _finished(session, GIGABYTE_COMMAND)
    took = time.perf_counter() - begun
    found = hashlib.sha256()
    async with session.get(f"/commands/{command_id}/output/stdout") as answer:
        async for piece in answer.content.iter_any():
            found.update(piece)
    return {
        "mb_s": GIGABYTE / 1e6 / took,
        "agent_peak_mib": _peak(stack.agent_pid) / MIB,
        "runner_peak_mib": _peak(stack.runner_pid) / MIB,
        "controller_up_mib": (_peak(stack.controller_pid) - before) / MIB,
        "is_equal": found.hexdigest() == await asyncio.to_thread(_local_digest),
    }


def _local_digest() -> str:
    found = hashlib.sha256()
    with subprocess.Popen(["sh", "-c", GIGABYTE_COMMAND], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        while piece := running.stdout.read(MIB):
            found.update(piece)
    return found.hexdigest()


async def catching_up(session: aiohttp.ClientSession, stack: Stack) -> dict[str, float]:
    """Seconds from the agent's return to the last missing byte, after a kill -9 of the controller.

    The command goes on meanwhile, and its end comes while the controller is away.
    """
    body = {"command": BULK_COMMAND, "wait": 0}
    async with session.post(f"/agents/{AGENT_ID}/execute", json=body) as answer:
        path = f"/commands/{(await answer.json())['command_id']}"
    while not (await _json(session, path))["stdout_bytes"]:
        await asyncio.sleep(0.01)
    await stack.controller.kill()
    await stack.controller.start()
    await stack.controller_is_ready()
    while not await _json(session, "/agents?status=online"):
        await asyncio.sleep(0.01)
    returned = time.perf_counter()
    while (found := await _json(session, path))["status"] == "running":
        await asyncio.sleep(0.01)
    took = time.perf_counter() - returned
    assert (found["state"], found["stdout_bytes"]) == ("succeeded", BULK_BYTES), found
    return {"seconds": took}


async def _json(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(path) as answer:
        return await answer.json()


async def _until_idle(session: aiohttp.ClientSession) -> None:
    while (await _json(session, f"/agents/{AGENT_ID}"))["running"]:
        await asyncio.sleep(0.05)


def idle_memory(stack: Stack) -> dict[str, float]:
    """Resident MiB."""
    return {
        "controller_mib": _resident(stack.controller_pid) / MIB,
        "agent_mib": _resident(stack.agent_pid) / MIB,
        "runner_mib": _resident(stack.runner_pid) / MIB,
    }


def command_line(stack: Stack, runs: int) -> dict[str, float]:
    """Milliseconds of whole processes of the command line, medians."""
    ogent = str(Path(sys.executable).with_name("ogent"))
    with tempfile.TemporaryDirectory(prefix="ogent-bench-home-") as home:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "OGENT_URL": stack.url,
            "OGENT_TOKEN": stack.token,
        }
        return {
            "version_ms": _whole([ogent, "--version"], environment, runs),
            "exec_true_ms": _whole([ogent, "exec", AGENT_ID, "--", "true"], environment, runs),
            "python_ms": _whole([sys.executable, "-c", "pass"], environment, runs),
        }


def demo(root: Path) -> dict[str, float]:
    """Seconds from `make demo` to its first line: fresh clone, empty home, no caches."""
    with tempfile.TemporaryDirectory(prefix="ogent-bench-demo-") as folder:
        clone, home = Path(folder) / "clone", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        environment = {"PATH": os.environ["PATH"], **kept, "HOME": str(home)}
        begun = time.perf_counter()
        with subprocess.Popen(
            ["make", "demo"],
            cwd=clone,
            env={**environment, "PIP_NO_CACHE_DIR": "1"},
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stdout is not None
            seen = [time.perf_counter() for line in running.stdout if line.startswith("line 1 of")]
        assert running.returncode == 0, running.returncode
        return {"first_line_s": seen[0] - begun}


def _whole(command: list[str], environment: dict[str, str], runs: int) -> float:
    times = []
    for _ in range(runs + 1):
        begun = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times[1:])


def _resident(pid: int) -> int:
    return _status(pid, "VmRSS")


def _peak(pid: int) -> int:
    return _status(pid, "VmHWM")


def _peak_reset(pid: int) -> int:
    """Forget the peak so far; gives what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _resident(pid)


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
