"""The runner: one loop over pipes, ends of processes, deadlines and the agent's socket.

Part of the runner: nothing here but what Python itself starts with.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import re
import resource
import selectors
import signal
import socket
import time
import traceback

from agent.domain.stopping import Force
from agent.infrastructure.runner import job as jobs
from agent.infrastructure.runner.channel import PROTOCOL, Channel, ChannelBroken, peer_uid
from agent.infrastructure.runner.job import Job, NotStarted, RunningJob
from agent.infrastructure.runner.process_tree import (
    LIMIT_NUMBERS,
    ProcessTree,
    is_alive,
    process_at,
)
from agent.infrastructure.runner.recorder import found_in
from agent.infrastructure.runner.records import (
    FACTS,
    FRAME_MAX_BYTES,
    PROGRESS,
    Damage,
    frame,
    frames_in,
    from_json,
    to_json,
)
from agent.infrastructure.runner.spool_files import SpoolFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

#: News of output are told so long after its first byte, or when so much has come.
GATHER_S: Final = 0.004
GATHER_MAX_BYTES: Final = 64 * 1024
#: That a command was started is told so late, or with what comes before.
STARTED_S: Final = 0.002
#: After this time without an agent and without a command the runner ends.
IDLE_S: Final = 5.0
#: Ids that are remembered as started; the agent's journal remembers as many.
STARTED_MAX: Final = 100_000
#: Open files of the runner, where the hard limit allows: some seven a command.
OPEN_FILES_MAX: Final = 65_536
#: Connections at once: the agent's, and those of people who ask for the status.
CONNECTIONS_MAX: Final = 16
#: Until the agent says otherwise.
SPOOL_DEFAULT_BYTES: Final = 256 * 1024 * 1024
#: Before something that failed for a reason of its own is tried again.
RETRY_S: Final = 1.0
#: How much of an abandoned pipe is thrown away at once, and how often.
_DRAIN_BYTES: Final = 256 * 1024
_DRAIN_PAUSE_S: Final = 0.01

#: What a peer's words can bring about that mean nothing, or are too deep, too large, too few.
_SENSELESS: Final = (
    ChannelBroken,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

SOCKET: Final = "runner.sock"
LEGACY: Final = "ended"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")


class Runner:
    """Owns the commands of one agent. `runner_id` names its memory of what it has started."""

    def __init__(self, spool: str, home: str, boot_id: str) -> None:
        self._spool = spool
        self._home = home
        self._boot_id = boot_id
        own = process_at(os.getpid())
        self._own_start = own.started if own is not None else 0
        self.open_files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, OPEN_FILES_MAX), hard))
        self.null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.runner_id, self._started = self._legacy()
        self._spool_max_bytes = SPOOL_DEFAULT_BYTES
        self.files = SpoolFiles(spool)
        self._jobs: dict[str, Job] = {}
        self._running: dict[str, RunningJob] = {}
        self._is_asked_to_end = False
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, list[Callable[[], None]]]] = []
        self._numbers = itertools.count()
        self._channels: set[Channel] = set()
        self._agent: Channel | None = None
        self._drains = 0
        self._news: dict[str, int] = {}  # commands with untold output, and how much that is
        self._news_due = False
        self._idle_since = time.monotonic()
        self._is_short = False

    # --- its life -------------------------------------------------------------------------

    def serve(self, listening: socket.socket) -> None:
        """Return when no agent is there and nothing runs."""
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ, lambda: self._accept(listening))
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _noticed)
        self.watch(wake_read, lambda: self._reap(wake_read))
        self.later(IDLE_S, self._note_idle)
        while not self._may_end():
            for key, _ in self._selector.select(self._until_due()):
                # An earlier callback of this round may have closed what this one is about.
                if self._selector.get_map().get(key.fd) == key and not _call(key.data):
                    self._put_off(key)
            self._run_due()

    def ask_to_end(self) -> None:
        """End as soon as nothing runs, although an agent is there."""
        self._is_asked_to_end = True

    def hand_down(self) -> None:
        """Leave what the next runner needs in order to go on as this one, and nothing else."""
        self.files.clear()
        started = list(self._started)[-STARTED_MAX:]
        data = frame(to_json({"runner_id": self.runner_id, "started": started}))
        if len(data) > FRAME_MAX_BYTES:
            return
        fresh = f"{self._home}/{LEGACY}.new"
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, f"{self._home}/{LEGACY}")

    def take_over(self) -> None:
        """Find what other runners left: what ended is kept, what still lives is ended."""
        self.files.clear()
        for name, files in _by_command(self._spool).items():
            stem = f"{self._spool}/{name}"
            facts = _facts_in(f"{stem}.{FACTS}")
            if facts is None:  # nothing was started yet
                self.files.remove(f"{stem}.{file}" for file in files)
            else:
                try:
                    self._take_over(name, files, facts)
                except OSError as exc:  # one command's files are not the others' end
                    _log(f"{stem}: what is left of it cannot be taken over: {exc}")

    def _take_over(self, name: str, files: list[str], facts: dict[str, Any]) -> None:
        start, end = facts.get("start", {}), facts.get("end")
        command_id = str(start.get("command_id") or (end or {}).get("command_id") or name)
        stem = f"{self._spool}/{name}"
        recorder = found_in(stem, files, self.files)
        if end is not None:
            job = Job(command_id, stem, recorder)
            job.end = end
            self._jobs[command_id] = job
            return
        tree = ProcessTree(
            _root(facts),
            int(start.get("since", 0)),
            command_id,
            int(start.get("limit_number", 0)),
            root_started=int(facts.get("ticks", 0)),
        )
        left = RunningJob(command_id, jobs.FactsFile(stem, self.files), recorder, tree, self)
        left.started_at_us = int(facts.get("started_at", left.started_at_us))
        self._jobs[command_id] = self._running[command_id] = left
        is_rebooted = start.get("boot_id", self._boot_id) != self._boot_id
        left.clean_up(is_over=is_rebooted or self._is_somebody_elses(start))

    def _is_somebody_elses(self, start: dict[str, Any]) -> bool:
        """Whether the runner that started it lives: then this is a copy of its folder."""
        return is_alive(int(start.get("runner_pid", 0)), int(start.get("runner_started", 0)))

    def _legacy(self) -> tuple[str, dict[str, None]]:
        """The name and memory of the runner before, where it ended in order; used once."""
        path = f"{self._home}/{LEGACY}"
        facts = _facts_in(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            _sync(self._home)  # else a loss of power brings it back, and it is used twice
        if not facts:
            return os.urandom(12).hex(), {}
        return str(facts["runner_id"]), dict.fromkeys(facts["started"])

    def _may_end(self) -> bool:
        if self._running or self._drains:
            self._idle_since = time.monotonic()
            return False
        if self._agent is not None and not self._is_asked_to_end:
            self._idle_since = time.monotonic()
        return self._is_asked_to_end or time.monotonic() - self._idle_since >= IDLE_S

    def _note_idle(self) -> None:
        """Wake the loop, so that it looks whether it may end."""
        self.later(IDLE_S, self._note_idle)

    # --- what jobs need -------------------------------------------------------------------

    def watch(self, file: int | socket.socket, ready: Callable[[], None]) -> None:
        """Call `ready` whenever `file` can be read."""
        self._selector.register(file, selectors.EVENT_READ, ready)

    def unwatch(self, file: int) -> None:
        """Call it no more."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(file)

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Call it after so long; what is returned takes that back."""
        holder = [call]
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), holder))
        return holder.clear

    def may_take(self, job: Job) -> bool:
        """Whether there is room; one of which nothing is held waits for nobody."""
        if not job.recorder.held:
            return True
        return self.files.held < self._spool_max_bytes

    def drain(self, pipe: int) -> None:
        """Throw away what is written to `pipe`, at a bounded rate."""
        self._drains += 1
        self.watch(pipe, lambda: self._drain(pipe))

    def _drain(self, pipe: int) -> None:
        self.unwatch(pipe)
        try:
            has_ended = not os.read(pipe, _DRAIN_BYTES)
        except BlockingIOError:
            has_ended = False
        if has_ended:
            os.close(pipe)
            self._drains -= 1
        else:
            self.later(_DRAIN_PAUSE_S, lambda: self.watch(pipe, lambda: self._drain(pipe)))

    def grown(self, job: Job) -> None:
        """Tell that there is more, soon; at once when it is much."""
        total = sum(job.recorder.kept)
        told = self._news.setdefault(job.command_id, total - 1)
        if total - told >= GATHER_MAX_BYTES:
            self._tell_grown(job.command_id)
        elif not self._news_due:
            self._news_due = True
            self.later(GATHER_S, self._tell_all_grown)

    def _tell_all_grown(self) -> None:
        self._news_due = False
        for command_id in list(self._news):
            self._tell_grown(command_id)

    def _tell_grown(self, command_id: str) -> None:
        self._news.pop(command_id, None)
        job = self._jobs.get(command_id)
        if job is not None and job.is_running:
            self.told(job, {"is": "grown"})

    def told(self, job: Job, facts: dict[str, Any]) -> None:
        """Tell the agent something of a command."""
        if self._agent is not None:
            self._send(self._agent, {**facts, "id": job.command_id})

    def short_of_space(self, job: Job, reason: str) -> None:
        """Say it once until it is over."""
        if not self._is_short:
            self._is_short = True
            _log(f"the disk takes nothing ({reason}): commands wait")
        self.told(job, {"is": "short_of_space", "reason": reason})

    def ended(self, job: Job) -> None:
        """Tell how it ended."""
        self._is_short = False
        self._running.pop(job.command_id, None)
        self._news.pop(job.command_id, None)
        self.told(job, {"is": "ended", "end": job.end})
        self._go_on()

    def _go_on(self) -> None:
        for job in list(self._running.values()):
            job.go_on()

    # --- loop -----------------------------------------------------------------------------

    def _until_due(self) -> float | None:
        while self._timers and not self._timers[0][2]:
            heapq.heappop(self._timers)
        return max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None

    def _run_due(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            for call in list(heapq.heappop(self._timers)[2]):
                _call(call)

    def _put_off(self, key: selectors.SelectorKey) -> None:
        """Try again later what has failed, rather than at once for ever."""
        self.unwatch(key.fd)
        self.later(RETRY_S, lambda: self.watch(key.fd, key.data))

    def _reap(self, wake: int) -> None:
        """Reap orphans that fell to this process; first processes are their jobs' to reap."""
        with contextlib.suppress(BlockingIOError):
            while os.read(wake, 4096):
                pass
        firsts = {job.pid for job in self._running.values()}
        for pid in _children():
            if pid not in firsts:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    # --- the socket -----------------------------------------------------------------------

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError as exc:  # too many files are open: it would be tried again at once
            _log(f"nobody is let in for a while: {exc}")
            self.unwatch(listening.fileno())
            self.later(RETRY_S, lambda: self.watch(listening, lambda: self._accept(listening)))
            return
        if peer_uid(connection) not in (os.geteuid(), 0) or len(self._channels) >= CONNECTIONS_MAX:
            connection.close()
            return
        channel = Channel(connection, lambda wanted: self._watch_channel(channel, wanted))
        self._channels.add(channel)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._on_ready(channel))

    def _watch_channel(self, channel: Channel, wants_to_write: bool) -> None:
        events = 0 if channel.is_behind else selectors.EVENT_READ
        if wants_to_write:
            events |= selectors.EVENT_WRITE
        key = self._selector.get_key(channel.socket)
        if key.events != events:
            self._selector.modify(channel.socket, events, key.data)

    def _on_ready(self, channel: Channel) -> None:
        try:
            channel.write()
            if not channel.is_behind:
                for facts in channel.read():
                    answer = self._answer(channel, facts)
                    if "n" in facts:  # else nobody waits for it
                        self._reply(channel, {"is": "answer", "id": str(facts["n"]), **answer})
        except _SENSELESS as exc:
            self._drop(channel, exc)

    def _send(self, channel: Channel, facts: dict[str, Any]) -> None:
        try:
            channel.send(facts)
        except ChannelBroken as exc:
            self._drop(channel, exc)

    def _drop(self, channel: Channel, why: Exception) -> None:
        if channel not in self._channels:
            return
        self._channels.discard(channel)
        self._selector.unregister(channel.socket)
        channel.socket.close()
        if self._agent is channel:
            self._agent = None
            _log(f"the agent has gone: {why}")

    def _answer(self, channel: Channel, facts: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request; a newer agent may ask for what is not known here."""
        if not isinstance(facts["do"], str):
            raise TypeError("not a word")
        if facts["do"] == "hello":
            self._welcome(channel, facts)
        asked: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "hello": self._status,
            "status": self._status,
            "remembers": self._remembers,
            "start": self._start,
            "stop": self._stop,
            "pause": self._pause,
            "resume": self._resume,
            "release": self._release,
            "forget": self._forget,
            "end": self._end,
        }
        handle = asked.get(facts["do"])
        return handle(facts) if handle is not None else {"code": "unknown"}

    def _reply(self, channel: Channel, answer: dict[str, Any]) -> None:
        """Answer at once; that something was started is told with its end, if that comes soon."""
        if "started_at" not in answer:
            self._send(channel, answer)
            return
        channel.put(answer)
        self.later(STARTED_S, lambda: self._flush(channel))

    def _flush(self, channel: Channel) -> None:
        try:
            if channel in self._channels:
                channel.write()
        except ChannelBroken as exc:
            self._drop(channel, exc)

    def _welcome(self, channel: Channel, facts: dict[str, Any]) -> None:
        """The agent is here; it takes everything over from now on."""
        if self._agent is not None and self._agent is not channel:
            self._drop(self._agent, ChannelBroken("another agent has come"))
        self._agent = channel
        self._spool_max_bytes = int(facts["spool_max_bytes"])
        self._go_on()

    def _status(self, _facts: dict[str, Any]) -> dict[str, Any]:
        return {
            "v": PROTOCOL,
            "runner_id": self.runner_id,
            "pid": os.getpid(),
            "jobs": [job.facts() for job in self._jobs.values()],
        }

    def _start(self, facts: dict[str, Any]) -> dict[str, Any]:
        command_id, name = str(facts["id"]), str(facts["name"])
        stem = f"{self._spool}/{name}"
        if not _NAME.fullmatch(name):
            raise ValueError("not the beginning of a file's name")
        if (
            command_id in self._jobs
            or command_id in self._started
            or os.path.exists(f"{stem}.{FACTS}")
        ):
            return {"code": "started_before", "message": "it was started before"}
        self._remember(command_id)
        try:
            job = jobs.start(facts, stem, self._origin(), self)
        except NotStarted as exc:
            self.files.empty([f"{stem}.{FACTS}"])
            if isinstance(exc, jobs.NoRoom):  # nothing was tried: it may be, later
                del self._started[command_id]
            return {"code": exc.code, "message": str(exc)}
        if job.is_running:
            self._running[command_id] = job
        self._jobs[command_id] = job
        return {"pid": job.pid, "started_at": job.started_at_us}

    def _remembers(self, facts: dict[str, Any]) -> dict[str, Any]:
        return {"has_started": facts["id"] in self._started}

    def _origin(self) -> dict[str, Any]:
        return {
            "runner_id": self.runner_id,
            "runner_pid": os.getpid(),
            "runner_started": self._own_start,
            "since": max(_ticks_now(), self._own_start),
            "boot_id": self._boot_id,
            "limit_number": _limit_number(),
        }

    def _remember(self, command_id: str) -> None:
        self._started[command_id] = None
        if len(self._started) >= 2 * STARTED_MAX:  # seldom, and then many
            self._started = dict.fromkeys(list(self._started)[-STARTED_MAX:])

    def _stop(self, facts: dict[str, Any]) -> dict[str, Any]:
        job = self._running.get(facts["id"])
        if job is not None:
            job.stop(facts["as"], Force(facts["force"]), facts.get("failure"))
        return {}

    def _pause(self, facts: dict[str, Any]) -> dict[str, Any]:
        job = self._running.get(facts["id"])
        return {"has_happened": job is not None and job.pause()}

    def _resume(self, facts: dict[str, Any]) -> dict[str, Any]:
        job = self._running.get(facts["id"])
        return {"has_happened": job is not None and job.resume()}

    def _release(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The controller has what lies before these places."""
        job = self._jobs.get(facts["id"])
        if job is not None:
            unlink = (int(facts["unneeded"][0]), int(facts["unneeded"][1]))
            job.recorder.release(*facts["stored"], unlink=unlink)
            self._go_on()
        return {}

    def _end(self, _facts: dict[str, Any]) -> dict[str, Any]:
        """End as soon as nothing is left to do, without waiting for another agent.

        Pipes of commands that have ended, and that their children still hold, are drained first.
        """
        self.ask_to_end()
        return {"left": len(self._running) + self._drains}

    def _forget(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Nothing of it is needed any more; one that still runs stays."""
        job = self._jobs.get(facts["id"])
        if job is not None and not job.is_running:
            del self._jobs[facts["id"]]
            job.recorder.forget()
            self.files.empty([f"{job.stem}.{FACTS}"])
            self.files.remove([f"{job.stem}.{PROGRESS}"])
            self._go_on()
        return {}


def _call(call: Callable[[], None]) -> bool:
    """Whether it went well; one command's bug is not another's end."""
    try:
        call()
    except Exception:  # the supervisor of a loop
        _log(traceback.format_exc())
        return False
    return True


def _facts_in(path: str) -> dict[str, Any] | None:
    """All whole facts in a file, later ones over earlier ones; None for a file without contents."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:  # what cannot be read now is no reason to remove it
        _log(f"{path} cannot be read: {exc}")
        return {}
    facts: dict[str, Any] = {}
    for part in frames_in(data):
        if isinstance(part, Damage):
            _log(f"{path} is damaged: {len(part.raw)} bytes at {part.offset}")
        else:
            facts |= from_json(part)
    return facts if data else None


def _by_command(spool: str) -> dict[str, list[str]]:
    """The files of a spool: what follows on the first dot of their names, by what stands before."""
    found: dict[str, list[str]] = {}
    for file in sorted(os.listdir(spool)):
        name, dot, rest = file.partition(".")
        if dot and _NAME.fullmatch(name):
            found.setdefault(name, []).append(rest)
    return found


def _sync(folder: str) -> None:
    """Make durable which files a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ticks_now() -> int:
    """When a process that starts now says that it started, by the clock of /proc; never later."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")) - 1


def _limit_number() -> int:
    """A number that no other command has."""
    low, high = LIMIT_NUMBERS
    return low + int.from_bytes(os.urandom(8), "big") % (high - low)


def _root(facts: dict[str, Any]) -> int:
    """The first process, where the number is still its own; else 0, and the marks find the rest."""
    pid = int(facts.get("pid", 0))
    return pid if is_alive(pid, int(facts.get("ticks", 0))) else 0


def _children() -> list[int]:
    """The children of this process."""
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a kernel without that list
        return []


def _log(text: str) -> None:
    """Say it where there is room: the log lies on the disk that may be full."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):
        os.write(2, f"{stamp} {text}\n".encode("utf-8", "backslashreplace"))


def _noticed(_number: int, _frame: object) -> None:
    """The wake-up descriptor tells the loop. Ignored signals would be so in every command, too."""
