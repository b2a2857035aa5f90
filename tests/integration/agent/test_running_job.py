"""One command of the runner, over a real process and a loop that is turned by hand."""

import errno
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.infrastructure.runner import job as jobs
from agent.infrastructure.runner.job import Job, RunningJob
from agent.infrastructure.runner.spool_files import SpoolFiles

#: For a process to write its first line, on a machine that is busy.
WAIT_MS = 20_000


class FullDisk(SpoolFiles):
    """A disk with room for facts and for nothing that a command writes."""

    def open(self, path: str, flags: int) -> int:
        if "stdout" in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().open(path, flags)


class HandTurnedLoop:
    """What a job needs of the runner; `timers` are those that nobody took back."""

    open_files = 1024

    def __init__(self, files: SpoolFiles) -> None:
        self.files = files
        self.null = os.open(os.devnull, os.O_WRONLY)
        self.watched: dict[int, Callable[[], None]] = {}
        self.timers: list[Callable[[], None]] = []

    def watch(self, file: int, ready: Callable[[], None]) -> None:
        self.watched[file] = ready

    def unwatch(self, file: int) -> None:
        self.watched.pop(file, None)

    def drain(self, pipe: int) -> None:
        os.close(pipe)

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            call()

        self.timers.append(run)
        return lambda: self.timers.remove(run) if run in self.timers else None

    def may_take(self, job: Job) -> bool:
        return True

    def grown(self, job: Job) -> None:
        pass

    def told(self, job: Job, facts: dict[str, Any]) -> None:
        pass

    def short_of_space(self, job: Job, reason: str) -> None:
        pass

    def ended(self, job: Job) -> None:
        pass

    def turn(self) -> None:
        """Wait until something can be read, and call who waits for that."""
        asked = select.poll()
        for file in self.watched:
            asked.register(file, select.POLLIN)
        ready = asked.poll(WAIT_MS)
        assert ready
        for file, _ in ready:
            if file in self.watched:
                self.watched[file]()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[HandTurnedLoop]:
    loop = HandTurnedLoop(FullDisk(str(tmp_path)))
    yield loop
    os.close(loop.null)


@pytest.fixture
def loud(tmp_path: Path, loop: HandTurnedLoop) -> Iterator[RunningJob]:
    """A command that has written, and goes on."""
    wanted = {
        "id": "c",
        "command": "echo more; exec sleep 1000",
        "cwd": "/",
        "env": {"PATH": os.defpath},
        "account": None,
        "stdin": None,
        "timeout_s": None,
        "max_output_bytes": 1000,
    }
    origin = {"since": 0, "limit_number": 4_000_000_000}
    job = jobs.start(wanted, f"{tmp_path}/c", origin, loop)
    yield job
    os.kill(job.pid, 9)
    os.waitpid(job.pid, 0)
    for file in loop.watched:
        os.close(file)


def test_a_full_disk_is_tried_again_once_in_a_while_however_often_there_seemed_to_be_room(
    loop: HandTurnedLoop, loud: RunningJob
) -> None:
    loop.turn()
    for _ in range(5):
        loud.go_on()
        loop.turn()
    assert len(loop.timers) == 1
    (again,) = loop.timers
    again()
    assert len(loop.watched) == 3  # both pipes, and the process
