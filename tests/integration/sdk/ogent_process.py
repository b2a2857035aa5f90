"""The real `ogent`, as a process: with pipes, or on a terminal."""

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

OGENT = Path(sys.executable).with_name("ogent")
DEADLINE_S = 40


@dataclass(frozen=True)
class Ended:
    code: int
    out: bytes
    err: str


class Terminal:
    """An `ogent` on a pseudo-terminal; `seen` is everything that it drew."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self.seen = b""
        self._master = master
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the last process has closed its end
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.seen += data
        self._more.set()

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    async def shows(self, text: bytes) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while text not in self.seen:
                self._more.clear()
                await self._more.wait()

    async def ended(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


class Ogent:
    """Starts `ogent` with a home of its own, and ends what is left at the end."""

    def __init__(self, home: Path, environ: dict[str, str]) -> None:
        self.home = home
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            **environ,
        }
        self._started: list[asyncio.subprocess.Process] = []
        self._terminals: list[Terminal] = []

    @property
    def login_file(self) -> Path:
        return self.home / "config" / "ogent" / "credentials.json"

    async def start(
        self, *words: str, on_terminal: bool = False, **streams: int
    ) -> asyncio.subprocess.Process:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        process = await asyncio.create_subprocess_exec(
            OGENT,
            *words,
            env=self.environ,
            start_new_session=on_terminal,
            preexec_fn=_take_terminal if on_terminal else None,
            **{**pipes, **streams},
        )
        self._started.append(process)
        return process

    async def run(self, *words: str, stdin: bytes = b"") -> Ended:
        return await ended(await self.start(*words), stdin)

    async def on_terminal(self, *words: str, columns: int = 120) -> Terminal:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = await self.start(
            *words, on_terminal=True, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        self._terminals.append(Terminal(process, master))
        return self._terminals[-1]

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Ogent"]:
        try:
            yield self
        finally:
            for process in self._started:
                if process.returncode is None:
                    process.kill()
                await process.wait()
            for terminal in self._terminals:
                terminal.close()


def _take_terminal() -> None:
    """Make stdin the terminal of the new session, so that a typed Ctrl-C is a SIGINT."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def ended(process: asyncio.subprocess.Process, stdin: bytes = b"") -> Ended:
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Ended(process.returncode, out, err.decode(errors="surrogateescape"))
