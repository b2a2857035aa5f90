"""The processes of a command, found in /proc: children, session, and the marks they carry.

Part of the runner: nothing here but what Python itself starts with.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal

from agent.domain.stopping import Impulse, Survivors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

#: Set in the environment of every command; who left its session and its parent is known by it.
MARK: Final = "OGENT_COMMAND_ID"
#: The limit that carries a command's number. It concerns processes of a real-time scheduling
#: class alone, in microseconds of one burst, and every number that is used is many thousand years.
LIMIT: Final = resource.RLIMIT_RTTIME
LIMIT_NUMBERS: Final = (1 << 61, 1 << 62)

SIGNALS: Final[Mapping[Impulse, int]] = {
    Impulse.TERMINATE: signal.SIGTERM,
    Impulse.KILL: signal.SIGKILL,
    Impulse.PAUSE: signal.SIGSTOP,
    Impulse.CONTINUE: signal.SIGCONT,
    Impulse.PROBE: 0,
}
#: How often one look goes on with those who were born during it.
_ROUNDS_MAX: Final = 16
#: The status of a process that has ended, and was or was not reaped.
ENDED: Final = frozenset("ZXx")


class Process:
    """A line of /proc/PID/stat; `started` tells two processes of the same number apart."""

    __slots__ = ("parent", "pid", "session", "started", "status")

    def __init__(self, pid: int, stat: bytes) -> None:
        fields = stat[stat.rindex(b")") + 2 :].split()
        self.pid = pid
        self.status = fields[0].decode()
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.started = int(fields[19])


class ProcessTree:
    """All processes below `root`, in its session, or with the command's marks.

    `since` is when the first of them started, in the clock ticks of /proc: nothing older belongs
    to it. Where `root` or `limit_number` is 0, it is not known and nothing is found by it.
    """

    def __init__(
        self, root: int, since: int, command_id: str, limit_number: int, *, root_started: int = 0
    ) -> None:
        self.root = root
        self._root_started = root_started
        self._since = since
        self._mark = f"{MARK}={command_id}".encode()
        self._limit = b" %d " % limit_number if limit_number else None

    def signal(self, impulse: Impulse) -> Survivors:
        """Send `impulse` to all that live; who lived, and who may not be reached.

        Who is to be killed is stopped first: one that stands still has no more children.
        """
        if impulse is Impulse.KILL:
            stopped = self._sweep(signal.SIGSTOP)
            if not stopped.pids:
                return stopped
        alive = self._sweep(SIGNALS[impulse])
        while impulse is Impulse.PAUSE:  # until nobody was born of one that still ran
            before, alive = alive, self._sweep(signal.SIGSTOP)
            if set(alive.pids) <= set(before.pids):
                break
        return alive

    def _sweep(self, number: int) -> Survivors:
        """Look through all processes again and again until nobody is new.

        Who is born while the others are looked at, of one that ends before its turn comes, would
        be seen by no single look.
        """
        self._check_root()
        seen: dict[int, Process | None] = {os.getpid(): None}
        found: set[int] = set()
        alive: list[int] = []
        denied: list[int] = []
        for _ in range(_ROUNDS_MAX):
            fresh = [pid for pid in _numbers() if pid not in seen]
            if not fresh:
                break
            for member in self._members(fresh, seen, found):
                alive.append(member.pid)
                if not _send(member, number):
                    denied.append(member.pid)
        return Survivors(alive, denied)

    def _check_root(self) -> None:
        """Go by the first process's number only while nobody else can have it.

        It is its own as long as the process is there, also unreaped, or anybody of its session.
        """
        if not self.root:
            return
        process = process_at(self.root)
        if process is not None:
            is_own = process.started == self._root_started
        else:
            is_own = any(_session_of(pid) == self.root for pid in _numbers())
        if not is_own:
            self.root = 0

    def _members(
        self, fresh: Sequence[int], seen: dict[int, Process | None], found: set[int]
    ) -> list[Process]:
        """Who lives of the tree among `fresh`, or is found to belong to it by them."""
        for pid in fresh:
            process = process_at(pid)
            seen[pid] = process if process and process.started >= self._since else None
        processes = {pid: process for pid, process in seen.items() if process is not None}
        new = {pid for pid in fresh if pid in processes and self._is_own(processes[pid])}
        children: dict[int, list[int]] = {}
        for process in processes.values():
            children.setdefault(process.parent, []).append(process.pid)
        waiting = [*new, *found]
        while waiting:
            below = [pid for pid in children.get(waiting.pop(), ()) if pid not in new | found]
            new.update(below)
            waiting += below
        found |= new
        return [processes[pid] for pid in new if processes[pid].status not in ENDED]

    def _is_own(self, process: Process) -> bool:
        if self.root and self.root in (process.pid, process.session):
            return True
        if process.status in ENDED:
            return False
        if self._limit is not None and self._limit in _contents(process.pid, "limits"):
            return True
        return self._mark in _contents(process.pid, "environ").split(b"\0")


def process_at(pid: int) -> Process | None:
    """The process of that number, which may have ended and wait to be reaped; None without one."""
    stat = _contents(pid, "stat")
    return Process(pid, stat) if stat else None


def is_alive(pid: int, started: int) -> bool:
    """Whether the process of that number that began at `started` has not ended."""
    process = process_at(pid)
    return process is not None and process.started == started and process.status not in ENDED


def _session_of(pid: int) -> int:
    process = process_at(pid)
    return process.session if process is not None else 0


def _numbers() -> list[int]:
    """The numbers of all processes."""
    with os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdigit()]


def _contents(pid: int, name: str) -> bytes:
    """A file of /proc/PID; empty where the process has ended, or it is not ours to read."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _send(process: Process, number: int) -> bool:
    """Whether `process` may be signalled; one that has ended meanwhile may."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return True
    try:
        again = process_at(process.pid)
        if again is None or again.started != process.started:
            return True  # its number already belongs to another
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
    except PermissionError:
        return False
    finally:
        os.close(handle)
    return True
