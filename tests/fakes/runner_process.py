"""The real runner as a process, what is said to it over its socket, and its end."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.domain.ids import CommandId
from agent.domain.stopping import Impulse
from agent.infrastructure.runner import main as runner_main
from agent.infrastructure.runner.process_tree import ProcessTree
from agent.infrastructure.runner.records import (
    INDEX_RECORD,
    Damage,
    frames_in,
    unpack_index,
)

#: For one event to happen; only a broken runner needs it.
DEADLINE_S = 20.0
MAIN = Path(runner_main.__file__)
LENGTH = struct.Struct("<I")
#: Behind every id of a command: other tests run on this host, and a tree is found by its id, too.
OWN = f"-{os.urandom(6).hex()}"

Facts = dict[str, Any]


def own_id(name: str) -> CommandId:
    """An id that no other test on this host uses."""
    return CommandId(name + OWN)


class RunnerProcess:
    """A runner that this test started, in a folder that may have had others before."""

    def __init__(self, data_dir: Path, *prefix: str) -> None:
        self.data_dir = data_dir
        for folder in (data_dir, data_dir / "runner", data_dir / "spool"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (data_dir / "runner" / "runner.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-I", "-S", str(MAIN), str(data_dir)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={},
                cwd="/",
                start_new_session=True,
            )
        assert self.process.stdout is not None
        with self.process.stdout as said:
            self.said = said.readline()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.data_dir / "runner" / "runner.log").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def ended(self) -> int:
        """Its exit status, once it has one."""
        return self.process.wait(DEADLINE_S)

    def resident_kib(self) -> int:
        """Memory of its own and shared, as the system counts it for the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024

    @contextmanager
    def talk(self, spool_max_bytes: int = 1 << 28) -> Iterator["Talk"]:
        """A connection as the agent's."""
        with self.visit() as talk:
            talk.welcome = talk.request("hello", v=1, spool_max_bytes=spool_max_bytes)
            yield talk

    @contextmanager
    def visit(self) -> Iterator["Talk"]:
        """A connection that has said nothing yet."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(DEADLINE_S)
            connect(connection, self.data_dir)
            talk = Talk(connection)
            try:
                yield talk
            finally:
                talk.close()


def connect(connection: socket.socket, data_dir: Path) -> None:
    """To the runner's socket, however deep the folder lies."""
    descriptor = os.open(data_dir / "runner", os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{descriptor}/runner.sock")
    finally:
        os.close(descriptor)


class Talk:
    """Requests, answers and news over one connection; everything waits at most DEADLINE_S."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.welcome: Facts = {}
        self.news: list[Facts] = []
        self._numbers = 0
        self._file = connection.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self.connection.close()

    def say(self, do: str, **facts: Any) -> str:
        """Send a request; its number."""
        self._numbers += 1
        if isinstance(facts.get("id"), str):
            facts["id"] += OWN
        payload = json.dumps({"do": do, "n": str(self._numbers), **facts}).encode()
        self.connection.sendall(LENGTH.pack(len(payload)) + payload)
        return str(self._numbers)

    def request(self, do: str, **facts: Any) -> Facts:
        """The answer to a request; news before it are kept."""
        number = self.say(do, **facts)
        while True:
            frame = self.next_frame()
            if frame["is"] == "answer" and frame["id"] == number:
                return frame
            self.news.append(frame)

    def next_frame(self) -> Facts:
        head = self._file.read(LENGTH.size)
        if len(head) < LENGTH.size:
            raise EOFError
        (length,) = LENGTH.unpack(head)
        text = self._file.read(length).decode()
        frame: Facts = json.loads(text.replace(OWN, ""))
        return frame

    def hear(self, word: str, command_id: str | None = None) -> Facts:
        """The next news of that kind, of that command."""
        while True:
            for number, frame in enumerate(self.news):
                if frame["is"] == word and command_id in (None, frame["id"]):
                    return self.news.pop(number)
            self.news.append(self.next_frame())

    # --- commands -------------------------------------------------------------------------

    def start(self, command_id: str, command: str, **changes: Any) -> Facts:
        """Ask for a command to be started; the answer."""
        wanted = {
            "id": command_id,
            "name": command_id,
            "command": command,
            "cwd": "/",
            "env": {"PATH": os.environ["PATH"]},
            "account": None,
            "stdin": None,
            "timeout_s": None,
            "max_output_bytes": 1 << 30,
        }
        return self.request("start", **{**wanted, **changes})

    def stop(self, command_id: str, force: int = 0, ended_as: str = "cancelled") -> Facts:
        return self.request("stop", id=command_id, force=force, failure=None, **{"as": ended_as})

    def end_of(self, command_id: str) -> Facts:
        """How a command ended, once it has."""
        end: Facts = self.hear("ended", command_id)["end"]
        return end

    def run(self, command_id: str, command: str, **changes: Any) -> Facts:
        """How a command ended that was started for this."""
        answer = self.start(command_id, command, **changes)
        assert "code" not in answer, answer
        return self.end_of(command_id)

    def job(self, command_id: str) -> Facts | None:
        """What the runner says of a command now."""
        jobs = {job["id"]: job for job in self.request("status")["jobs"]}
        return jobs.get(command_id)


# --- what lies on the disk --------------------------------------------------------------------


def stored(data_dir: Path, name: str, stream: str = "stdout") -> bytes:
    """All bytes that are stored of a stream."""
    parts = sorted((data_dir / "spool").glob(f"{name}.{stream}-*"))
    return b"".join(part.read_bytes() for part in parts)


def indexed(data_dir: Path, name: str) -> list[tuple[int, int, int, int, int]]:
    """Every record of a command's index; each must be whole."""
    parts = sorted((data_dir / "spool").glob(f"{name}.index-*"))
    raw = b"".join(part.read_bytes() for part in parts)
    records = [
        unpack_index(raw[at : at + INDEX_RECORD.size])
        for at in range(0, len(raw), INDEX_RECORD.size)
    ]
    assert None not in records
    return [record for record in records if record is not None]


def check_index(data_dir: Path, name: str) -> None:
    """The index covers every stored byte once, in order, with its checksum."""
    streams = [stored(data_dir, name), stored(data_dir, name, "stderr")]
    ends = [0, 0]
    for stream, length, offset, _, crc in indexed(data_dir, name):
        assert offset == ends[stream]
        ends[stream] += length
        assert zlib.crc32(streams[stream][offset : ends[stream]]) == crc
    assert ends == [len(data) for data in streams]


def facts_of(data_dir: Path, name: str) -> Facts:
    """What is written down of a command, later facts over earlier ones."""
    path = data_dir / "spool" / f"{name}.facts"
    facts: Facts = {}
    for part in frames_in(path.read_bytes() if path.exists() else b""):
        if not isinstance(part, Damage):
            facts |= json.loads(part.decode().replace(OWN, ""))
    return facts


def commands_in(data_dir: Path) -> set[str]:
    """The commands of which something lies in the spool."""
    names = {path.name.partition(".")[0] for path in (data_dir / "spool").glob("*")}
    return {name for name in names if not name.startswith("+")}


# --- the end ----------------------------------------------------------------------------------


def runner_pid(data_dir: Path) -> int | None:
    """The runner of a folder; None where none runs."""
    with suppress(OSError, ValueError):
        pid = int((data_dir / "runner" / "runner.pid").read_text())
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return pid if str(data_dir.resolve()).encode() in argv else None
    return None


def kill_runner(data_dir: Path) -> None:
    """Kill the runner of a folder, if there is one; it is gone when this returns."""
    pid = runner_pid(data_dir)
    if pid is None:
        return
    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([handle], [], [], DEADLINE_S)
    os.close(handle)


def end_everything(data_dir: Path) -> None:
    """Kill the runner of a folder, and every process of the commands that it had."""
    kill_runner(data_dir)
    for name in commands_in(data_dir):
        with suppress(OSError, KeyError, ValueError):
            start = facts_of(data_dir, name)["start"]
            tree = ProcessTree(0, int(start["since"]), "-", int(start["limit_number"]))
            while tree.signal(Impulse.KILL).pids:
                time.sleep(0.01)  # nothing tells of the end of somebody else's child


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    """Return once it holds: of what nothing tells."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
