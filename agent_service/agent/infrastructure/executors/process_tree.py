"""The processes of a command, found in /proc: children, session, and the mark they carry."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.domain.models.executor import Survivors

#: Set in the environment of every command; who left its session and its parent is known by it.
MARK: Final = "OGENT_COMMAND_ID"

_PROC: Final = Path("/proc")
_ENDED: Final = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class _Process:
    """A line of /proc/PID/stat; `started` tells two processes of the same number apart."""

    pid: int
    status: str
    parent: int
    session: int
    started: int


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """All processes below `root`, in its session, or with the mark `mark`.

    `root` must not have been reaped, so that its number cannot belong to somebody else.
    """

    root: int
    mark: str

    def signal(self, number: int) -> Survivors:
        """Send `number` to all that live, 0 to only look; who lived, and who may not be reached."""
        members = self._members()
        denied = [member.pid for member in members if not _send(member, number)]
        return Survivors(tuple(member.pid for member in members), tuple(denied))

    def _members(self) -> list[_Process]:
        processes = {process.pid: process for process in _processes()}
        found = {pid for pid, process in processes.items() if self._is_own(process)}
        children: dict[int, list[int]] = {}
        for process in processes.values():
            children.setdefault(process.parent, []).append(process.pid)
        waiting = list(found)
        while waiting:
            new = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
            found.update(new)
            waiting += new
        return [processes[pid] for pid in found if processes[pid].status not in _ENDED]

    def _is_own(self, process: _Process) -> bool:
        if process.pid == os.getpid():
            return False
        if self.root in (process.pid, process.session):
            return True
        return process.status not in _ENDED and _carries(process.pid, self.mark)


def _processes() -> Iterator[_Process]:
    with os.scandir(_PROC) as entries:
        numbers = [int(entry.name) for entry in entries if entry.name.isdigit()]
    for pid in numbers:
        if (process := _read(pid)) is not None:
            yield process


def _read(pid: int) -> _Process | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:  # it has ended
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return _Process(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def _carries(pid: int, mark: str) -> bool:
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # it has ended, or is not ours to read
        return False
    return f"{MARK}={mark}".encode() in environment.split(b"\0")


def _send(process: _Process, number: int) -> bool:
    """Whether `process` may be signalled; one that has ended meanwhile may."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return True
    try:
        again = _read(process.pid)
        if again is None or again.started != process.started:
            return True  # its number already belongs to another
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
    except PermissionError:
        return False
    finally:
        os.close(handle)
    return True
