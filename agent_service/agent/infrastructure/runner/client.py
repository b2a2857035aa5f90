"""The agent's end of the runner's socket; starts a runner where there is none."""

import asyncio
import contextlib
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from agent.domain.errors import AgentError
from agent.domain.ids import CommandId
from agent.domain.models.output import Counts
from agent.infrastructure.runner.channel import EXIT_HELD, LENGTH, PROTOCOL, packed
from agent.infrastructure.runner.records import FRAME_MAX_BYTES, from_json
from agent.infrastructure.runner.server import SOCKET
from agent.infrastructure.storage.file_spool import file_stem
from agent.infrastructure.storage.identity import FOLDER_MODE

log = logging.getLogger(__name__)

#: For a new runner to listen, and for one that listens to answer.
START_TIMEOUT_S: Final = 15.0
ANSWER_TIMEOUT_S: Final = 15.0
#: For a runner that was told to end, and has nothing to do.
END_TIMEOUT_S: Final = 15.0
#: Between two tries to have a runner.
RETRY_S: Final = 0.5
#: A log that has grown beyond this begins anew with the next runner.
LOG_MAX_BYTES: Final = 1024 * 1024
_MAIN: Final = Path(__file__).with_name("main.py")

Facts = dict[str, Any]


class RunnerGone(AgentError):
    """The runner died, or does not answer."""

    code = "runner_gone"


class JobListener(Protocol):
    """Who wants to hear of one command."""

    def ended(self, end: Facts) -> None:
        """It has ended; the runner has written that down."""
        ...

    def stop_failed(self, failure: Facts) -> None:
        """Its tree has outlived being killed."""
        ...

    def vanished(self) -> bool:
        """A new runner is here and has nothing of it; False where it was not started yet."""
        ...


class RunnerClient:
    """Speaks with the runner of a data folder; a dead one is replaced.

    `grown` is called with the id of every command whose output has grown.
    """

    def __init__(
        self, data_dir: Path, *, spool_max_bytes: int, grown: Callable[[CommandId], None]
    ) -> None:
        self._data_dir = data_dir
        self._spool_max_bytes = spool_max_bytes
        self._grown = grown
        self._listeners: dict[CommandId, JobListener] = {}
        self._link: _Link | None = None
        self._is_ready = asyncio.Event()
        self._is_wanted = True
        self._child: int | None = None
        self._is_short = False
        self._to_forget: set[CommandId] = set()
        #: The newest that was said of each command's output, for a runner that did not hear it.
        self._released: dict[CommandId, Facts] = {}
        self.runner_id = ""
        #: What the runner had when this agent came to it, by what its files' names begin with.
        self.found: dict[str, Facts] = {}

    async def keep(self) -> None:
        """Have a runner, again and again, until cancelled or told to `end` it."""
        while self._is_wanted:
            try:
                await self._serve()
            except (RunnerGone, OSError, TimeoutError) as exc:
                if not self._is_wanted:
                    return
                log.error("the runner is not there: %s", exc)
            except Exception:  # the supervisor of a loop, without which nobody has a runner
                log.exception("the runner says what is not understood")
            await asyncio.sleep(RETRY_S)

    async def ready(self) -> None:
        """Return once there is a runner."""
        await self._is_ready.wait()

    async def request(self, do: str, **facts: Any) -> Facts:
        """The runner's answer; raises RunnerGone where it may or may not have heard."""
        await self.ready()
        if self._link is None:
            raise RunnerGone("the runner has just gone")
        return await self._link.request({"do": do, **facts})

    async def end(self) -> None:
        """Have the runner end; returns when it is gone, or still has something to do first."""
        link = self._link
        self._is_wanted = False
        if link is None or (await link.request({"do": "end"})).get("left"):
            return
        async with asyncio.timeout(END_TIMEOUT_S):
            await link.closed.wait()

    def listen(self, command_id: CommandId, listener: JobListener) -> None:
        """Tell `listener` what happens to the command until it has ended."""
        self._listeners[command_id] = listener

    def listen_no_more(self, command_id: CommandId) -> None:
        """Tell nobody any more what happens to the command."""
        self._listeners.pop(command_id, None)

    def release(self, command_id: CommandId, stored: Counts, unneeded: Counts) -> None:
        """The controller has what lies before `stored`; nobody reads before `unneeded` again."""
        places = {
            "stored": [stored.stdout, stored.stderr],
            "unneeded": [unneeded.stdout, unneeded.stderr],
        }
        self._released[command_id] = places
        self._tell("release", command_id, places)

    def forget(self, command_id: CommandId) -> None:
        """Nothing of the command is needed any more."""
        self._listeners.pop(command_id, None)
        self._released.pop(command_id, None)
        self.found.pop(file_stem(command_id), None)
        if not self._tell("forget", command_id, {}):
            self._to_forget.add(command_id)

    def _tell(self, do: str, command_id: CommandId, facts: Facts) -> bool:
        """Say it, if there is a runner to hear it."""
        if self._link is None or self._link.closed.is_set():
            return False
        self._link.tell({"do": do, "id": command_id, **facts})
        return True

    async def _serve(self) -> None:
        """From one runner's first answer to its end."""
        async with self._connected() as link:
            hello = {"do": "hello", "v": PROTOCOL, "spool_max_bytes": self._spool_max_bytes}
            here = await link.request(hello)
            if here["v"] != PROTOCOL:
                raise RunnerGone(
                    f"the runner (pid {here['pid']}) is of another version, {here['v']}: it ends "
                    "when its commands have; that version's `ogent-agent --stop-commands` ends them"
                )
            self.runner_id = str(here["runner_id"])
            self.found = {str(job["name"]): job for job in here["jobs"]}
            log.info("the runner %s (pid %s) is here", self.runner_id, here["pid"])
            self._link = link
            self._catch_up()
            self._is_ready.set()
            try:
                await link.closed.wait()
            finally:
                self._part()
        raise RunnerGone("the connection to it has ended")

    def _catch_up(self) -> None:
        """Tell those who listen what the runner that is here knows of their commands."""
        waiting, self._to_forget = self._to_forget, set()
        for command_id in waiting:
            self.forget(command_id)
        for command_id, places in self._released.items():
            self._tell("release", command_id, places)
        by_id = {str(job["id"]): job for job in self.found.values()}
        for command_id, listener in list(self._listeners.items()):
            job = by_id.get(command_id)
            if job is None:
                if listener.vanished():
                    self._listeners.pop(command_id, None)
            elif job["end"] is not None:
                self._ended(command_id, job["end"])

    def _ended(self, command_id: CommandId, end: Facts) -> None:
        self._is_short = False
        if job := self.found.get(file_stem(command_id)):
            job["end"] = end  # for who takes it over later than now
        listener = self._listeners.pop(command_id, None)
        if listener is not None:
            listener.ended(end)

    def _part(self) -> None:
        """The runner is gone: from now on everybody waits for the next."""
        self._is_ready.clear()
        self._link = None

    def _hear(self, news: Facts) -> None:
        command_id = CommandId(news["id"])
        if news["is"] == "grown":
            self._is_short = False
            self._grown(command_id)
        elif news["is"] == "ended":
            self._ended(command_id, news["end"])
        elif news["is"] == "stop_failed" and command_id in self._listeners:
            self._listeners[command_id].stop_failed(news["failure"])
        elif news["is"] == "short_of_space" and not self._is_short:
            self._is_short = True
            log.error(
                "the disk of %s takes no output (%s): commands wait until there is room",
                self._data_dir,
                news["reason"],
            )

    # --- having a runner ------------------------------------------------------------------

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator["_Link"]:
        try:
            link = await self._connect()
        except (FileNotFoundError, ConnectionRefusedError):
            await self._launch()
            link = await self._connect()
        try:
            yield link
        finally:
            link.close()

    async def _connect(self) -> "_Link":
        with _short_path(self._data_dir / "runner") as folder:
            _, link = await asyncio.get_running_loop().create_unix_connection(
                lambda: _Link(self._hear, self._part), f"{folder}/{SOCKET}"
            )
        return link

    async def _launch(self) -> None:
        """Start a runner and wait until it listens; raises RunnerGone."""
        self._reap()
        process = await asyncio.to_thread(self._spawn)
        assert process.stdout is not None  # noqa: S101 - as it was asked for
        with process.stdout as said:
            async with asyncio.timeout(START_TIMEOUT_S):
                await _readable(said.fileno())
            has_begun = bool(os.read(said.fileno(), 64))
        if not has_begun:
            status = await asyncio.to_thread(process.wait)
            if status != EXIT_HELD:  # then another one is there, and may be reached in a moment
                raise RunnerGone(f"it ended at once, with status {status}: see runner/runner.log")
            return
        self._child = process.pid
        process.returncode = 0  # it outlives this object, which is not to complain of that

    def _spawn(self) -> "subprocess.Popen[bytes]":
        home = self._data_dir / "runner"
        for folder in (home, self._data_dir / "spool"):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        path = home / "runner.log"
        is_long = path.exists() and path.stat().st_size > LOG_MAX_BYTES
        with path.open("wb" if is_long else "ab") as said:
            return subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", str(_MAIN), str(self._data_dir.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env={},
                cwd="/",
                start_new_session=True,
            )

    def _reap(self) -> None:
        """Let a runner that has died go, where it is this process's child."""
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, os.WNOHANG)
            self._child = None


class _Link(asyncio.Protocol):
    """One connection: answers find those who asked, everything else is news."""

    def __init__(self, hear: Callable[[Facts], None], part: Callable[[], None]) -> None:
        self.closed = asyncio.Event()
        self._hear = hear
        self._part = part
        self._numbers = itertools.count()
        self._asked: dict[str, asyncio.Future[Facts]] = {}
        self._in = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = transport  # type: ignore[assignment]  # a stream's is one

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over: nobody waits any longer."""
        del exc
        self.closed.set()
        self._part()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(RunnerGone("the runner has gone"))

    def data_received(self, data: bytes) -> None:
        """Take the frames that have come whole."""
        self._in += data
        while len(self._in) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._in)
            end = LENGTH.size + length
            if length > FRAME_MAX_BYTES:
                log.error("the runner sends a frame of %d bytes: the connection ends", length)
                self.close()
                return
            if len(self._in) < end:
                return
            facts = from_json(bytes(self._in[LENGTH.size : end]))
            del self._in[:end]
            self._take(facts)

    def _take(self, facts: Facts) -> None:
        if facts["is"] != "answer":
            self._hear(facts)
            return
        future = self._asked.pop(facts["id"], None)
        if future is not None and not future.done():
            future.set_result(facts)

    async def request(self, facts: Facts) -> Facts:
        """The answer; raises RunnerGone."""
        number = str(next(self._numbers))
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._send({**facts, "n": number})
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer: Facts = await future
        except TimeoutError as exc:
            self.close()
            raise RunnerGone("the runner does not answer") from exc
        finally:
            self._asked.pop(number, None)
        return answer

    def tell(self, facts: Facts) -> None:
        """Send without waiting for the answer."""
        self._send(facts)

    def _send(self, facts: Facts) -> None:
        if self._transport is None or self.closed.is_set():
            raise RunnerGone("the runner has gone")
        self._transport.write(packed(facts))

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()


async def _readable(descriptor: int) -> None:
    """Return when something can be read, or its writer is gone."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """A path to `folder` that fits into a socket's address, however deep it lies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
