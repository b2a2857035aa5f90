"""One command under way: its first process, its pipes, its deadline, and its stop.

Part of the runner: nothing here but what Python itself starts with.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import time

from agent.domain.stopping import Force, Impulse, TreeStop
from agent.infrastructure.runner.process_tree import LIMIT, MARK, ProcessTree, process_at
from agent.infrastructure.runner.recorder import Recorder, bytes_in, pipe_for_output
from agent.infrastructure.runner.records import FACTS, frame, to_json
from agent.infrastructure.runner.spool_files import SpoolFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, Protocol

    class Loop(Protocol):
        """What a job needs of the runner that owns it; `null` takes what is only counted."""

        null: int
        #: The soft limit of open files that a command starts with.
        open_files: int
        files: SpoolFiles

        def watch(self, file: int, ready: Callable[[], None]) -> None:
            """Call `ready` whenever `file` can be read."""

        def unwatch(self, file: int) -> None:
            """Call it no more; nothing happens where it is not watched."""

        def drain(self, pipe: int) -> None:
            """Throw away what is written to `pipe`, until its end, and close it."""

        def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
            """Call it after so long; what is returned takes that back."""

        def may_take(self, job: Job) -> bool:
            """Whether the spool has room for more of the job's output."""

        def grown(self, job: Job) -> None:
            """Tell that its output has grown."""

        def told(self, job: Job, facts: dict[str, Any]) -> None:
            """Tell something of it at once."""

        def short_of_space(self, job: Job, reason: str) -> None:
            """Say that the disk does not take its output, or its end."""

        def ended(self, job: Job) -> None:
            """It has ended, and that is written down."""


SHELL: Final = "/bin/sh"
#: How long pipes that children still hold are read after the first process has ended.
CHILDREN_READ_S: Final = 1.0
#: Processes that are named of a tree that outlives being killed.
PIDS_MAX: Final = 1024
#: Between two tries to write to a disk that is full.
DISK_RETRY_S: Final = 1.0
#: What is taken from a pipe each time it can be read, so that other commands get their turn.
TURN_BYTES: Final = 256 * 1024
#: Failures of a write that may be over in a while: no room, or too many open files.
_SPACE: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE}
)


class NotStarted(Exception):
    """No process could be made; the message says why."""

    #: What the agent is told.
    code = "spawn_failed"


class NoRoom(NotStarted):
    """The disk does not take what has to be written down before the start; it may later."""

    code = "no_room"


class Job:
    """One command. `facts` says where it stands; `end` holds its end once that is written."""

    def __init__(self, command_id: str, stem: str, recorder: Recorder) -> None:
        self.command_id = command_id
        self.stem = stem
        self.recorder = recorder
        self.end: dict[str, Any] | None = None

    @property
    def is_running(self) -> bool:
        """Whether anything of it is still under way."""
        return self.end is None

    def facts(self) -> dict[str, Any]:
        """Where it stands, for whoever takes it over."""
        return {
            "id": self.command_id,
            "name": self.stem.rsplit("/", 1)[-1],
            "state": "ended" if self.end is not None else "running",
            "stdout": self.recorder.kept[0],
            "stderr": self.recorder.kept[1],
            "released": list(self.recorder.released),
            "end": self.end,
        }


class RunningJob(Job):
    """A command whose processes are this runner's, or were left by one that died.

    It ends once its first process has ended, its pipes are empty, and, where it is being stopped,
    nothing of its tree is left.
    """

    def __init__(
        self,
        command_id: str,
        facts: FactsFile,
        recorder: Recorder,
        tree: ProcessTree,
        loop: Loop,
    ) -> None:
        super().__init__(command_id, facts.stem, recorder)
        self._facts = facts
        self.started_at_us = time.time_ns() // 1000
        self.pid = tree.root
        self._tree = tree
        self._loop = loop
        self._pipes: dict[int, int] = {}
        self._left: dict[int, int] | None = None  # once abandoned: bytes still to be read
        self._held_back = False
        self._handle = -1
        self._exit: dict[str, Any] | None = None
        self._stop: TreeStop | None = None
        self._ended_as: str | None = None
        self._failure: dict[str, Any] | None = None
        self._stop_failure: dict[str, Any] | None = None
        self._is_paused = False
        self._cancel_deadline: Callable[[], None] = _nothing
        self._cancel_look: Callable[[], None] = _nothing
        self._cancel_retry: Callable[[], None] = _nothing

    def facts(self) -> dict[str, Any]:
        """Where it stands."""
        state = "paused" if self._is_paused else "running"
        more = {
            "pid": self.pid,
            "started_at": self.started_at_us,
            "stop_failure": self._stop_failure,
        }
        return super().facts() | more | ({} if self.end is not None else {"state": state})

    # --- what may be asked ----------------------------------------------------------------

    def stop(self, ended_as: str, force: Force, failure: dict[str, Any] | None) -> None:
        """End the whole tree; the first reason counts, any may hurry.

        Nothing happens once the first process has ended by itself.
        """
        if self._exit is not None and self._stop is None:
            return
        if self._stop is not None:
            self._stop.insist(force)
        else:
            self._ended_as, self._failure = ended_as, failure
            self._stop = TreeStop(force, now=time.monotonic())
        self._cancel_look()
        self._look()

    def pause(self) -> bool:
        """Stop the tree's clock; False where it is being stopped, or has ended."""
        return self._shift(Impulse.PAUSE, is_paused=True)

    def resume(self) -> bool:
        """Let a paused tree go on; False where it is being stopped, or has ended."""
        return self._shift(Impulse.CONTINUE, is_paused=False)

    def go_on(self) -> None:
        """There is room again."""
        if self._held_back:
            self._held_back = False
            for pipe in self._pipes:
                self._watch(pipe)

    # --- its life -------------------------------------------------------------------------

    def begin(self, pipes: Sequence[int], timeout_s: float | None) -> None:
        """Follow the process that was started."""
        try:
            self._handle = os.pidfd_open(self.pid)
        except OSError:  # too many files are open: what cannot be followed must not run
            self._tree.signal(Impulse.KILL)
            os.waitpid(self.pid, 0)
            raise
        self._loop.watch(self._handle, self._on_exit)
        for stream, pipe in enumerate(pipes):
            self._pipes[pipe] = stream
            self._watch(pipe)
        if timeout_s is not None:
            failure = {
                "code": "timed_out",
                "message": f"the command was stopped after its timeout of {timeout_s:g} s",
            }
            self._cancel_deadline = self._loop.later(
                timeout_s, lambda: self.stop("timed_out", Force.ASK, failure)
            )

    def clean_up(self, *, is_over: bool) -> None:
        """Kill what a dead runner left of it; then it is lost. `is_over`: nothing can be left."""
        self._exit = {}
        self._stop = TreeStop(Force.KILL, now=time.monotonic())
        self._stop.is_gone = is_over
        self._ended_as = "lost"
        self._failure = runner_died()
        if is_over:
            self._settle()
        else:
            self._look()

    def _watch(self, pipe: int) -> None:
        self._loop.watch(pipe, lambda: self._on_readable(pipe))

    def _on_readable(self, pipe: int) -> None:
        if not self._loop.may_take(self):
            self._held_back = True
            for other in self._pipes:
                self._loop.unwatch(other)
            return
        most = TURN_BYTES if self._left is None else min(TURN_BYTES, self._left[pipe])
        try:
            moved = self.recorder.take(self._pipes[pipe], pipe, most)
        except BlockingIOError:
            return
        except OSError as exc:
            self._wait_for_space(exc)
            return
        if not moved:
            self._close(pipe)
            return
        self._loop.grown(self)
        if self._left is not None:
            self._left[pipe] -= moved
            if self._left[pipe] <= 0:
                self._give_away(pipe)

    def _wait_for_space(self, exc: OSError) -> None:
        """Take nothing from the pipes for a while: the command waits, and loses nothing."""
        if exc.errno not in _SPACE:
            raise exc
        self._loop.short_of_space(self, exc.strerror or str(exc))
        self._held_back = True
        for pipe in self._pipes:
            self._loop.unwatch(pipe)
        self._retry(self.go_on)

    def _retry(self, what: Callable[[], None]) -> None:
        """Do it in a while, once, however often it is tried until then."""
        self._cancel_retry()
        self._cancel_retry = self._loop.later(DISK_RETRY_S, what)

    def _on_exit(self) -> None:
        self._loop.unwatch(self._handle)
        self._cancel_deadline()
        self._exit = _exit_of(self.pid)
        self._loop.later(CHILDREN_READ_S, self._abandon)
        self._settle()

    def _abandon(self) -> None:
        """Read what is in the pipes now, and nothing that children write later."""
        if self._stop is not None and not self._stop.is_gone:  # who is dying may still speak
            self._loop.later(CHILDREN_READ_S, self._abandon)
            return
        self._left = {pipe: bytes_in(pipe) for pipe in self._pipes}
        for pipe in [pipe for pipe, left in self._left.items() if not left]:
            self._give_away(pipe)

    def _give_away(self, pipe: int) -> None:
        self._loop.unwatch(pipe)
        del self._pipes[pipe]
        self._loop.drain(pipe)
        self._settle()

    def _close(self, pipe: int) -> None:
        self._loop.unwatch(pipe)
        del self._pipes[pipe]
        os.close(pipe)
        self._settle()

    def _settle(self) -> None:
        """Write the end down once there is nothing more to wait for."""
        if self.end is not None or self._exit is None or self._pipes:
            return
        if self._stop is not None and not self._stop.is_gone:
            return
        end = self._the_end()
        try:
            self.recorder.flush()
            self._facts.add({"end": end})
        except OSError as exc:
            self._loop.short_of_space(self, exc.strerror or str(exc))
            self._retry(self._settle)
            return
        self.end = end
        self.recorder.close()
        self._facts.close()
        if self._handle >= 0:
            os.close(self._handle)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        self._loop.ended(self)

    def _the_end(self) -> dict[str, Any]:
        was_stopped = self._stop is not None and (self._stop.found_any or self._handle < 0)
        return {
            **(self._exit or {}),
            "command_id": self.command_id,
            "ended_as": self._ended_as if was_stopped else None,
            "failure": self._failure if was_stopped else None,
            "stop_failure": self._stop_failure if was_stopped else None,
            "started_at": self.started_at_us,
            "finished_at": time.time_ns() // 1000,
            "written": list(self.recorder.written),
            "kept": list(self.recorder.kept),
        }

    # --- signals --------------------------------------------------------------------------

    def _look(self) -> None:
        stop = self._stop
        if stop is None or stop.is_gone:
            return
        first, *others = stop.impulses(time.monotonic())
        alive = self._tree.signal(first)
        for impulse in others:
            self._tree.signal(impulse)
        known = stop.failure
        pause_s = stop.note(alive, time.monotonic())
        if stop.failure is not None and stop.failure is not known:
            code, message = stop.failure
            left = list(stop.left)[:PIDS_MAX]
            self._stop_failure = {"code": code, "message": message, "pids": left}
            self._loop.told(self, {"is": "stop_failed", "failure": self._stop_failure})
        if pause_s is None:
            self._settle()
        else:
            self._cancel_look = self._loop.later(pause_s, self._look)

    def _shift(self, impulse: Impulse, *, is_paused: bool) -> bool:
        if self._stop is not None or self._exit is not None:
            return False
        self._tree.signal(impulse)
        self._is_paused = is_paused
        return True


class FactsFile:
    """What is written down of a command: each fact framed, after the ones before."""

    def __init__(self, stem: str, files: SpoolFiles) -> None:
        """Open it; raises OSError."""
        self.stem = stem
        self._file = files.open(f"{stem}.{FACTS}", os.O_WRONLY | os.O_APPEND)

    def add(self, facts: dict[str, Any]) -> None:
        """Append; raises OSError where not all of it was written."""
        data = frame(to_json(facts))
        if os.write(self._file, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close it."""
        os.close(self._file)


def start(wanted: dict[str, Any], stem: str, origin: dict[str, Any], loop: Loop) -> RunningJob:
    """Start what is wanted, in a session of its own; raises NotStarted, and then nothing runs.

    What is written down first, `origin` among it, lets another runner find what is left of it.
    """
    with contextlib.ExitStack() as failed:
        try:
            facts, begin = _written_down(wanted, stem, origin, loop)
            failed.callback(facts.close)
            job = _start(wanted, facts, begin, loop)
        except OSError as exc:
            raise NotStarted(_reason(exc)) from exc
        except UnicodeEncodeError as exc:
            raise NotStarted("the command holds text that is not Unicode") from exc
        except ValueError as exc:  # a NUL, or a variable's name with "=" in it
            raise NotStarted(f"the command cannot be started: {exc}") from exc
        failed.pop_all()
    return job


def _written_down(
    wanted: dict[str, Any], stem: str, origin: dict[str, Any], loop: Loop
) -> tuple[FactsFile, dict[str, Any]]:
    """What finds the command again is on its way to the disk; raises NoRoom, OSError."""
    begin = {"command_id": wanted["id"], **origin}
    try:
        facts = FactsFile(stem, loop.files)
        try:
            facts.add({"start": begin})
        except BaseException:
            facts.close()
            raise
    except OSError as exc:
        if exc.errno in _SPACE:
            raise NoRoom(exc.strerror or str(exc)) from exc
        raise
    return facts, begin


def _start(
    wanted: dict[str, Any], facts: FactsFile, begin: dict[str, Any], loop: Loop
) -> RunningJob:
    with contextlib.ExitStack() as ours:  # what the child has a copy of, and we need no more
        stdin = _input(wanted["stdin"])
        ours.callback(os.close, stdin)
        ends = [pipe_for_output(), pipe_for_output()]
        for _, write_end in ends:
            ours.callback(os.close, write_end)
        try:
            child = _spawn(wanted, stdin, ends[0][1], ends[1][1], begin["limit_number"])
        except BaseException:
            for read_end, _ in ends:
                os.close(read_end)
            raise
    with contextlib.suppress(OSError):  # the runner has a higher one
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, _limits(loop.open_files))
    child.returncode = 0  # its end is ours to take: Popen is to leave it alone
    root = process_at(child.pid)
    ticks = root.started if root is not None else 0
    tree = ProcessTree(
        child.pid, begin["since"], wanted["id"], begin["limit_number"], root_started=ticks
    )
    recorder = Recorder(facts.stem, wanted["max_output_bytes"], loop.null, loop.files)
    job = RunningJob(wanted["id"], facts, recorder, tree, loop)
    with contextlib.suppress(OSError):  # the marks find it, too
        facts.add({"pid": child.pid, "ticks": ticks, "started_at": job.started_at_us})
    job.begin([read_end for read_end, _ in ends], wanted["timeout_s"])
    return job


def _limits(open_files: int) -> tuple[int, int]:
    return open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _spawn(
    wanted: dict[str, Any], stdin: int, stdout: int, stderr: int, limit_number: int
) -> subprocess.Popen[bytes]:
    account = wanted["account"]
    hard = resource.getrlimit(LIMIT)[1]
    if hard == resource.RLIM_INFINITY:  # a host that bounds it keeps its bound, and lacks this mark
        resource.setrlimit(LIMIT, (limit_number, hard))
    return subprocess.Popen(  # noqa: S603 - running what it is told is its purpose
        [SHELL, "-c", wanted["command"]],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=wanted["cwd"],
        env={**wanted["env"], MARK: wanted["id"]},
        start_new_session=True,
        user=account["uid"] if account else None,
        group=account["gid"] if account else None,
        extra_groups=account["groups"] if account else None,
    )


def runner_died() -> dict[str, Any]:
    """Why a command is lost whose runner died."""
    return {
        "code": "runner_died",
        "message": "the agent's runner or its host died while the command ran: "
        "how it ended is not known; what was left of it has been ended",
    }


def _exit_of(pid: int) -> dict[str, Any]:
    """How the child `pid`, which has ended, did so; it is not reaped."""
    try:
        status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        status = None
    if status is None:
        return {"code": None, "signal": None, "is_unknown": True}
    if status.si_code == os.CLD_EXITED:
        return {"code": status.si_status, "signal": None}
    return {"code": None, "signal": _signal_name(status.si_status)}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # between SIGRTMIN and SIGRTMAX
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _input(text: str | None) -> int:
    """What the command reads: `text`, then its end; the caller closes it."""
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _reason(exc: OSError) -> str:
    if exc.errno == errno.E2BIG:
        return "the command and its environment are longer than this system allows"
    where = f" ({exc.filename})" if exc.filename and exc.filename != SHELL else ""
    return f"the command could not be started: {exc.strerror or exc}{where}"


def _nothing() -> None:
    pass
